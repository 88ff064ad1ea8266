//! The handle by which other tasks watch a server and shut it down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::shutdown::Shutdown;
use crate::instance::{Instance, Metrics, ShutdownOptions, ShutdownReport};

/// A handle of a running server, to watch it and to shut it down.
///
/// Clones are handles of the same server. Dropping them all does not end the server.
///
/// # Cancel safety
///
/// All futures of this type may be dropped at any time. A [`shutdown`](Self::shutdown) that has been polled
/// once goes on.
#[derive(Clone)]
pub struct ServerHandle {
    local_addr: SocketAddr,
    instance: Arc<Instance>,
    shutdown: Arc<Shutdown>,
}

impl ServerHandle {
    pub(super) fn new(
        local_addr: SocketAddr,
        instance: Arc<Instance>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { local_addr, instance, shutdown }
    }

    /// The state that all connections of the server share.
    #[cfg(feature = "testing")]
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The first TCP address that the server listens on, with the real port; `0.0.0.0:0` if it has Unix
    /// sockets only.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Shuts the server down, and returns a report.
    ///
    /// The server stops listening. HTTP connections end with the response under way. WebSocket connections
    /// are sent a close frame; their handlers receive the messages that the peer still sends, and then
    /// `Ok(None)`. Handlers and connections that are left when [`grace`](ShutdownOptions::grace) is over
    /// are dropped. When this returns, the address is free and no task of the server is left, except a
    /// handler that blocks and never reaches an `await`.
    ///
    /// A second call, also from another handle, waits for the same shutdown, and the earlier of the two
    /// deadlines counts. So a second signal may shorten the time that the first has granted.
    ///
    /// The shutdown begins with the first poll of the future, and goes on in a task of its own.
    pub async fn shutdown(&self, options: ShutdownOptions) -> ShutdownReport {
        Shutdown::begin(&self.shutdown, options);
        self.shutdown.finished().await
    }

    /// Waits until the server has been shut down, by any handle.
    pub async fn stopped(&self) -> ShutdownReport {
        self.shutdown.finished().await
    }

    /// Waits until the server begins to shut down. Tasks of the application may wait for this to end, too.
    pub async fn shutting_down(&self) {
        self.instance.shutting_down().await;
    }

    /// Whether the server is shutting down, or has been shut down.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.instance.is_shutting_down()
    }

    /// Returns a snapshot of the server's counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.instance.metrics()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("local_addr", &self.local_addr)
            .field("is_shutting_down", &self.is_shutting_down())
            .finish_non_exhaustive()
    }
}
