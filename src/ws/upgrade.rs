//! The upgrade, from inside a handler: the handler asks, its endpoint answers 101 and hands the
//! handler to a task of its own, and the stream arrives there.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use tide::http::headers::{HeaderName, HeaderValue};
use tide::http::upgrade::Receiver;
use tide::{Response, StatusCode};

use super::admission::Admission;
use super::connection::{ConnectionTask, Deflation, Opened, Shared};
use super::deflate::Agreement;
use super::options::Settings;
use super::proto::{DeflateParameters, Role};
use super::{HandshakeError, WebSocket, WebSocketOptions};
use crate::error::Result;
use crate::instance::{Instance, Place};
use crate::runtime::{self, Timer};
use crate::stream::Stream;

/// Headers of the 101 that are the handshake's own, or that it must not have (RFC 9110 §15.2).
const RESERVED: [&str; 8] = [
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "content-length",
    "content-type",
    "transfer-encoding",
];

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

/// Where the stream of a request will come from.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Our own server.
    Front(Option<OnUpgrade>, PeerAddr, Arc<Instance>),
    /// Whatever server tide runs under.
    Tide,
}

impl Transport {
    pub(crate) fn take_from(request: &mut tide::http::Request) -> Self {
        let on_upgrade = request.ext_mut().remove();
        match (request.ext().get(), request.ext().get()) {
            (Some(peer_addr), Some(instance)) => {
                Self::Front(on_upgrade, *peer_addr, Arc::clone(instance))
            }
            _ => Self::Tide,
        }
    }

    fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Front(_, _, instance) => Some(instance),
            Self::Tide => None,
        }
    }
}

/// What a handler and its endpoint tell each other.
#[derive(Debug)]
pub(crate) struct Slot {
    can_upgrade: bool,
    instance: Option<Arc<Instance>>,
    talk: Mutex<Talk>,
}

#[derive(Debug)]
struct Talk {
    stage: Stage,
    /// The handler, while it waits for the stream.
    waker: Option<Waker>,
    /// The response prepared in the context.
    prepared: Option<Box<Response>>,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// The handler wants to upgrade: this is the 101.
    Wanted(Box<Wanted>),
    /// The 101 is on its way.
    Answered,
    Open(WebSocket),
    Failed(HandshakeError),
    /// The handler has the connection.
    Taken,
}

/// What of the 101 follows from the request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// `Sec-WebSocket-Protocol`.
    pub(crate) subprotocol: Option<Box<str>>,
    /// How messages will be compressed, if they will.
    pub(crate) agreement: Option<Agreement>,
}

/// The wait for the permits of a connection.
type Waiting<'a> = BoxFuture<'a, Result<Admission, HandshakeError>>;

#[derive(Debug)]
struct Wanted {
    accept: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    settings: Settings,
    timeout: Duration,
    subprotocol: Option<Box<str>>,
    deflation: Option<Arc<Deflation>>,
    admission: Admission,
}

impl Slot {
    pub(crate) fn new(transport: &Transport) -> Self {
        let can_upgrade = !matches!(transport, Transport::Front(None, ..));
        let talk = Talk { stage: Stage::Idle, waker: None, prepared: None };
        Self { can_upgrade, instance: transport.instance().cloned(), talk: Mutex::new(talk) }
    }

    /// The server of the request, if it is one of ours.
    pub(crate) fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }

    /// Asks for the upgrade and waits for the connection.
    ///
    /// A request that is no opening handshake gets no permit, and waits for none.
    pub(crate) async fn upgrade(
        &self,
        accept: impl Fn() -> Result<Answer, HandshakeError>,
        admission: Option<Waiting<'_>>,
        options: &WebSocketOptions,
    ) -> Result<WebSocket> {
        if self.is_idle() {
            // Boxed, so that a handler does not keep room for it while its connection is open.
            let wanted = Box::pin(self.prepare_upgrade(accept, admission, options)).await;
            self.want(wanted.inspect_err(|error| self.count(*error))?);
        }
        let _withdraw = Withdraw(self);
        Ok(std::future::poll_fn(|cx| self.poll_open(cx)).await?)
    }

    /// What the handler wants, with its permits, unless there is a reason to refuse it.
    async fn prepare_upgrade(
        &self,
        accept: impl Fn() -> Result<Answer, HandshakeError>,
        admission: Option<Waiting<'_>>,
        options: &WebSocketOptions,
    ) -> Result<Box<Wanted>, HandshakeError> {
        let wanted = self.wanted(accept()?, options)?;
        let Some(admission) = admission else { return Ok(wanted) };
        // What it would have reserved for its compression does not wait with it.
        drop(wanted);
        let admission = self.unless_shut_down(admission).await?;
        Ok(Box::new(Wanted { admission, ..*self.wanted(accept()?, options)? }))
    }

    /// Waits for the permits, until the server shuts down.
    async fn unless_shut_down(&self, admission: Waiting<'_>) -> Result<Admission, HandshakeError> {
        let Some(instance) = &self.instance else { return admission.await };
        match select(admission, instance.shutting_down()).await {
            Either::Left((admission, _)) => admission,
            Either::Right(_) => Err(HandshakeError::ShuttingDown),
        }
    }

    /// Counts a refusal.
    fn count(&self, error: HandshakeError) {
        if let Some(instance) = &self.instance {
            instance.counters.count_refused(error);
        }
    }

    fn wanted(
        &self,
        answer: Answer,
        options: &WebSocketOptions,
    ) -> Result<Box<Wanted>, HandshakeError> {
        let Answer { accept, subprotocol, agreement } = answer;
        let mut headers = response_headers(&options.headers)?;
        if let Some(name) = &subprotocol {
            headers.push(parse_header("sec-websocket-protocol", name)?);
        }
        if !self.can_upgrade {
            return Err(HandshakeError::NotUpgradable);
        }
        if self.instance.as_ref().is_some_and(|instance| instance.is_shutting_down()) {
            return Err(HandshakeError::ShuttingDown);
        }
        let deflation = agreement.map(|agreement| {
            headers.extend(extensions_header(agreement.parameters));
            let deflate = options.deflate.as_deref().cloned().unwrap_or_default();
            Deflation::new(&deflate, agreement, Role::Server)
        });
        let (settings, timeout) = (options.settings.clone(), options.handshake_timeout);
        let admission = Admission::default();
        Ok(Box::new(Wanted {
            accept,
            headers,
            settings,
            timeout,
            subprotocol,
            deflation,
            admission,
        }))
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<WebSocket, HandshakeError>> {
        let mut talk = self.talk();
        match std::mem::replace(&mut talk.stage, Stage::Taken) {
            Stage::Open(ws) => Poll::Ready(Ok(ws)),
            Stage::Taken => Poll::Ready(Err(HandshakeError::AlreadyUpgraded)),
            Stage::Failed(error) => {
                talk.stage = Stage::Failed(error);
                Poll::Ready(Err(error))
            }
            stage => {
                talk.stage = stage;
                talk.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Does the handler wait for its endpoint to answer 101?
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.talk().stage, Stage::Wanted(_))
    }

    fn want(&self, wanted: Box<Wanted>) {
        let mut talk = self.talk();
        // The request may have ended while this waited in another task.
        if matches!(talk.stage, Stage::Idle) {
            talk.stage = Stage::Wanted(wanted);
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.talk().stage, Stage::Idle)
    }

    /// Keeps the response that a context prepared, when the context is dropped.
    pub(crate) fn prepare(&self, response: Box<Response>) {
        self.talk().prepared = Some(response);
    }

    /// The response that the context prepared.
    pub(crate) fn take_prepared(&self) -> Response {
        self.talk()
            .prepared
            .take()
            .map_or_else(|| Response::new(StatusCode::Ok), |response| *response)
    }

    fn take_wanted(&self) -> Option<Box<Wanted>> {
        let mut talk = self.talk();
        match std::mem::replace(&mut talk.stage, Stage::Answered) {
            Stage::Wanted(wanted) => Some(wanted),
            stage => {
                talk.stage = stage;
                None
            }
        }
    }

    fn settle(&self, result: Result<WebSocket, HandshakeError>) {
        let mut talk = self.talk();
        talk.stage = result.map_or_else(Stage::Failed, Stage::Open);
        let waker = talk.waker.take();
        drop(talk);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Enters the connection among those of its server. It is closed at once if the server shuts
    /// down, and has closed the others already.
    fn take_place(&self, shared: &Arc<Shared>) -> Option<Place> {
        let instance = self.instance.as_ref()?;
        let place = Place::take(Arc::clone(instance), Arc::clone(shared));
        if let Some(frame) = instance.shutdown_frame() {
            shared.begin_close(frame.clone());
        }
        Some(place)
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the wish back if the handler gives up before the endpoint has seen it.
struct Withdraw<'a>(&'a Slot);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut talk = self.0.talk();
        talk.waker = None;
        if matches!(talk.stage, Stage::Wanted(_)) {
            talk.stage = Stage::Idle;
        }
    }
}

/// Ends the wait of a context that a handler gave to another task, when the endpoint is dropped:
/// nobody will answer 101.
#[derive(Debug)]
pub(crate) struct Abandon<'a>(pub(crate) &'a Arc<Slot>);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if Arc::strong_count(self.0) > 1 && (self.0.is_idle() || self.0.is_wanted()) {
            self.0.settle(Err(HandshakeError::Abandoned));
        }
    }
}

/// A handler at work; what it ends with matters to those above.
type HandlerFuture<T> = Pin<Box<dyn Future<Output = tide::Result<T>> + Send>>;

/// Answers 101 and lets the handler go on in a task of its own.
pub(crate) async fn start<T: 'static>(
    handler: HandlerFuture<T>,
    slot: Arc<Slot>,
    transport: Transport,
) -> tide::Result {
    let mut wanted = slot.take_wanted().ok_or(HandshakeError::Abandoned)?;
    let mut response = Response::new(StatusCode::SwitchingProtocols);
    response.insert_header("upgrade", "websocket");
    response.insert_header("connection", "Upgrade");
    response.insert_header("sec-websocket-accept", wanted.accept.as_str());
    for (name, value) in std::mem::take(&mut wanted.headers) {
        response.append_header(name, value);
    }
    let (source, peer_addr) = match transport {
        Transport::Front(Some(OnUpgrade(stream)), peer_addr, _) => {
            (Source::Front(stream), peer_addr.0)
        }
        Transport::Front(None, ..) => return Err(HandshakeError::NotUpgradable.into()),
        Transport::Tide => {
            let inner: &mut tide::http::Response = response.as_mut();
            (Source::Tide(inner.recv_upgrade().await), None)
        }
    };
    let deadline = runtime::after(wanted.timeout);
    let Wanted { settings, subprotocol, deflation, admission, .. } = *wanted;
    let parts = Box::new((settings, Opened { peer_addr, subprotocol, deflation }));
    let instance = slot.instance.clone();
    let run = run(handler, slot, source, parts, admission, deadline);
    match instance {
        Some(instance) => instance.tasks.spawn(run),
        None => drop(runtime::spawn(run)),
    }
    Ok(response)
}

enum Source {
    Front(oneshot::Receiver<Upgraded>),
    Tide(Receiver),
}

impl Source {
    /// Waits for the stream to be handed over.
    async fn open(self, deadline: Instant) -> Result<(Stream, Bytes), HandshakeError> {
        match select(pin!(self.stream()), Timer::at(deadline)).await {
            Either::Left((stream, _)) => stream.ok_or(HandshakeError::Abandoned),
            Either::Right(_) => Err(HandshakeError::TimedOut),
        }
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

/// The task of an upgraded handler, from the 101 on. The permits are those of the task: for as long
/// as either handler or connection lives.
async fn run<T>(
    handler: HandlerFuture<T>,
    slot: Arc<Slot>,
    source: Source,
    parts: Box<(Settings, Opened)>,
    admission: Admission,
    deadline: Instant,
) {
    // Boxed, so that the room it takes is free while the connection lives.
    match Box::pin(source.open(deadline)).await {
        Ok((stream, unread)) => {
            let (settings, opened) = *parts;
            let shared = Shared::new(stream, unread, Role::Server, settings, opened);
            let _place = slot.take_place(&shared);
            slot.settle(Ok(WebSocket::new(Arc::clone(&shared))));
            drop(slot);
            ConnectionTask::new(handler, shared).await;
            drop(admission);
        }
        Err(error) => {
            log::debug!("upgrade failed: {error}");
            slot.count(error);
            // What is reserved for the connection is free again, whatever the handler goes on with.
            drop((parts, admission));
            slot.settle(Err(error));
            finish(handler).await;
        }
    }
}

/// Lets a handler that lost its client come to its end.
async fn finish<T>(handler: HandlerFuture<T>) {
    match std::panic::AssertUnwindSafe(handler).catch_unwind().await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => log::debug!("WebSocket handler failed: {error}"),
        Err(_) => log::error!("WebSocket handler panicked"),
    }
}

fn extensions_header(parameters: DeflateParameters) -> Option<(HeaderName, HeaderValue)> {
    parse_header("sec-websocket-extensions", &parameters.to_string()).ok()
}

fn response_headers(
    headers: &[(String, String)],
) -> Result<Vec<(HeaderName, HeaderValue)>, HandshakeError> {
    let is_free = |name: &str| !RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    let free = headers.iter().filter(|(name, _)| is_free(name));
    free.map(|(name, value)| parse_header(name, value)).collect()
}

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HandshakeError> {
    // http_types would let line breaks pass.
    let is_valid =
        ::http::HeaderName::try_from(name).is_ok() && ::http::HeaderValue::try_from(value).is_ok();
    match (name.parse(), value.parse()) {
        (Ok(name), Ok(value)) if is_valid => Ok((name, value)),
        _ => Err(HandshakeError::InvalidHeader),
    }
}
