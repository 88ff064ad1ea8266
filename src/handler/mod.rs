//! Handlers: `async` closures over a request.
//!
//! | file | holds |
//! | --- | --- |
//! | `response` | the values that a handler may return |

mod response;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt;
use tide::utils::async_trait;
use tide::{Response, StatusCode};

pub(crate) use self::response::Answer;
pub use self::response::IntoResponse;
use self::response::Reply;
use crate::context::{ContextRequest, RequestContext};
use crate::error::Error;
use crate::escaped::Escaped;
use crate::foreign::tell;
use crate::proto::handshake::HandshakeError;
use crate::runtime::Label;
use crate::upgrade;
use crate::upgrade::{Abandon, PendingUpgrade, Requested, Switched, Transport};

/// A handler at work.
type HandlerFuture = Pin<Box<dyn Future<Output = tide::Result<Reply>> + Send>>;

/// The code of a route: an `async` closure over a [`RequestContext`].
///
/// Implemented for every `Fn(RequestContext<State>) -> impl Future<Output = tide::Result<R>>` with
/// an `R` that is [`IntoResponse`]. Any [`std::error::Error`] converts into tide's error by `?`, and is a
/// 500 then; `tide::Error::from_str` and `tide::Error::new` take another status. The client is told the
/// status, and not the text: that is for middleware, in `Response::error`. A [`HandshakeError`] is told in
/// full.
///
/// ```
/// use tidewire::{RequestContext, Server};
///
/// let mut server = Server::new();
/// server.get("/hello/:name", |ctx: RequestContext| async move {
///     Ok(format!("Hello, {}!", ctx.param("name").unwrap_or("you")))
/// });
/// ```
pub trait Handler<State>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, ctx: RequestContext<State>, label: Label) -> HandlerFuture;
}

pin_project_lite::pin_project! {
    /// A handler, which tells its worker the route with each poll.
    struct Labelled<F> {
        label: Label,
        #[pin]
        handler: F,
    }
}

impl<F: Future> Future for Labelled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.label.begin();
        this.handler.poll(cx)
    }
}

impl<State, F, Fut, R> Handler<State> for F
where
    State: Clone + Send + Sync + 'static,
    F: Fn(RequestContext<State>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = tide::Result<R>> + Send + 'static,
    R: IntoResponse,
{
    fn call(&self, ctx: RequestContext<State>, label: Label) -> HandlerFuture {
        // The closure itself runs in this call.
        label.begin();
        // Mapped, because an `async` block would hold room for the handler twice.
        let handler = self(ctx).map_ok(IntoResponse::into_reply);
        Box::pin(Labelled { label, handler })
    }
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
    HandlerEndpoint { handler: Arc::new(handler), label }
}

/// As [`endpoint`], for a route that is known.
pub(crate) fn endpoint_of<State>(
    route: &str,
    handler: impl Handler<State>,
) -> impl tide::Endpoint<State>
where
    State: Clone + Send + Sync + 'static,
{
    HandlerEndpoint { handler: Arc::new(handler), label: Label::new(route) }
}

/// A handler as an endpoint of tide, which our own server may also call without tide.
pub(crate) struct HandlerEndpoint<State> {
    handler: Arc<dyn Handler<State>>,
    label: Label,
}

impl<State: Clone + Send + Sync + 'static> HandlerEndpoint<State> {
    /// Runs the handler, to its answer or to the 101 of its upgrade.
    pub(crate) async fn answer(
        &self,
        request: ContextRequest<State>,
        transport: Transport,
    ) -> Answer {
        let pending = Arc::new(PendingUpgrade::new(&transport));
        let _abandon = Abandon(&pending);
        let requested = Requested::new(&pending);
        let mut handler =
            self.handler.call(RequestContext::new(request, Arc::clone(&pending)), self.label);

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
                    requested.until_sent(response);
                }
                answer
            }
            Some(Err(error)) => Answer::Response(error_response(error)),
            None => match upgrade::start(handler, Arc::clone(&pending), requested, transport).await
            {
                Ok(Switched::Plain(fields)) => Answer::Switching(fields),
                Ok(Switched::Response(response)) => Answer::Response(response),
                Err(error) => Answer::Response(error_response(error)),
            },
        }
    }
}

impl<State> Clone for HandlerEndpoint<State> {
    fn clone(&self) -> Self {
        Self { handler: Arc::clone(&self.handler), label: self.label }
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
fn error_response(error: tide::Error) -> Response {
    let own = error.downcast_ref::<Error>().and_then(|error| match error {
        Error::Handshake(handshake) => Some(*handshake),
        _ => None,
    });
    if let Some(handshake) = own.or_else(|| error.downcast_ref::<HandshakeError>().copied()) {
        let mut response = handshake_response(handshake);
        response.set_error(error);
        return response;
    }
    if error.status().is_server_error() {
        // The client is told the status alone.
        let status = u16::from(error.status());
        let told = Escaped(&error);
        tell(|| log::debug!(status, error:% = told; "handler failed: {told}"));
    }
    error.into()
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
