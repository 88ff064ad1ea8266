//! The stream of a request, from the HTTP server to the upgraded handler.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::task::AtomicWaker;

use crate::instance::Instance;
use crate::stream::Stream;

/// Where the connection of a request comes from; `None` from a socket in the file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) Option<SocketAddr>);

/// Resolves once the 101 is written; `Err` if the connection ended before that.
///
/// In the extensions of every request that asked for an upgrade and may have one: HTTP/1.1, with an
/// `Upgrade` header and without a body. Answering 101 is what starts the upgrade.
#[derive(Debug)]
pub(crate) struct OnUpgrade(pub(crate) oneshot::Receiver<Upgraded>);

/// The stream below an upgraded connection, and the bytes that were read of it with the request.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// Positioned after `read_ahead`.
    pub(crate) stream: Stream,
    /// The first bytes of the new protocol, which came along with the head of the request.
    pub(crate) read_ahead: Bytes,
}

/// Whether a client has sent something behind its request, before the 101 (RFC 6455 §4.1 forbids it).
///
/// It need not be an attack. But such bytes are not read before the 101, and while they wait the end of the
/// stream behind them is not seen. In the extensions of every request that has an [`OnUpgrade`].
#[derive(Debug, Default)]
pub(crate) struct Early {
    has_come: AtomicBool,
    waiter: AtomicWaker,
}

impl Early {
    pub(crate) fn set(&self, has_come: bool) {
        self.has_come.store(has_come, Ordering::Release);
        if has_come {
            self.waiter.wake();
        }
    }

    /// Waits until something comes.
    pub(super) async fn arrival(&self) {
        poll_fn(|cx| {
            self.waiter.register(cx.waker());
            if self.has_come.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Where the stream of a request will come from.
#[derive(Debug)]
pub(crate) enum Transport {
    /// From our own server: the stream if the request may have an upgrade, and what belongs to it.
    HttpServer(Option<OnUpgrade>, PeerAddr, Arc<Instance>, Option<Arc<Early>>),
    /// From the server that tide runs under.
    Tide,
}

impl Transport {
    pub(crate) fn take_from(request: &mut tide::http::Request) -> Self {
        let on_upgrade = request.ext_mut().remove();
        let early = request.ext().get().cloned();
        match (request.ext().get(), request.ext().get()) {
            (Some(peer_addr), Some(instance)) => {
                Self::HttpServer(on_upgrade, *peer_addr, Arc::clone(instance), early)
            }
            _ => Self::Tide,
        }
    }

    pub(super) fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::HttpServer(_, _, instance, _) => Some(instance),
            Self::Tide => None,
        }
    }

    pub(super) fn early(&self) -> Option<&Arc<Early>> {
        match self {
            Self::HttpServer(.., early) => early.as_ref(),
            Self::Tide => None,
        }
    }
}
