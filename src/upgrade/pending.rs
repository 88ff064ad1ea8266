//! An upgrade that is under way: what handler and endpoint tell each other until the connection is there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use tide::http::headers::{HeaderName, HeaderValue};
use tide::{Response, StatusCode};

use super::{Early, Transport};
use crate::admission::Admission;
use crate::connection::{Deflation, Shared, WebSocket};
use crate::error::Result;
use crate::instance::{Instance, OpenSocket};
use crate::options::deflate::Agreement;
use crate::options::{Settings, WebSocketOptions};
use crate::proto::handshake::{HandshakeError, is_reserved};
use crate::proto::{DeflateParameters, Role};
use crate::sync::{Mutex, MutexGuard};

/// What a handler and its endpoint tell each other.
///
/// What leaves the talk is dropped without its lock: a waker, a response and permits that others wait for
/// are code of the application, or call it.
#[derive(Debug)]
pub(crate) struct PendingUpgrade {
    can_upgrade: bool,
    instance: Option<Arc<Instance>>,
    early: Option<Arc<Early>>,
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
    Switching(Box<Switching>),
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

/// What the handler waits for, and what it was promised.
#[derive(Debug)]
pub(super) struct Switching {
    pub(super) accept: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) settings: Settings,
    pub(super) timeout: Duration,
    pub(super) subprotocol: Option<Box<str>>,
    pub(super) deflation: Option<Arc<Deflation>>,
    pub(super) admission: Admission,
}

impl PendingUpgrade {
    pub(crate) fn new(transport: &Transport) -> Self {
        let can_upgrade = !matches!(transport, Transport::Front(None, ..));
        let talk = Talk { stage: Stage::Idle, waker: None, prepared: None };
        Self {
            can_upgrade,
            instance: transport.instance().cloned(),
            early: transport.early().cloned(),
            talk: Mutex::new(talk),
        }
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
    ) -> Result<Box<Switching>, HandshakeError> {
        let wanted = self.wanted(accept()?, options)?;
        let Some(admission) = admission else { return Ok(wanted) };
        // What it would have reserved for its compression does not wait with it.
        drop(wanted);
        let admission = self.unless_in_vain(admission).await?;
        Ok(Box::new(Switching { admission, ..*self.wanted(accept()?, options)? }))
    }

    /// Waits for the permits, until the server shuts down, or the client sends something: it would not be
    /// known any more whether it still waits.
    async fn unless_in_vain(&self, admission: Waiting<'_>) -> Result<Admission, HandshakeError> {
        let (Some(instance), Some(early)) = (&self.instance, &self.early) else {
            return admission.await;
        };
        match select(admission, select(instance.shutting_down(), pin!(early.come()))).await {
            Either::Left((admission, _)) => admission,
            Either::Right((Either::Left(_), _)) => Err(HandshakeError::ShuttingDown),
            Either::Right((Either::Right(_), _)) => Err(HandshakeError::EarlyData),
        }
    }

    /// Counts a refusal.
    pub(super) fn count(&self, error: HandshakeError) {
        if let Some(instance) = &self.instance {
            instance.counters.count_refused(error);
        }
    }

    fn wanted(
        &self,
        answer: Answer,
        options: &WebSocketOptions,
    ) -> Result<Box<Switching>, HandshakeError> {
        let Answer { accept, subprotocol, agreement } = answer;
        let mut headers = response_headers(&options.parts.headers)?;
        if let Some(name) = &subprotocol {
            headers.push(parse_header("sec-websocket-protocol", name)?);
        }
        let is_valid = self.talk().prepared.as_deref().is_none_or(are_valid);
        if !is_valid {
            return Err(HandshakeError::InvalidHeader);
        }
        if !self.can_upgrade {
            return Err(HandshakeError::NotUpgradable);
        }
        if self.instance.as_ref().is_some_and(|instance| instance.is_shutting_down()) {
            return Err(HandshakeError::ShuttingDown);
        }
        let deflation = agreement.map(|agreement| {
            headers.extend(extensions_header(agreement.parameters));
            let deflate = options.parts.deflate.clone().unwrap_or_default();
            Deflation::new(&deflate, agreement, Role::Server)
        });
        let (settings, timeout) = (options.parts.settings.clone(), options.parts.handshake_timeout);
        let admission = Admission::default();
        Ok(Box::new(Switching {
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
        let mut waker = Some(cx.waker().clone());
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
                std::mem::swap(&mut talk.waker, &mut waker);
                Poll::Pending
            }
        }
    }

    /// Does the handler wait for its endpoint to answer 101?
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.talk().stage, Stage::Switching(_))
    }

    fn want(&self, wanted: Box<Switching>) {
        let mut wanted = Stage::Switching(wanted);
        let mut talk = self.talk();
        // The request may have ended while this waited in another task.
        if matches!(talk.stage, Stage::Idle) {
            std::mem::swap(&mut talk.stage, &mut wanted);
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.talk().stage, Stage::Idle)
    }

    /// Keeps the response that a context prepared, for the 101, or when the context is dropped.
    pub(crate) fn prepare(&self, response: Box<Response>) {
        let replaced = self.talk().prepared.replace(response);
        drop(replaced);
    }

    /// The response that the context prepared; else one of 200.
    pub(crate) fn take_prepared(&self) -> Response {
        let prepared = self.talk().prepared.take();
        prepared.map_or_else(|| Response::new(StatusCode::Ok), |response| *response)
    }

    pub(super) fn take_wanted(&self) -> Option<Box<Switching>> {
        let mut talk = self.talk();
        match std::mem::replace(&mut talk.stage, Stage::Answered) {
            Stage::Switching(wanted) => Some(wanted),
            stage => {
                talk.stage = stage;
                None
            }
        }
    }

    pub(super) fn settle(&self, result: Result<WebSocket, HandshakeError>) {
        let stage = result.map_or_else(Stage::Failed, Stage::Open);
        let mut talk = self.talk();
        let before = std::mem::replace(&mut talk.stage, stage);
        let waker = talk.waker.take();
        drop(talk);
        drop(before);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nobody will answer with the connection, if nobody has.
    pub(super) fn abandon(&self) {
        let is_answered = matches!(self.talk().stage, Stage::Answered);
        if is_answered {
            self.settle(Err(HandshakeError::Abandoned));
        }
    }

    /// Enters the connection among those of its server. It is closed at once if the server shuts
    /// down, and has closed the others already.
    pub(super) fn take_place(&self, shared: &Arc<Shared>) -> Option<OpenSocket> {
        let instance = self.instance.as_ref()?;
        let place = OpenSocket::take(Arc::clone(instance), Arc::clone(shared));
        if let Some(frame) = instance.shutdown_frame() {
            shared.begin_close(frame.clone());
        }
        Some(place)
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock()
    }
}

/// Takes the wish back if the handler gives up before the endpoint has seen it.
struct Withdraw<'a>(&'a PendingUpgrade);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut talk = self.0.talk();
        let waker = talk.waker.take();
        let is_wanted = matches!(talk.stage, Stage::Switching(_));
        let wanted = is_wanted.then(|| std::mem::replace(&mut talk.stage, Stage::Idle));
        drop(talk);
        drop((waker, wanted));
    }
}

/// Ends the wait of a context that a handler gave to another task, when the endpoint is dropped:
/// nobody will answer 101.
#[derive(Debug)]
pub(crate) struct Abandon<'a>(pub(crate) &'a Arc<PendingUpgrade>);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if Arc::strong_count(self.0) > 1 && (self.0.is_idle() || self.0.is_wanted()) {
            self.0.settle(Err(HandshakeError::Abandoned));
        }
    }
}

/// `Sec-WebSocket-Extensions`, as it was agreed on.
pub(super) fn extensions_header(
    parameters: DeflateParameters,
) -> Option<(HeaderName, HeaderValue)> {
    parse_header("sec-websocket-extensions", &parameters.to_string()).ok()
}

/// The headers of the options, without those that are the handshake's own.
pub(super) fn response_headers(
    headers: &[(String, String)],
) -> Result<Vec<(HeaderName, HeaderValue)>, HandshakeError> {
    let free = headers.iter().filter(|(name, _)| !is_reserved(name));
    free.map(|(name, value)| parse_header(name, value)).collect()
}

/// Whether HTTP allows all headers of a response.
pub(super) fn are_valid(response: &Response) -> bool {
    response.iter().all(|(name, values)| {
        values.iter().all(|value| ::http::HeaderValue::try_from(value.as_str()).is_ok())
            && ::http::HeaderName::try_from(name.as_str()).is_ok()
    })
}

/// A header, if HTTP allows it.
pub(super) fn parse_header(
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue), HandshakeError> {
    // http_types would let line breaks pass.
    let is_valid =
        ::http::HeaderName::try_from(name).is_ok() && ::http::HeaderValue::try_from(value).is_ok();
    match (name.parse(), value.parse()) {
        (Ok(name), Ok(value)) if is_valid => Ok((name, value)),
        _ => Err(HandshakeError::InvalidHeader),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;

    use super::*;

    /// A waker that asks the slot whenever it is called or dropped.
    struct Curious(Arc<PendingUpgrade>, Arc<AtomicUsize>);

    impl Curious {
        fn ask(&self) {
            assert!(!self.0.is_wanted());
            self.1.fetch_add(1, Relaxed);
        }
    }

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.ask();
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            self.ask();
        }
    }

    #[test]
    fn a_waker_may_ask_the_slot_where_it_is_called_and_dropped() {
        let (slot, asked) =
            (Arc::new(PendingUpgrade::new(&Transport::Tide)), Arc::new(AtomicUsize::new(0)));
        let poll = || {
            let waker = Waker::from(Arc::new(Curious(Arc::clone(&slot), Arc::clone(&asked))));
            slot.poll_open(&mut Context::from_waker(&waker))
        };
        assert!(poll().is_pending());
        assert_eq!(asked.load(Relaxed), 0);
        assert!(poll().is_pending());
        assert_eq!(asked.load(Relaxed), 1, "one waker takes the place of the other");
        drop(Withdraw(&slot));
        assert_eq!(asked.load(Relaxed), 2, "the handler gives up");
        assert!(poll().is_pending());
        slot.settle(Err(HandshakeError::TimedOut));
        assert_eq!(asked.load(Relaxed), 4, "one is called, and then dropped");
        assert!(poll().is_ready());
    }
}
