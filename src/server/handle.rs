//! A running server, as other tasks know it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::shutdown::{Shutdown, ShutdownOptions, ShutdownReport};
use crate::instance::{Instance, Metrics};

/// A running server: to watch it, and to shut it down.
///
/// Clones are handles of the same server. Dropping them all does not end it.
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

    /// What the connections of the server have in common.
    #[cfg(feature = "testing")]
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Where the server listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Shuts the server down, and returns how that went.
    ///
    /// It stops listening. HTTP connections end with the response under way, and WebSocket
    /// connections with a close frame: their handlers receive what the peer still sends, and then
    /// `Ok(None)`. What is not done when [`grace`](ShutdownOptions::grace) is over is dropped, the
    /// handlers included. When this returns the address is free and no task of the server is left,
    /// save a handler that never comes to an `await`.
    ///
    /// Called again, also from another handle, it waits for the same end, which comes at the earlier
    /// of the two deadlines: a second signal may cut the patience of the first short.
    ///
    /// # Cancel safety
    ///
    /// Safe: the shutdown begins with the first poll, and goes on in a task of its own.
    pub async fn shutdown(&self, options: ShutdownOptions) -> ShutdownReport {
        Shutdown::begin(&self.shutdown, options);
        self.shutdown.finished().await
    }

    /// Waits until the server has been shut down, by whichever handle.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn stopped(&self) -> ShutdownReport {
        self.shutdown.finished().await
    }

    /// Waits until the server begins to shut down: time for tasks of the application to end, too.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn shutting_down(&self) {
        self.instance.shutting_down().await;
    }

    /// Does the server shut down, or has it?
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.instance.is_shutting_down()
    }

    /// What the server does at the moment, and has done.
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
