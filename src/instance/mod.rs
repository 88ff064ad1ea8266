//! One running server: what its connections have in common.
//!
//! | file | holds |
//! | --- | --- |
//! | `tasks` | the tasks that serve its connections |
//! | `sockets` | its open WebSocket connections |
//! | `idle` | its HTTP connections that wait for a request |
//! | `counters` | what has passed since it was bound |
//! | `metrics` | a snapshot of all of them |
//!
//! It is made by `server/`, which also shuts it down, and reaches handlers with each request.

mod counters;
mod idle;
mod metrics;
mod sockets;
mod tasks;

use std::future::Future;
use std::sync::{Arc, OnceLock};

pub(crate) use self::counters::{Counters, OpenHttp};
pub(crate) use self::idle::{IdleConnections, Lease};
pub use self::metrics::Metrics;
pub(crate) use self::sockets::{OpenSocket, Sockets};
pub(crate) use self::tasks::Tasks;
use crate::budget::MessageBudget;
use crate::changes::Changes;
use crate::proto::CloseFrame;
use crate::runtime::Clock;

/// A running server, shared by all that serves its connections.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    /// What its deadlines follow.
    pub(crate) clock: Clock,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) sockets: Sockets,
    pub(crate) idle: IdleConnections,
    pub(crate) counters: Counters,
    /// What its WebSocket connections may hold for messages in progress, if that is bounded.
    pub(crate) budget: Option<Arc<MessageBudget>>,
    /// Set when the server shuts down: what WebSocket connections are closed with.
    shutdown_frame: OnceLock<CloseFrame>,
    shutting_down: Changes,
}

impl Instance {
    /// One whose deadlines follow `clock`, and whose WebSocket connections may hold `message_memory` bytes for
    /// messages in progress.
    pub(crate) fn new(clock: Clock, message_memory: Option<usize>) -> Self {
        Self { clock, budget: message_memory.map(MessageBudget::new), ..Self::default() }
    }

    /// Tells everybody that the server shuts down, and closes WebSocket connections with `frame`.
    pub(crate) fn begin_shutdown(&self, frame: CloseFrame) {
        self.shutdown_frame.get_or_init(|| frame);
        self.shutting_down.tell();
    }

    /// What WebSocket connections are closed with, once the server shuts down.
    pub(crate) fn shutdown_frame(&self) -> Option<&CloseFrame> {
        self.shutdown_frame.get()
    }

    /// Does the server shut down?
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutdown_frame().is_some()
    }

    /// Waits until the server shuts down.
    pub(crate) fn shutting_down(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.shutting_down.until(|| self.is_shutting_down().then_some(()))
    }

    /// What the server does at the moment, and has done.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::of(self)
    }
}
