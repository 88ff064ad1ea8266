//! The state of a running server.

use std::future::Future;
use std::sync::Arc;

#[cfg(feature = "testing")]
use super::Failures;
use super::{Counters, IdleConnections, Metrics, Sockets, Tasks};
use crate::proto::CloseFrame;
use crate::runtime::Clock;

/// A running server, shared by the tasks that serve its connections.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    /// The clock for its deadlines.
    pub(crate) clock: Clock,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) idle: IdleConnections,
    pub(crate) counters: Counters,
    /// Failures of handlers that a test has not asked about.
    #[cfg(feature = "testing")]
    pub(crate) failures: Failures,
}

impl Instance {
    /// Creates a server whose deadlines follow `clock`, and whose WebSocket connections may hold
    /// `message_memory` bytes for messages in progress.
    pub(crate) fn new(clock: Clock, message_memory: Option<usize>, has_access_log: bool) -> Self {
        let sockets = Sockets::new(message_memory);
        let sockets = if has_access_log { sockets.with_access_log(clock.clone()) } else { sockets };
        Self { clock, sockets: Arc::new(sockets), ..Self::default() }
    }

    /// Announces that the server shuts down. From now on, new WebSocket connections are closed with `frame`.
    pub(crate) fn begin_shutdown(&self, frame: CloseFrame) {
        self.sockets.begin_shutdown(frame);
    }

    /// Whether the server shuts down.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.sockets.is_shutting_down()
    }

    /// Waits until the server shuts down.
    pub(crate) fn shutting_down(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.sockets.shutting_down()
    }

    /// Takes a snapshot of the server's counters.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::of(self)
    }
}
