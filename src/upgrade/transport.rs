//! The stream of a request, from the HTTP server to the upgraded handler.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::task::AtomicWaker;

use super::kept_path;
use crate::admission::ServerLimits;
use crate::connection::ConnectionId;
use crate::instance::Instance;
use crate::reject::{Reason, Subject, tell_answer};
use crate::stream::{Security, Stream};
use crate::sync::Mutex;

/// Where the requests of a connection come from, and what holds for all of them. In the extensions of every request.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// `None` from a socket in the file system.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// The facts about the peer of an encrypted connection.
    pub(crate) security: Option<Arc<Security>>,
    /// The limits of the server on WebSocket connections.
    pub(crate) limits: Option<ServerLimits>,
    /// The number of the connection.
    pub(crate) id: Option<ConnectionId>,
    /// Why the request under way is answered with an error.
    reason: Mutex<Option<Reason>>,
}

impl Origin {
    /// Where requests come from.
    pub(crate) fn new(
        (peer, local): (Option<SocketAddr>, Option<SocketAddr>),
        security: Option<Arc<Security>>,
        limits: Option<ServerLimits>,
    ) -> Self {
        let id = Some(ConnectionId::next());
        Self { peer, local, security, limits, id, reason: Mutex::default() }
    }

    /// Has the log tell why the request under way is answered with an error.
    pub(crate) fn note(&self, reason: Reason) {
        *self.reason.lock() = Some(reason);
    }

    /// As [`note`](Self::note), unless a reason is known.
    pub(crate) fn note_if_unknown(&self, reason: impl FnOnce() -> Reason) {
        let is_unknown = self.reason.lock().is_none();
        if is_unknown {
            self.note(reason());
        }
    }

    pub(crate) fn take_reason(&self) -> Option<Reason> {
        self.reason.lock().take()
    }
}

/// A request that came through a server of tide.
#[derive(Debug)]
pub(crate) struct TideRequest {
    method: tide::http::Method,
    pub(super) path: Box<str>,
    peer: Option<SocketAddr>,
}

/// Resolves once the 101 is written; `Err` if the connection ended before that.
///
/// In the extensions of every request that asked for an upgrade and may have one: HTTP/1.1, with an
/// `Upgrade` header and without a body. Answering 101 is what starts the upgrade.
#[derive(Debug)]
pub(crate) struct OnUpgrade {
    pub(crate) stream: oneshot::Receiver<Upgraded>,
    /// The path of the request, for log records.
    pub(crate) path: Box<str>,
}

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
    HttpServer(Option<OnUpgrade>, Arc<Origin>, Arc<Instance>, Option<Arc<Early>>),
    /// From the server that tide runs under.
    Tide(TideRequest),
}

impl Transport {
    pub(crate) fn take_from(request: &mut tide::http::Request) -> Self {
        let on_upgrade = request.ext_mut().remove();
        let early = request.ext().get().cloned();
        match (request.ext().get(), request.ext().get()) {
            (Some(origin), Some(instance)) => {
                let (origin, instance): (&Arc<Origin>, &Arc<Instance>) = (origin, instance);
                Self::HttpServer(on_upgrade, Arc::clone(origin), Arc::clone(instance), early)
            }
            _ => Self::Tide(TideRequest {
                method: request.method(),
                path: kept_path(request.url().path()),
                peer: request.peer_addr().and_then(|addr| addr.parse().ok()),
            }),
        }
    }

    /// The way to the log for the reason why the request is answered with an error.
    pub(crate) fn log(&self) -> AnswerLog {
        match self {
            Self::HttpServer(_, origin, ..) => AnswerLog::Ours(Arc::clone(origin)),
            Self::Tide(TideRequest { method, path, peer }) => {
                let (method, path, peer) = (*method, path.clone(), *peer);
                AnswerLog::Tide(TideRequest { method, path, peer })
            }
        }
    }

    pub(super) fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::HttpServer(_, _, instance, _) => Some(instance),
            Self::Tide(_) => None,
        }
    }

    pub(super) fn early(&self) -> Option<&Arc<Early>> {
        match self {
            Self::HttpServer(.., early) => early.as_ref(),
            Self::Tide(_) => None,
        }
    }
}

/// The way to the log for the reason why a request is answered with an error.
#[derive(Debug)]
pub(crate) enum AnswerLog {
    /// Our own server writes the record when it has the answer, which middleware may have replaced.
    Ours(Arc<Origin>),
    /// Nothing else does.
    Tide(TideRequest),
}

impl AnswerLog {
    /// Tells why a request is answered with `status`, from 400 on. `reason` is `None` if the response says no more.
    pub(crate) fn tell(&self, status: u16, reason: Option<Reason>) {
        match (self, reason) {
            (Self::Ours(origin), Some(reason)) => origin.note(reason),
            (Self::Ours(_), None) => {}
            (Self::Tide(TideRequest { method, path, peer }), reason) => {
                let (method, path) = (Some(method.as_ref()), Some(&**path));
                tell_answer(
                    Subject { method, path, peer: *peer, connection: None },
                    status,
                    reason,
                );
            }
        }
    }
}
