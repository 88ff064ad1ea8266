//! The task of an upgraded handler, from the 101 on.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::channel::oneshot;
use tide::http::upgrade::Receiver;

use super::Upgraded;
use super::pending::PendingUpgrade;
use crate::admission::Admission;
use crate::connection::{ConnectionTask, Handling, Opened, Shared, WebSocket};
use crate::error::Result;
use crate::escaped::Escaped;
use crate::foreign::tell;
use crate::options::Settings;
use crate::proto::Role;
use crate::proto::handshake::HandshakeError;
use crate::runtime::Clock;
use crate::stream::Stream;

/// Where the stream comes from.
pub(super) enum Source {
    Front(oneshot::Receiver<Upgraded>),
    Tide(Receiver),
}

impl Source {
    /// Waits for the stream to be handed over.
    async fn open(
        self,
        deadline: Instant,
        clock: &Clock,
    ) -> Result<(Stream, Bytes), HandshakeError> {
        let stream = clock.until(deadline, self.stream()).await.ok_or(HandshakeError::TimedOut)?;
        stream.ok_or(HandshakeError::Abandoned)
    }

    async fn stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Front(receiver) => {
                let Upgraded { stream, read_ahead } = receiver.await.ok()?;
                Some((stream, read_ahead))
            }
            Self::Tide(receiver) => Some((Stream::boxed(receiver.await?), Bytes::new())),
        }
    }
}

/// The connection that a handler waits for, maybe in another task. Dropped, with a task that its executor
/// has dropped, there will be none.
pub(super) struct Promise(pub(super) Arc<PendingUpgrade>);

impl Promise {
    fn settle(self, result: Result<WebSocket, HandshakeError>) {
        self.0.settle(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The task of an upgraded handler, from the 101 on. The permits are those of the task: for as long
/// as either handler or connection lives.
pub(super) async fn run<T>(
    mut handler: Handling<T, tide::Error>,
    slot: Promise,
    source: Source,
    parts: Box<(Settings, Opened)>,
    admission: Admission,
    deadline: Instant,
) {
    // Boxed, so that the room it takes is free while the connection lives.
    match Box::pin(source.open(deadline, &parts.0.clock)).await {
        Ok((stream, unread)) => {
            let (settings, opened) = *parts;
            let shared = Shared::new(stream, unread, Role::Server, settings.with_task(), opened);
            let _place = slot.0.take_place(&shared);
            slot.settle(Ok(WebSocket::new(Arc::clone(&shared))));
            ConnectionTask::new(handler, shared).await;
            drop(admission);
        }
        Err(error) => {
            let told = Escaped(error);
            tell(|| log::debug!(reason = error.name(); "upgrade failed: {told}"));
            slot.0.count(error);
            // What is reserved for the connection is free again, whatever the handler goes on with.
            drop((parts, admission));
            slot.settle(Err(error));
            // A handler that lost its client comes to its end; how, the log has.
            let _ = poll_fn(|cx| handler.poll(cx)).await;
        }
    }
}
