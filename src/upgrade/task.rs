//! The task of an upgraded handler, from the 101 on.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::channel::oneshot;
use tide::StatusCode;
use tide::http::headers::{HeaderName, HeaderValue};
use tide::http::upgrade::Receiver;

use super::pending::{PendingUpgrade, Switching};
use super::{Field, OnUpgrade, Requested, Transport, Upgraded};
use crate::admission::Admission;
use crate::connection::{ConnectionTask, Handling, Opened, Shared, WebSocket, Whose};
use crate::escaped::Escaped;
use crate::instance::OpenSocket;
use crate::options::Settings;
use crate::proto::Role;
use crate::proto::handshake::{HandshakeError, RESERVED};
use crate::records::record;
use crate::reject::{HandlerError, HandlerResult, Subject};
use crate::runtime;
use crate::runtime::Clock;
use crate::stream::Stream;

/// A handler at work. Its result is for the middleware around it.
type HandlerFuture<T> = Pin<Box<dyn Future<Output = HandlerResult<T>> + Send>>;

/// The 101 of an upgrade.
#[expect(clippy::large_enum_variant, reason = "it is moved once, and soon taken apart")]
pub(crate) enum Switched {
    /// The fields of the handshake alone.
    Plain(Vec<Field>),
    /// A response of tide with these fields.
    Response(tide::Response),
}

impl From<Switched> for tide::Response {
    fn from(switched: Switched) -> Self {
        match switched {
            Switched::Plain(fields) => switching_protocols(None, &fields),
            Switched::Response(response) => response,
        }
    }
}

/// Answers 101, and moves the handler to a task of its own.
pub(crate) async fn start<T: 'static>(
    handler: HandlerFuture<T>,
    pending: Arc<PendingUpgrade>,
    requested: Requested,
    transport: Transport,
) -> Result<Switched, HandshakeError> {
    let switching = pending.take_switching().ok_or(HandshakeError::Abandoned)?;
    let Switching { mut upgrade, timeout, admission } = *switching;
    let fields = upgrade.take_fields();
    let (switched, source, whose) = match (transport, pending.take_prepared()) {
        (Transport::HttpServer(Some(OnUpgrade { stream, path }), origin, ..), prepared) => {
            let switched = match prepared {
                None => Switched::Plain(fields),
                prepared => Switched::Response(switching_protocols(prepared, &fields)),
            };
            (switched, Source::HttpServer(stream), (origin.peer, path, origin.id))
        }
        (Transport::HttpServer(None, ..), _) => return Err(HandshakeError::NotUpgradable),
        (Transport::Tide(request), prepared) => {
            let mut response = switching_protocols(prepared, &fields);
            let inner: &mut tide::http::Response = response.as_mut();
            let source = Source::Tide(inner.recv_upgrade().await);
            (Switched::Response(response), source, (None, request.path, None))
        }
    };
    let instance = pending.instance().cloned();
    let budget = instance.as_ref().and_then(|instance| instance.sockets.budget().cloned());
    #[cfg_attr(not(feature = "testing"), expect(unused_mut, reason = "only tests change it"))]
    let (mut settings, opened, _) = upgrade.into_parts();
    #[cfg(feature = "testing")]
    if let Some(instance) = &instance {
        // Without a clock of its own, the connection follows that of the server.
        settings.clock.inherit(&instance.clock);
    }
    let deadline = settings.clock.after(timeout);
    let (peer_addr, path, id) = whose;
    let opened = Opened { budget, peer_addr, path: Some(path), id, ..opened };
    let parts = Box::new((settings, opened));
    let promise = Promise(Arc::clone(&pending));
    let promise = (promise, requested);
    let run = run(Handling::new(handler), promise, source, parts, admission, deadline);
    let is_taken = match &instance {
        Some(instance) => instance.tasks.spawn(run),
        None => runtime::spawn(run).is_some(),
    };
    if !is_taken {
        let error = HandshakeError::ShuttingDown;
        pending.count(error);
        return Err(error);
    }
    Ok(switched)
}

/// The 101: what the handler has prepared, cookies included, without status, body and headers that are not the
/// handler's to set, and the fields of the handshake.
fn switching_protocols(prepared: Option<tide::Response>, fields: &[Field]) -> tide::Response {
    let mut response = prepared.unwrap_or_else(|| tide::Response::new(StatusCode::Ok));
    response.set_status(StatusCode::SwitchingProtocols);
    drop(response.take_body());
    for name in RESERVED {
        drop(response.remove_header(name));
    }
    for (name, value) in fields {
        // They are ASCII, which is all that tide asks for.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.append_header(name, value);
        }
    }
    response
}

/// The origin of the stream.
enum Source {
    HttpServer(oneshot::Receiver<Upgraded>),
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
            Self::HttpServer(receiver) => {
                let Upgraded { stream, read_ahead } = receiver.await.ok()?;
                Some((stream, read_ahead))
            }
            Self::Tide(receiver) => Some((Stream::boxed(receiver.await?), Bytes::new())),
        }
    }
}

/// The duty to give the handler its connection, or an error; the handler may wait in another task. Dropped with
/// a task that its executor has dropped, it gives the error.
struct Promise(Arc<PendingUpgrade>);

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

/// The task of an upgraded handler, from the 101 on. It holds the permits for as long as handler or connection
/// lives.
///
/// What it needs until the connection is there is boxed, and freed then: the task of an idle connection is small.
fn run<T: 'static>(
    handler: Handling<T, HandlerError>,
    promise: (Promise, Requested),
    source: Source,
    parts: Box<(Settings, Opened)>,
    admission: Admission,
    deadline: Instant,
) -> impl Future<Output = ()> + Send + 'static {
    let opening = Box::pin(open(handler, promise, source, parts, admission, deadline));
    async move {
        let Some((task, open, admission)) = opening.await else { return };
        task.await;
        drop((open, admission));
    }
}

/// Waits for the stream, and gives the handler its connection. Without a stream, the handler runs to its end.
async fn open<T>(
    mut handler: Handling<T, HandlerError>,
    (promise, requested): (Promise, Requested),
    source: Source,
    parts: Box<(Settings, Opened)>,
    admission: Admission,
    deadline: Instant,
) -> Option<(ConnectionTask<T, HandlerError>, Option<OpenSocket>, Admission)> {
    match source.open(deadline, &parts.0.clock).await {
        Ok((stream, unread)) => {
            let (settings, opened) = *parts;
            let shared = Shared::new(stream, unread, Role::Server, settings.with_task(), opened);
            let open = promise.0.count_open(&shared);
            promise.settle(Ok(WebSocket::new(Arc::clone(&shared))));
            // From here on, the tasks of the request end with the connection.
            drop(requested);
            Some((ConnectionTask::new(handler, shared), open, admission))
        }
        Err(error) => {
            promise.0.count(error);
            let (settings, opened) = *parts;
            // Permits and memory of the connection are free again, also if the handler goes on.
            let lost = opened.lost();
            drop((settings, admission));
            let Subject { path, peer, connection, .. } = lost.subject();
            record!(
                debug,
                "upgrade failed",
                path = path.map(Escaped),
                peer = peer,
                connection = connection,
                reason = error.name()
            );
            promise.settle(Err(error));
            // A handler that lost its client runs to its end. Its error is in the log.
            let _ = poll_fn(|cx| handler.poll(cx, Whose::Lost(&lost))).await;
            None
        }
    }
}
