//! Handlers: `async` closures over a request.
//!
//! | file | holds |
//! | --- | --- |
//! | `response` | the values that a handler may return |
//! | `watched` | a handler whose failure a test is told of |

mod response;
#[cfg(feature = "testing")]
mod watched;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures::TryFutureExt;
use tide::utils::async_trait;
use tide::{Response, StatusCode};

pub(crate) use self::response::Answer;
use self::response::Reply;
pub use self::response::{IntoResponse, Json};
use crate::context::{ContextRequest, RequestContext};
use crate::proto::handshake::{HandshakeError, is_header_line};
use crate::reject::{HandlerError, HandlerResult, Reason, Reject, SharedJudge};
use crate::runtime::Label;
use crate::upgrade;
use crate::upgrade::{Abandon, AnswerLog, PendingUpgrade, Requested, Switched, Transport};

/// A handler at work.
type HandlerFuture = Pin<Box<dyn Future<Output = HandlerResult<Reply>> + Send>>;

/// The code of a route: an `async` closure over a [`RequestContext`].
///
/// Implemented for every `Fn(RequestContext<State>) -> impl Future<Output = HandlerResult<R>>` with an `R` that is
/// [`IntoResponse`](super::server::IntoResponse). Any error converts into a [`HandlerError`] by `?`, whose page says what
/// the client is told. A function with an error type of its own is mounted by [`fallible`](crate::server::fallible).
///
/// A closure is called for each request, so it cannot give away what it has captured. What handlers share goes into the
/// [state](RequestContext::state) of the server, or is cloned for each call: `move |ctx| chat(ctx, room.clone())`.
///
/// ```
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// server.get("/hello/:name", |ctx: RequestContext| async move {
///     Ok(format!("Hello, {}!", ctx.param::<String>("name")?))
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "this is no handler",
    note = "a handler is an `async` closure or function over a `RequestContext`, whose result is a `tidewire::HandlerResult`",
    note = "a function with an error type of its own is one by `tidewire::server::fallible(function)`"
)]
pub trait Handler<State>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, ctx: RequestContext<State>, label: Label, judge: SharedJudge) -> HandlerFuture;
}

pin_project_lite::pin_project! {
    /// A handler, which tells its worker the route with each poll, and has the server judge its error.
    struct Labelled<F> {
        label: Label,
        judge: SharedJudge,
        #[pin]
        handler: F,
    }
}

impl<F: Future<Output = HandlerResult<Reply>>> Future for Labelled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.label.begin();
        let result = ready!(this.handler.poll(cx));
        Poll::Ready(result.map_err(|error| this.judge.judge(error)))
    }
}

impl<State, F, Fut, R> Handler<State> for F
where
    State: Clone + Send + Sync + 'static,
    F: Fn(RequestContext<State>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult<R>> + Send + 'static,
    R: IntoResponse,
{
    fn call(&self, ctx: RequestContext<State>, label: Label, judge: SharedJudge) -> HandlerFuture {
        // The closure itself runs in this call.
        label.begin();
        // Mapped, because an `async` block would hold room for the handler twice.
        let handler = self(ctx).map_ok(IntoResponse::into_reply);
        Box::pin(Labelled { label, judge, handler })
    }
}

/// A handler whose error is of a type of its own: `server.get("/lots/:id", fallible(lot))`.
///
/// A closure has [`HandlerError`] as its error, so that `?` needs no annotation in it. A named function may return any
/// other that converts into it; [`HandlerError`] says what the client is told.
///
/// ```
/// use std::fmt;
///
/// use tidewire::server::fallible;
/// use tidewire::{Reject, RequestContext, Server};
///
/// #[derive(Debug)]
/// enum AuctionError {
///     NoSuchLot,
/// }
///
/// impl fmt::Display for AuctionError {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("there is no such lot")
///     }
/// }
///
/// impl std::error::Error for AuctionError {}
///
/// async fn lot(_: RequestContext) -> Result<String, AuctionError> {
///     Err(AuctionError::NoSuchLot)
/// }
///
/// let mut server = Server::new();
/// server.get("/lots/:id", fallible(lot));
/// server.on_error(|error| match error.find()? {
///     AuctionError::NoSuchLot => Some(Reject::status(404, "no such lot")),
/// });
/// ```
pub fn fallible<State, F, Fut, R, E>(handler: F) -> impl Handler<State>
where
    State: Clone + Send + Sync + 'static,
    F: Fn(RequestContext<State>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoResponse,
    E: Into<HandlerError> + 'static,
{
    move |ctx| handler(ctx).map_err(Into::into)
}

/// Mounts a handler in a tide app: `app.at("/ws").get(tidewire::server::endpoint(handler))`.
///
/// In an app that listens through tide itself, async-h1 hands the stream over: a first frame that
/// comes in the same segment as the request is lost there, which [`Server`](crate::Server) avoids.
///
/// ```
/// use tidewire::{RequestContext, WebSocketOptions};
///
/// let mut app = tide::new();
/// app.at("/ws").get(tidewire::server::endpoint(|mut ctx: RequestContext| async move {
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     while let Some(message) = ws.recv().await? {
///         ws.send(message).await?;
///     }
///     Ok(())
/// }));
/// ```
pub fn endpoint<State>(handler: impl Handler<State>) -> impl tide::Endpoint<State>
where
    State: Clone + Send + Sync + 'static,
{
    let label = Label::new(std::any::type_name_of_val(&handler));
    HandlerEndpoint::new(handler, label)
}

/// As [`endpoint`], for a route that is known.
pub(crate) fn endpoint_of<State>(
    route: &str,
    handler: impl Handler<State>,
) -> impl tide::Endpoint<State>
where
    State: Clone + Send + Sync + 'static,
{
    HandlerEndpoint::new(handler, Label::new(route))
}

/// A handler as an endpoint of tide, which our own server may also call without tide.
pub(crate) struct HandlerEndpoint<State> {
    handler: Arc<dyn Handler<State>>,
    label: Label,
    /// That of the first server in which it is mounted.
    judge: OnceLock<SharedJudge>,
}

impl<State: Clone + Send + Sync + 'static> HandlerEndpoint<State> {
    fn new(handler: impl Handler<State>, label: Label) -> Self {
        Self { handler: Arc::new(handler), label, judge: OnceLock::new() }
    }

    /// Sets who judges the errors of the handler.
    pub(crate) fn set_judge(&self, judge: &SharedJudge) {
        self.judge.get_or_init(|| judge.clone());
    }

    /// Runs the handler, to its answer or to the 101 of its upgrade.
    pub(crate) async fn answer(
        &self,
        request: ContextRequest<State>,
        transport: Transport,
    ) -> Answer {
        let pending = Arc::new(PendingUpgrade::new(&transport));
        let _abandon = Abandon(&pending);
        let requested = Requested::new(&pending);
        let ctx = RequestContext::new(request, Arc::clone(&pending));
        let judge = self.judge.get().cloned().unwrap_or_default();
        let call = || self.handler.call(ctx, self.label, judge);
        #[cfg(feature = "testing")]
        let mut handler = watched::watched(&pending, self.label, call);
        #[cfg(not(feature = "testing"))]
        let mut handler = call();

        // Polled in place: a handler that answers with HTTP costs no task. One that upgrades goes
        // on in its own, once the 101 is on its way.
        let outcome = poll_fn(|cx| match handler.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if pending.has_switched(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match outcome.await {
            Some(Ok(reply)) => {
                let mut answer = reply.over(pending.take_prepared());
                if let Answer::Response(response) = &mut answer {
                    #[cfg(feature = "testing")]
                    if let Some(Told(reason)) = response.ext() {
                        watched::note_answer(&pending, self.label, reason);
                    }
                    tell_error(response, || transport.log());
                    requested.until_sent(response);
                }
                answer
            }
            Some(Err(error)) => {
                let mut response = error_response(error);
                tell_error(&mut response, || transport.log());
                Answer::Response(response)
            }
            None => {
                let log = transport.log();
                match upgrade::start(handler, Arc::clone(&pending), requested, transport).await {
                    Ok(Switched::Plain(fields)) => Answer::Switching(fields),
                    Ok(Switched::Response(response)) => Answer::Response(response),
                    Err(error) => {
                        let mut response = error_response(error.into());
                        tell_error(&mut response, || log);
                        Answer::Response(response)
                    }
                }
            }
        }
    }
}

impl<State> Clone for HandlerEndpoint<State> {
    fn clone(&self) -> Self {
        let (handler, judge) = (Arc::clone(&self.handler), self.judge.clone());
        Self { handler, label: self.label, judge }
    }
}

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Endpoint<State> for HandlerEndpoint<State> {
    async fn call(&self, mut request: tide::Request<State>) -> tide::Result {
        let transport = Transport::take_from(request.as_mut());
        Ok(self.answer(ContextRequest::of_tide(request), transport).await.into())
    }
}

impl<State> fmt::Debug for HandlerEndpoint<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerEndpoint").finish_non_exhaustive()
    }
}

/// The answer for an error. Middleware finds the error itself in the response.
fn error_response(error: HandlerError) -> Response {
    let mut response = if let Some(handshake) = error.handshake() {
        handshake_response(handshake)
    } else if let Some(reject) = error.reject() {
        reject_response(&reject)
    } else {
        // The client is told the status alone.
        Response::new(StatusCode::InternalServerError)
    };
    let status = response.status();
    response.insert_ext(Told(Reason::of(&error, status.into())));
    response.set_error(error.into_tide(status));
    response
}

/// The reason for the status of a response, in its extensions.
struct Told(Reason);

/// Has the log tell of a response that is an error.
fn tell_error(response: &mut Response, log: impl FnOnce() -> AnswerLog) {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let response: &mut tide::http::Response = response.as_mut();
        let reason = response.ext_mut().remove().map(|Told(reason)| reason);
        log().tell(status.into(), reason);
    }
}

/// Says that the log has been told why this response is an error.
pub(crate) fn is_told(response: &mut Response) {
    response.insert_ext(Told(Reason::Told));
}

fn reject_response(reject: &Reject) -> Response {
    let status = StatusCode::try_from(reject.status_code());
    let mut response = Response::new(status.unwrap_or(StatusCode::InternalServerError));
    for (name, value) in reject.fields() {
        if is_header_line(name, value) {
            response.append_header(&**name, &**value);
        }
    }
    if !reject.text().is_empty() {
        response.set_body(reject.text());
    }
    response
}

fn handshake_response(error: HandshakeError) -> Response {
    let status = StatusCode::try_from(error.status()).unwrap_or(StatusCode::InternalServerError);
    let mut response = Response::new(status);
    for (name, value) in error.fields() {
        response.insert_header(name, &*value);
    }
    response.set_body(error.text());
    response
}
