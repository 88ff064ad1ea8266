//! The upgrade, from inside a handler: the handler asks, its endpoint answers 101 and hands the
//! handler to a task of its own, and the stream arrives there.
//!
//! | file | holds |
//! | --- | --- |
//! | `pending` | an upgrade under way: what handler and endpoint tell each other, and the 101 |
//! | `task` | the handler, from the 101 on |

mod pending;
mod task;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use tide::StatusCode;

use self::pending::Switching;
pub(crate) use self::pending::{Abandon, Answer, PendingUpgrade};
use self::task::{Promise, Source};
use crate::connection::{Handling, Opened};
use crate::instance::Instance;
use crate::proto::handshake::{HandshakeError, RESERVED};
use crate::runtime;
use crate::stream::Stream;

/// Where the connection of a request comes from; `None` from a socket in the file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) Option<SocketAddr>);

/// Resolves once the 101 is written; `Err` if the connection ended before.
///
/// In the extensions of every request that asked for an upgrade and may have one: HTTP/1.1, with an
/// `Upgrade` header and without a body. Answering 101 is what starts the upgrade.
#[derive(Debug)]
pub(crate) struct OnUpgrade(pub(crate) oneshot::Receiver<Upgraded>);

/// The stream below an upgraded connection, with what was read of it too early.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// Positioned after `read_ahead`.
    pub(crate) stream: Stream,
    /// The first bytes of the new protocol, which came along with the head of the request.
    pub(crate) read_ahead: Bytes,
}

/// Whether a client has sent something behind its request, before the 101 (RFC 6455 §4.1 forbids it).
///
/// It need not be an attack; but what came hides that nothing will come any more, since it is not read
/// before it is known what it is. In the extensions of every request that has an [`OnUpgrade`].
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
    pub(super) async fn come(&self) {
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
    /// Our own server.
    Front(Option<OnUpgrade>, PeerAddr, Arc<Instance>, Option<Arc<Early>>),
    /// Whatever server tide runs under.
    Tide,
}

impl Transport {
    pub(crate) fn take_from(request: &mut tide::http::Request) -> Self {
        let on_upgrade = request.ext_mut().remove();
        let early = request.ext().get().cloned();
        match (request.ext().get(), request.ext().get()) {
            (Some(peer_addr), Some(instance)) => {
                Self::Front(on_upgrade, *peer_addr, Arc::clone(instance), early)
            }
            _ => Self::Tide,
        }
    }

    fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Front(_, _, instance, _) => Some(instance),
            Self::Tide => None,
        }
    }

    fn early(&self) -> Option<&Arc<Early>> {
        match self {
            Self::Front(.., early) => early.as_ref(),
            Self::Tide => None,
        }
    }
}

/// A handler at work; what it ends with matters to those above.
type HandlerFuture<T> = Pin<Box<dyn Future<Output = tide::Result<T>> + Send>>;

/// Answers 101 and lets the handler go on in a task of its own.
pub(crate) async fn start<T: 'static>(
    handler: HandlerFuture<T>,
    slot: Arc<PendingUpgrade>,
    transport: Transport,
) -> tide::Result {
    let mut wanted = slot.take_wanted().ok_or(HandshakeError::Abandoned)?;
    // What the handler has prepared, cookies included, but for what is not its to say.
    let mut response = slot.take_prepared();
    response.set_status(StatusCode::SwitchingProtocols);
    drop(response.take_body());
    for name in RESERVED {
        drop(response.remove_header(name));
    }
    response.insert_header("upgrade", "websocket");
    response.insert_header("connection", "Upgrade");
    response.insert_header("sec-websocket-accept", wanted.accept.as_str());
    for (name, value) in std::mem::take(&mut wanted.headers) {
        response.append_header(name, value);
    }
    let (source, peer_addr) = match transport {
        Transport::Front(Some(OnUpgrade(stream)), peer_addr, ..) => {
            (Source::Front(stream), peer_addr.0)
        }
        Transport::Front(None, ..) => return Err(HandshakeError::NotUpgradable.into()),
        Transport::Tide => {
            let inner: &mut tide::http::Response = response.as_mut();
            (Source::Tide(inner.recv_upgrade().await), None)
        }
    };
    let deadline = wanted.settings.clock.after(wanted.timeout);
    let Switching { settings, subprotocol, deflation, admission, .. } = *wanted;
    let instance = slot.instance().cloned();
    let budget = instance.as_ref().and_then(|instance| instance.budget.clone());
    let parts = Box::new((settings, Opened { peer_addr, subprotocol, deflation, budget }));
    let promise = Promise(Arc::clone(&slot));
    let run = task::run(Handling::new(handler), promise, source, parts, admission, deadline);
    let is_taken = match &instance {
        Some(instance) => instance.tasks.spawn(run),
        None => runtime::spawn(run).is_some(),
    };
    if !is_taken {
        let error = HandshakeError::ShuttingDown;
        slot.count(error);
        return Err(error.into());
    }
    Ok(response)
}
