//! One running server: the state that its connections share.
//!
//! | file | holds |
//! | --- | --- |
//! | `tasks` | the tasks that serve its connections |
//! | `sockets` | its open WebSocket connections |
//! | `idle` | its HTTP connections that wait for a request |
//! | `counters` | counters since it was bound |
//! | `metrics` | a snapshot of all counters |
//!
//! `server/` creates it and shuts it down. Each request carries it to its handler.

mod counters;
mod idle;
mod metrics;
mod sockets;
mod tasks;

use std::future::Future;
use std::sync::{Arc, OnceLock};

pub(crate) use self::counters::{Counters, OpenHttp};
pub(crate) use self::idle::{IdleConnections, Lease};
pub use self::metrics::{Metrics, WorkerMetrics};
pub(crate) use self::sockets::{OpenSocket, Sockets};
pub(crate) use self::tasks::Tasks;
use crate::budget::MessageBudget;
use crate::changes::Changes;
use crate::proto::CloseFrame;
use crate::runtime::Clock;

/// A running server, shared by the tasks that serve its connections.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    /// The clock for its deadlines.
    pub(crate) clock: Clock,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) sockets: Sockets,
    pub(crate) idle: IdleConnections,
    pub(crate) counters: Counters,
    /// The limit on the bytes of messages in progress, if there is one.
    pub(crate) budget: Option<Arc<MessageBudget>>,
    /// Set when the server shuts down: the close frame for WebSocket connections.
    shutdown_frame: OnceLock<CloseFrame>,
    shutting_down: Changes,
}

impl Instance {
    /// Creates a server whose deadlines follow `clock`, and whose WebSocket connections may hold
    /// `message_memory` bytes for messages in progress.
    pub(crate) fn new(clock: Clock, message_memory: Option<usize>) -> Self {
        Self { clock, budget: message_memory.map(MessageBudget::new), ..Self::default() }
    }

    /// Announces that the server shuts down. From now on, new WebSocket connections are closed with `frame`.
    pub(crate) fn begin_shutdown(&self, frame: CloseFrame) {
        self.shutdown_frame.get_or_init(|| frame);
        self.shutting_down.tell();
    }

    /// The close frame for WebSocket connections; `None` before the server shuts down.
    pub(crate) fn shutdown_frame(&self) -> Option<&CloseFrame> {
        self.shutdown_frame.get()
    }

    /// Whether the server shuts down.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutdown_frame().is_some()
    }

    /// Waits until the server shuts down.
    pub(crate) fn shutting_down(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.shutting_down.until(|| self.is_shutting_down().then_some(()))
    }

    /// Takes a snapshot of the server's counters.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::of(self)
    }
}
