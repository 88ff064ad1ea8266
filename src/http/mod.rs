//! HTTP/1.1: one connection, from its first byte to its last, or to the upgrade.
//!
//! hyper reads and writes the bytes ([RFC 9112]), and routes lead to handlers. [`HttpServer::serve`] drives a connection
//! between the two, and does three things that neither does: it answers where hyper would just close, hands the stream
//! over after a 101, and closes so that the peer can still read our last answer.
//! `server/` accepts the connections; `upgrade/` goes on with an upgraded stream.
//!
//! # The two ways of a request
//!
//! A request goes **straight to its handler** if nothing of tide can tell the difference: no middleware runs around the
//! server or the route, the endpoint is a handler of this crate, the route has the method of the request, and the
//! request is plain. `handlers` finds the handler by tide's own rules, and `convert::is_plain` says what is plain: it is
//! one of HTTP/1.1 with a path as target, no rule refuses it, and a URL parser would change neither its host nor its
//! path. The context holds the request as hyper read it, and makes one of tide only if the handler asks for that. An answer
//! that is a text, bytes or nothing, and a 101, do not become a response of tide either.
//!
//! All other requests go **through tide**: those with middleware, of nested servers, for tide's endpoints, for `HEAD`, for
//! routes of all methods, and all that are refused or find no route. So each refusal is written once. In case of doubt,
//! a request goes this way.
//!
//! Both ways come from `answer` and return to it: limits, metrics, the end of the connection and the state of the
//! exchange are the same, and so are the records of an answer that is an error: what refuses a request, or fails over it,
//! notes the reason in its [`Origin`](crate::upgrade::Origin), and `answer` writes the record with the status that goes out.
//!
//! | file | holds |
//! | --- | --- |
//! | `socket`, `pieces` | the stream for hyper, with its deadlines, cut at the ends of heads |
//! | `exchange` | the progress between a request and its response |
//! | `app`, `handlers` | the routes: those of tide, and the handlers that need no tide |
//! | `convert`, `body` | requests for tide and for handlers, responses for hyper |
//! | `refusal` | the answers to requests that no handler gets |
//! | `access` | the access log |
//! | `hosts`, `proxies`, `forwarded` | the hosts that are answered for, and the proxies that are believed |
//!
//! [RFC 9112]: https://www.rfc-editor.org/rfc/rfc9112

mod access;
mod app;
mod body;
mod convert;
mod exchange;
mod forwarded;
mod handlers;
mod hosts;
mod options;
mod pieces;
mod proxies;
mod refusal;
mod socket;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use ::http::header::{CONNECTION, UPGRADE};
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::io::AsyncWriteExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};

use self::access::Access;
pub(crate) use self::app::App;
use self::body::ResponseBody;
#[cfg(feature = "testing")]
pub(crate) use self::body::io_error;
use self::exchange::{Answering, HttpProgress, Receipt};
use self::handlers::Found;
pub(crate) use self::handlers::Tables;
pub use self::options::ServerOptions;
pub(crate) use self::proxies::TrustedProxies;
pub(crate) use self::refusal::Refusal;
use self::socket::{Never, Socket};
use crate::admission::{ConnectionLimit, ServerLimits};
use crate::causes::WithCauses;
use crate::context::{BodyTooLarge, ContextRequest, IntoTide, ReadRequest};
use crate::escaped::Escaped;
use crate::foreign::{Contained, PanicText, discard};
use crate::handler::Answer;
use crate::instance::{Instance, Lease, OpenHttp};
use crate::records::record;
use crate::reject::{Reason, Refused, tell_answer};
use crate::runtime::{Clock, yield_now};
use crate::stream::Stream;
use crate::upgrade::{Early, OnUpgrade, Origin, Transport, Upgraded, kept_path};

/// Bytes of a head that hyper may buffer beyond our own limit.
///
/// hyper has one limit and one answer (431). With some room above our limit, a head is read to its end, and
/// our answer can name the part that is too long.
const HEAD_SLACK: usize = 16 * 1024;

/// The smallest buffer that hyper accepts.
const MIN_BUFFER: usize = 8 * 1024;

/// Longest wait for the peer's FIN after ours.
const LINGER: Duration = Duration::from_secs(2);

/// The addresses of both ends of a connection. A Unix socket has neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addrs {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl fmt::Display for Addrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => peer.fmt(f),
            None => f.write_str("this machine"),
        }
    }
}

/// The routes and limits that all connections of a server share.
pub(crate) struct HttpServer<State> {
    app: App<State>,
    options: ServerOptions,
    builder: http1::Builder,
    instance: Arc<Instance>,
    /// The limits on WebSocket connections.
    limits: Option<ServerLimits>,
}

impl<State: Clone + Send + Sync + 'static> HttpServer<State> {
    /// Serves `app` within the limits of `options`, as part of `instance`.
    pub(crate) fn new(app: App<State>, options: ServerOptions, instance: Arc<Instance>) -> Self {
        let builder = builder(&options);
        Self { app, options, builder, instance, limits: None }
    }

    /// Counts all WebSocket connections towards `limits`.
    pub(crate) fn limited(self, limits: Vec<ConnectionLimit>) -> Self {
        let limits = (!limits.is_empty()).then(|| ServerLimits(limits.into()));
        Self { limits, ..self }
    }

    /// Serves one connection until it ends or is upgraded.
    ///
    /// It runs in a task whose executor a panic might end. So it contains the panics of loggers, and of errors
    /// of the application that are dropped with the connection.
    pub(crate) async fn serve(self: Arc<Self>, stream: Stream, addrs: Addrs) {
        let serving = AssertUnwindSafe(self.serve_or_panic(stream, addrs)).catch_unwind();
        serving.await.unwrap_or_else(discard);
    }

    async fn serve_or_panic(self: Arc<Self>, stream: Stream, addrs: Addrs) {
        let open = OpenHttp::begin(Arc::clone(&self.instance));
        let Addrs { peer, local } = addrs;
        let security = stream.security().map(Arc::new);
        let origin = Origin::new((peer, local), security, self.limits.clone());
        let exchange = Arc::new(HttpProgress::new(origin));
        let socket = Socket::new(stream, Arc::clone(&exchange), self.lease(), &self.options);
        let service = service_fn(|request| {
            // Begun here, since hyper reads on, maybe to the end of the stream, before it polls the answer.
            let answering = exchange.begin(&request);
            let answer = Arc::clone(&self).answer(request, Arc::clone(&exchange), answering);
            // Boxed, so that a connection between requests holds no memory for a handler.
            Contained::new(Box::pin(answer))
        });
        let mut connection = self.builder.serve_connection(socket, service);
        let outcome = drive(&mut connection, &exchange, &self.instance).await;
        let parts = connection.into_parts();
        let mut socket = parts.io;
        match (outcome, exchange.take_granted()) {
            (Ok(()), Some(upgrade)) => {
                // Copied, because the bytes are slices of whole read buffers, and would keep these alive.
                let read_ahead = [parts.read_buf, socket.take_held()].concat().into();
                let stream = socket.into_stream();
                // From here on it is counted as a WebSocket.
                drop(open);
                // If the handler does not wait for the stream any more, this closes it.
                drop(upgrade.send(Upgraded { stream, read_ahead }));
            }
            // Another connection needs the place, and this one has no request under way: no goodbye.
            _ if socket.makes_room() => {}
            // The client has ended its side. Over TLS it also waits for our close_notify.
            (Ok(()), None) if socket.has_ended() && !exchange.is_secure() => {}
            (Ok(()), None) => close(socket.into_stream(), None, &self.instance.clock).await,
            (Err(error), granted) => {
                let last = unanswered(&error, &parts.read_buf, &exchange);
                record!(
                    debug,
                    "connection failed",
                    peer = peer,
                    connection = exchange.origin().id,
                    reason = last.as_ref().map(Refusal::name),
                    error = Escaped(WithCauses(&error))
                );
                // Dropped first: a handler that waits for the stream need not wait for the goodbye.
                drop(granted);
                close(socket.into_stream(), last, &self.instance.clock).await;
            }
        }
    }

    /// The clock for the deadlines of the server.
    #[cfg(feature = "tls")]
    pub(crate) fn clock(&self) -> &Clock {
        &self.instance.clock
    }

    /// Registers a connection that makes room for another when it is idle.
    pub(crate) fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.instance))
    }

    /// Waits until the server shuts down.
    #[cfg(feature = "tls")]
    pub(crate) fn shutting_down(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.instance.shutting_down()
    }

    async fn answer(
        self: Arc<Self>,
        request: ::http::Request<Incoming>,
        exchange: Arc<HttpProgress>,
        mut answering: Answering,
    ) -> Result<::http::Response<ResponseBody>, Infallible> {
        exchange.set_begun();
        answering.access = self
            .instance
            .sockets
            .has_access_log()
            .then(|| Box::new(Access::begin(&self.instance.clock)));
        let to_head = request.method() == ::http::Method::HEAD;
        let is_http_1_0 = request.version() == ::http::Version::HTTP_10;
        let response = if answering.has_fragment {
            Err(Refusal::TargetInvalid)
        } else {
            self.route(request, &exchange, answering.path()).await
        };
        let mut response = response.unwrap_or_else(|refusal| {
            let origin = exchange.origin();
            match refusal {
                // Noted with the text of the panic.
                Refusal::HandlerPanicked => {}
                _ => origin.note(refusal.reason()),
            }
            refusal.response(to_head)
        });
        let is_last = match exchange.receipt() {
            // The shutdown may have begun during this poll. hyper does not know of it yet.
            Receipt::Complete => self.instance.is_shutting_down(),
            Receipt::Underway | Receipt::Doubtful | Receipt::TooLarge(_) => true,
            Receipt::Abandoned => {
                // hyper looks at the rest of the body before it polls for the response again. If it cannot
                // skip that rest, it adds `Connection: close` to the response.
                yield_now().await;
                self.instance.is_shutting_down()
            }
        };
        // Some proxies start a tunnel after any answer to an upgrade. So a refusal ends the connection, and no
        // frame of such a client can be taken for a request.
        if (is_last || answering.is_opening) && !response.status().is_informational() {
            say_close(response.headers_mut());
        }
        let is_endless = response.body().size_hint().exact().is_none();
        if is_http_1_0 && (is_endless || response.headers().contains_key(CONNECTION)) {
            // Otherwise hyper would send `keep-alive` and then close (RFC 9112 §9.3).
            *response.version_mut() = ::http::Version::HTTP_10;
        }
        let status = response.status().as_u16();
        self.instance.counters.count_response(status);
        if let Some(access) = &mut answering.access {
            access.set_status(status);
        }
        let reason = exchange.origin().take_reason();
        if status >= 400 {
            tell_answer(answering.subject(), status, of_client(reason, &exchange));
        }
        Ok(response.map(|body| body.until_sent(answering)))
    }

    async fn route(
        self: &Arc<Self>,
        request: ::http::Request<Incoming>,
        exchange: &Arc<HttpProgress>,
        path: Option<&str>,
    ) -> Result<::http::Response<ResponseBody>, Refusal> {
        #[cfg(feature = "testing")]
        let named = self.named(&request);
        let respond = async {
            match self.find(&request) {
                Some(found) => self.call(found, request, exchange, path).await,
                // Boxed, since it is several times as large.
                None => Box::pin(self.respond(request, exchange, path)).await,
            }
        };
        AssertUnwindSafe(respond).catch_unwind().await.unwrap_or_else(|payload| {
            #[cfg(feature = "testing")]
            self.instance.failures.note_panic(&named, &*payload);
            exchange.origin().note(Reason::Panicked(PanicText::of(payload)));
            Err(Refusal::HandlerPanicked)
        })
    }

    /// The request, for the test that is told of a panic.
    #[cfg(feature = "testing")]
    fn named(&self, request: &::http::Request<Incoming>) -> String {
        if !self.instance.failures.is_watched() {
            return String::new();
        }
        format!("{} {}", request.method(), request.uri().path())
    }

    /// The handler for a request that need not go through tide.
    fn find(&self, request: &::http::Request<Incoming>) -> Option<Found<State>> {
        let found = self.app.handlers()?.find(request.method(), request.uri().path())?;
        convert::is_plain(request, &self.options).then_some(found)
    }

    /// The short way: the answer of a handler.
    async fn call(
        self: &Arc<Self>,
        Found { handler, method, params }: Found<State>,
        request: ::http::Request<Incoming>,
        exchange: &Arc<HttpProgress>,
        path: Option<&str>,
    ) -> Result<::http::Response<ResponseBody>, Refusal> {
        let (upgrade, stream) = may_upgrade(&request).then(oneshot::channel).unzip();
        let transport = Transport::HttpServer(
            stream.map(|stream| OnUpgrade { stream, path: kept_path(path.unwrap_or_default()) }),
            Arc::clone(exchange.origin()),
            Arc::clone(&self.instance),
            upgrade.is_some().then(|| Arc::clone(exchange.early())),
        );
        let found = (method, params, self.app.state().clone());
        let tide = Arc::clone(self) as Arc<dyn IntoTide<State>>;
        let request = convert::read(request, &self.options, exchange, found, tide);
        let answer = handler.answer(ContextRequest::of_read(request), transport).await;
        let mut response: tide::http::Response = match answer {
            Answer::Empty => return Ok(convert::plain_response(None, Bytes::new())),
            Answer::Text(text) => {
                let body = match text {
                    Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                    Cow::Owned(text) => text.into(),
                };
                return Ok(convert::plain_response(Some("text/plain;charset=utf-8"), body));
            }
            Answer::Bytes(bytes) => {
                return Ok(convert::plain_response(Some("application/octet-stream"), bytes));
            }
            Answer::Switching(fields) => return convert::switching(fields, upgrade, exchange),
            answer @ Answer::Response(_) => tide::Response::from(answer).into(),
        };
        if response.status() == tide::StatusCode::MethodNotAllowed {
            self.app.routes().complete(&mut response, method, path);
        }
        finish(response, false, upgrade, exchange)
    }

    /// The long way: the answer of tide.
    async fn respond(
        &self,
        request: ::http::Request<Incoming>,
        exchange: &Arc<HttpProgress>,
        path: Option<&str>,
    ) -> Result<::http::Response<ResponseBody>, Refusal> {
        let to_head = request.method() == ::http::Method::HEAD;
        let is_asterisk = request.uri().path() == "*";
        let may_upgrade = may_upgrade(&request);
        let mut request = convert::request(request, &self.options, exchange)?;
        request.ext_mut().insert(Arc::clone(&self.instance));
        let path = path.unwrap_or_default();
        let upgrade = may_upgrade.then(|| offer_upgrade(&mut request, exchange.early(), path));
        if let (Some(limits), Some(_)) = (&self.limits, &upgrade) {
            request.ext_mut().insert(limits.clone());
        }
        let response = self.app.respond(request, is_asterisk).await;
        finish(response, to_head, upgrade, exchange)
    }
}

impl<State: Clone + Send + Sync + 'static> IntoTide<State> for HttpServer<State> {
    fn convert(&self, read: &ReadRequest<State>) -> tide::Request<State> {
        let request = convert::read_request(read, &self.options, &self.instance);
        let handlers = self.app.handlers();
        let request = handlers.and_then(|handlers| handlers.convert(request));
        request.unwrap_or_else(|| unreachable!("the request has come by this route"))
    }
}

impl<State> fmt::Debug for HttpServer<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("options", &self.options).finish_non_exhaustive()
    }
}

fn finish(
    mut response: tide::http::Response,
    to_head: bool,
    upgrade: Option<oneshot::Sender<Upgraded>>,
    exchange: &HttpProgress,
) -> Result<::http::Response<ResponseBody>, Refusal> {
    if let Receipt::TooLarge(max) = exchange.receipt() {
        name_excess(&mut response, max);
    }
    convert::response(response, to_head, upgrade, exchange)
}

fn builder(options: &ServerOptions) -> http1::Builder {
    let buffer = options.max_head_size.saturating_add(HEAD_SLACK).max(MIN_BUFFER);
    let mut builder = http1::Builder::new();
    builder.max_header_size(buffer).max_buf_size(buffer);
    // `Socket` keeps the deadlines: hyper has one for both the idle time and the head.
    builder.timer(Never).header_read_timeout(Duration::from_secs(1));
    if options.max_headers != ServerOptions::default().max_headers {
        // Only if needed: any value moves hyper's header table from the stack to the heap.
        builder.max_headers(options.max_headers);
    }
    builder
}

/// Announces that the connection ends with this response (RFC 9112 §9.6).
fn say_close(headers: &mut HeaderMap) {
    let close = HeaderValue::from_static("close");
    if !headers.get_all(CONNECTION).iter().any(|option| option == close) {
        // Fails if the map is full. No client would read so many headers.
        let _ = headers.try_append(CONNECTION, close);
    }
}

fn may_upgrade(request: &::http::Request<Incoming>) -> bool {
    // A HEAD may be routed to the handler of GET.
    request.version() == ::http::Version::HTTP_11
        && request.method() != ::http::Method::HEAD
        && request.headers().contains_key(UPGRADE)
        && request.body().is_end_stream()
}

/// The reason for an answer that is an error. A handler that fails over a body that the client has not sent has not
/// failed by itself.
fn of_client(reason: Option<Reason>, exchange: &HttpProgress) -> Option<Reason> {
    match reason {
        Some(Reason::Failed(_)) | None if exchange.has_body_failed() => {
            Some(Reason::Refused(Refused::named("body_failed")))
        }
        reason => reason,
    }
}

/// Turns the response that tide makes of a read error into a 413, if the body was too large (RFC 9110
/// §15.5.14).
fn name_excess(response: &mut tide::http::Response, max: usize) {
    use tide::StatusCode::{InternalServerError, PayloadTooLarge, UnprocessableEntity};

    if matches!(response.status(), UnprocessableEntity | InternalServerError) {
        response.set_status(PayloadTooLarge);
        response.set_body(format!("{}\n", BodyTooLarge { max }));
    }
}

fn offer_upgrade(
    request: &mut tide::http::Request,
    early: &Arc<Early>,
    path: &str,
) -> oneshot::Sender<Upgraded> {
    let (sender, stream) = oneshot::channel();
    request.ext_mut().insert(OnUpgrade { stream, path: kept_path(path) });
    request.ext_mut().insert(Arc::clone(early));
    sender
}

/// Runs a connection until hyper is done with it and all bytes are written. When the server shuts down, the
/// response under way is the last one.
async fn drive<S>(
    connection: &mut http1::Connection<Socket, S>,
    exchange: &HttpProgress,
    instance: &Instance,
) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = ResponseBody, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    let mut outcome = None;
    let mut shutting_down = instance.shutting_down().fuse();
    let mut waker = Waker::noop().clone();
    poll_fn(|cx| {
        // All connections wait for it in one table, so it is asked only by a task that it does not know.
        if instance.is_shutting_down() || !waker.will_wake(cx.waker()) {
            waker.clone_from(cx.waker());
            if shutting_down.poll_unpin(cx).is_ready() {
                exchange.set_leaving();
                Pin::new(&mut *connection).graceful_shutdown();
            }
        }
        let result = ready!(connection.poll_without_shutdown(cx));
        // hyper may report that it is done while its last bytes, such as the 4xx to a malformed request,
        // still wait for the socket. If it is polled again, it goes on writing.
        let writing = result.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
        outcome.get_or_insert(result);
        if writing && exchange.is_stalled() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outcome.unwrap_or(Ok(()))
}

/// The answer that hyper did not send when it ended a connection.
fn unanswered(error: &hyper::Error, read: &[u8], exchange: &HttpProgress) -> Option<Refusal> {
    let mid_head = !read.is_empty() && !exchange.is_answering();
    match error {
        _ if !mid_head => None,
        error if error.is_parse_version_h2() => Some(Refusal::Http2),
        error if error.is_incomplete_message() => Some(Refusal::HeadIncomplete),
        _ => exchange.is_overdue().then_some(Refusal::HeadTimeout),
    }
}

/// Ends our direction after a last answer, and waits for the peer to end its own.
///
/// That takes 2 s at most, even if the peer goes on sending.
pub(crate) async fn close(mut stream: Stream, last: Option<Refusal>, clock: &Clock) {
    let goodbye = async {
        if let Some(refusal) = last {
            stream.write_all(&refusal.encode()).await?;
        }
        stream.close().await?;
        stream.drain().await
    };
    // An error or a timeout changes nothing: the connection is over.
    let _ = clock.timeout(Some(LINGER), goodbye).await;
}

#[cfg(test)]
mod tests;
