//! The request that a handler gets. `request` is the request itself, in one of two forms; `body` limits and collects
//! its body, and `cookie` reads the header of cookies.

mod body;
mod cookie;
mod request;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tide::http::Method;
use tide::{Request, Response, StatusCode};

pub(crate) use self::body::{BodyLimits, BodyTooLarge};
pub(crate) use self::request::{ContextRequest, IntoTide, ReadRequest};
use crate::admission;
use crate::admission::{Admission, ClientAddr};
use crate::connection::WebSocket;
use crate::error::{Error, Result};
use crate::instance::Metrics;
use crate::options::UpgradeOptions;
use crate::proto::extension::is_token;
use crate::proto::handshake::{HandshakeError, HeaderLines, Opening, as_text, is_header_line};
use crate::proto::{CloseCode, CloseFrame, ProtocolError};
use crate::reject::{HandlerError, HandlerResult, Reject};
use crate::runtime::Spawned;
use crate::upgrade::{PendingUpgrade, Upgrade};

/// A request, and the way to answer it: by HTTP, or by becoming a [`WebSocket`].
///
/// ```no_run
/// use tidewire::{RequestContext, Server, WebSocketOptions};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::new();
/// server.get("/ws", |mut ctx: RequestContext| async move {
///     if ctx.header("x-api-key") != Some("secret") {
///         ctx.response().set_status(401);
///         return Ok(());
///     }
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     while let Some(message) = ws.recv().await? {
///         ws.send(message).await?;
///     }
///     Ok(())
/// });
/// server.listen_until("127.0.0.1:8080", tidewire::signals()).await
/// # }
/// ```
pub struct RequestContext<State = ()> {
    request: ContextRequest<State>,
    pending: Arc<PendingUpgrade>,
    response: Option<Box<Response>>,
}

impl<State: Clone + Send + Sync + 'static> RequestContext<State> {
    pub(crate) fn new(request: ContextRequest<State>, pending: Arc<PendingUpgrade>) -> Self {
        Self { request, pending, response: None }
    }

    /// Whether this is a valid opening handshake (RFC 6455 §4.2.1). Origin, subprotocols and extensions are not
    /// looked at: whether they will do depends on the options.
    #[must_use]
    pub fn is_websocket_upgrade(&self) -> bool {
        self.opening().validate().is_ok()
    }

    /// Answers 101 and returns the connection.
    ///
    /// The handler goes on in a task of its own, once the response is on its way. Bytes that the
    /// client sent along with the request are not lost. Where a
    /// [`ConnectionLimit`](crate::limits::ConnectionLimit) says so, the request waits for a permit first.
    ///
    /// The 101 has the headers of the [`response`](Self::response) that is prepared when this is called,
    /// cookies among them, and those of the [options](UpgradeOptions::header). Its status and its body
    /// are left out, and so are headers that are the handshake's own (`Connection`, `Upgrade`,
    /// `Sec-WebSocket-*`) or a body's.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`](crate::Error::Handshake) if the request is not a valid opening
    /// handshake (§4.2.1), comes from a page that may not connect (§10.2), finds no permit of a
    /// limit, was upgraded before, or ended before the 101 was sent. Passed on with `?`, the error
    /// *is* the answer to the request.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped before the 101 is on its way, nothing has happened, and a permit is free again;
    /// later, the next call returns the connection, and does not use its own options.
    pub async fn upgrade_to_websocket(
        &mut self,
        options: impl Into<UpgradeOptions>,
    ) -> Result<WebSocket> {
        let options = options.into();
        if let Some(prepared) = self.response.take() {
            self.pending.prepare(prepared);
        }
        let admission = self.admission(&options);
        let check = || Upgrade::answer(&self.opening(), &options);
        let ws = self.pending.upgrade(check, admission, &options).await?;
        self.request.settle();
        Ok(ws)
    }

    /// The wait for the permits of all limits; `None` if there are none.
    fn admission<'a>(
        &'a self,
        options: &'a UpgradeOptions,
    ) -> Option<BoxFuture<'a, Result<Admission, HandshakeError>>> {
        let of_the_server = self.request.server_limits().map_or(&[][..], |limits| &limits.0);
        let limits: Vec<_> = options.parts.limits.iter().chain(of_the_server).collect();
        (!limits.is_empty()).then(|| {
            admission::admit(
                limits,
                self.client_addr(),
                &options.parts.limit_key,
                &options.parts.websocket.parts.settings.clock,
            )
            .boxed()
        })
    }

    /// Refuses a WebSocket client so that a page can read why: upgrades, and closes at once.
    ///
    /// A browser shows a page neither status nor body of an opening handshake that failed; close
    /// code and reason it does show. Pages of any origin get them, in the first of the subprotocols
    /// that they offer, if they offer any. A request that is not an opening handshake is answered by HTTP:
    /// with the last three digits of a code from 4400 to 4599 as its status, else with 403.
    ///
    /// ```
    /// # use tidewire::{RequestContext, Server};
    /// # let mut server = Server::new();
    /// server.get("/ws", |mut ctx: RequestContext| async move {
    ///     ctx.reject_websocket(4401, "token expired").await
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// The answer to a request that is not an opening handshake, to be passed on.
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (RFC 6455 §7.4)
    /// or `reason` exceeds 123 bytes.
    ///
    /// # Cancel safety
    ///
    /// As [`upgrade_to_websocket`](Self::upgrade_to_websocket).
    pub async fn reject_websocket(
        &mut self,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> HandlerResult {
        let code = code.try_into().map_err(|error| Error::InvalidClose(error.into()))?;
        CloseFrame::new(code, reason).map_err(Error::InvalidClose)?;
        if !self.is_websocket_upgrade() {
            return Err(Reject::close(code, reason.to_owned()).into());
        }
        let mut options = UpgradeOptions::default().allow_any_origin().without_limit_key();
        // A browser fails a handshake that agrees to none of the subprotocols that a page has offered.
        if let Some(first) = self.offered_subprotocols().first() {
            options = options.subprotocol(*first);
        }
        let mut ws = self.upgrade_to_websocket(options).await?;
        ws.close(code, reason).await?;
        Ok(())
    }

    /// The subprotocols the client offers, in its order of preference (§4.1, `Sec-WebSocket-Protocol`
    /// over all its lines).
    ///
    /// An element that is not a token is left out; a request that offers one is refused with 400 when it is
    /// upgraded.
    #[must_use]
    pub fn offered_subprotocols(&self) -> Vec<&str> {
        self.list("sec-websocket-protocol").filter(|name| is_token(name)).collect()
    }

    /// The first line of a header, in upper or lower case; `None` if there is none, or if it is not UTF-8.
    ///
    /// A value is never altered. One that is not ASCII, which tide's
    /// [`request`](Self::request) cannot hold and leaves out, is found here all the same;
    /// [`header_bytes`](Self::header_bytes) has those that are not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header_bytes(name)?).ok()
    }

    /// The first line of a header, byte for byte.
    #[must_use]
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.request.values(name).next()
    }

    /// The first cookie of this name that the client sends (RFC 6265 §5.4), as it was sent: quotes and encodings are
    /// part of the value. Names differ in upper and lower case.
    ///
    /// `None` if there is none, or if its value is not UTF-8. A client with two cookies of one name, for two paths, sends
    /// that of the longer path first.
    ///
    /// Anyone can send any cookie. One that names a user must be signed, or a secret that the server looks up.
    ///
    /// ```
    /// # use tidewire::{RequestContext, Server};
    /// # let mut server = Server::new();
    /// server.get("/theme", |ctx: RequestContext| async move {
    ///     Ok(ctx.cookie("theme").unwrap_or("light").to_owned())
    /// });
    /// ```
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let value = self.request.values("cookie").find_map(|line| cookie::find(line, name))?;
        std::str::from_utf8(value).ok()
    }

    /// The method of the request.
    #[must_use]
    pub fn method(&self) -> Method {
        self.request.method()
    }

    /// The path of the URL, percent-encoded, with its dot segments resolved, and without the query. In a
    /// [nested](crate::Server::nest) server it is the rest of the path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// A parameter of the route's path, percent-decoded and parsed: a number, a `String`, any type with [`FromStr`].
    ///
    /// Decoded text may hold any character, also `/` and NUL, and may be `..`. Do not make the path of a file of it.
    ///
    /// ```
    /// # use tidewire::{RequestContext, Server};
    /// # let mut server = Server::new();
    /// server.get("/lots/:id/bids/:bidder", |ctx: RequestContext| async move {
    ///     let lot: u64 = ctx.param("id")?;
    ///     let bidder: String = ctx.param("bidder")?;
    ///     Ok(format!("lot {lot}, {bidder}\n"))
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// A 400 that names the parameter, if a `%` is not followed by two hexadecimal digits, if the decoded bytes are not
    /// UTF-8, or if the text cannot be parsed. A 500 if the route has no parameter of this name:
    /// [`param_raw`](Self::param_raw) is for handlers of several routes.
    pub fn param<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> HandlerResult<T> {
        let Some(raw) = self.param_raw(name) else {
            let text = format!("the route has no parameter {name:?}");
            return Err(HandlerError::boxed(text.into()));
        };
        let bad = |reason: &dyn fmt::Display| {
            let text = format!("the parameter {name:?} of the path: {reason}");
            HandlerError::from(Reject::status(400, text).named("param_invalid"))
        };
        if !is_percent_encoded(raw) {
            return Err(bad(&"a % that is not followed by two hexadecimal digits"));
        }
        let text = percent_decode_str(raw).decode_utf8().map_err(|error| bad(&error))?;
        text.parse().map_err(|error| bad(&error))
    }

    /// A parameter of the route's path, as it was sent, percent-encoding included; `None` if the route has none of this
    /// name.
    #[must_use]
    pub fn param_raw(&self, name: &str) -> Option<&str> {
        self.request.param(name)
    }

    /// The query of the URL, decoded into a type of the caller.
    ///
    /// # Errors
    ///
    /// A 400 if it does not fit.
    pub fn query<T: DeserializeOwned>(&self) -> HandlerResult<T> {
        let query = self.request.tide().query();
        query.map_err(|error| HandlerError::of_tide(error, "query_invalid"))
    }

    /// The state that the handlers of the server share.
    #[must_use]
    pub fn state(&self) -> &State {
        self.request.state()
    }

    /// The address of the peer; `None` on a Unix socket, and unless the request came through our
    /// own [`Server`](crate::Server).
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.request.peer()
    }

    /// Whether the request came through TLS to this server. It does not tell about a proxy in front of it.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.request.security().is_some()
    }

    /// The certificates that the client has shown and proved, in DER, its own first.
    ///
    /// There are none unless the server asks for them, by `TlsConfig::client_certificates`, and the client
    /// has some.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let security = self.request.security();
        let shown = security.map(|security| security.peer_certificates.as_slice());
        shown.unwrap_or_default().iter().map(Vec::as_slice)
    }

    /// Whether the server shuts down. `false` in an app that listens through tide itself.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.pending.instance().is_some_and(|instance| instance.is_shutting_down())
    }

    /// Waits until the server begins to shut down, for responses that have no end. In an app that listens
    /// through tide itself it never returns.
    ///
    /// A WebSocket connection need not be watched for it: it is closed, and
    /// [`recv`](WebSocket::recv) returns `Ok(None)`.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn shutting_down(&self) {
        match self.pending.instance() {
            Some(instance) => instance.shutting_down().await,
            None => std::future::pending().await,
        }
    }

    /// Runs a task beside the handler, on the worker of the connection. It ends with the request at the latest: when the
    /// response is sent, or, if the request is [upgraded](Self::upgrade_to_websocket), when the stream of the WebSocket
    /// connection is closed. It is dropped where it waits.
    ///
    /// A panic ends the task alone, and is logged. In an app that listens through tide itself, and on a server without
    /// [workers](crate::server::ServerOptions::workers), it runs on the executor of
    /// [`set_spawner`](crate::executor::set_spawner).
    ///
    /// ```
    /// use futures::channel::mpsc;
    /// use futures::{SinkExt, TryStreamExt};
    /// use tidewire::{RequestContext, Server};
    ///
    /// let mut server = Server::new();
    /// // A response that is made while it is sent.
    /// server.get("/report", |ctx: RequestContext| async move {
    ///     let (mut lines, body) = mpsc::channel::<std::io::Result<String>>(10);
    ///     ctx.spawn(async move {
    ///         for number in 1..=1000 {
    ///             lines.send(Ok(format!("line {number}\n"))).await?;
    ///         }
    ///         Ok::<_, mpsc::SendError>(())
    ///     });
    ///     Ok(tide::Body::from_reader(body.into_async_read(), None))
    /// });
    /// ```
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Spawned<T> {
        PendingUpgrade::spawn(&self.pending, future)
    }

    /// Counters of the server and of what is open now; `None` in an app that listens through tide itself.
    #[must_use]
    pub fn metrics(&self) -> Option<Metrics> {
        self.pending.instance().map(|instance| instance.metrics())
    }

    /// The address of the client: that of the peer, or, where that is one of the
    /// [`trusted_proxies`](crate::server::ServerOptions::trusted_proxies), the one that the proxies tell.
    ///
    /// An IPv4 address that was written as IPv6 is given as IPv4. `None` if it is not known: behind a
    /// Unix socket; if the proxies' headers have no address, or are malformed or contradictory; or unless
    /// the request came through our own [`Server`](crate::Server). It is never the address of a proxy that
    /// has told something else.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        match self.client_addr() {
            ClientAddr::Known(address) => Some(address),
            ClientAddr::Unknown | ClientAddr::Disputed => None,
        }
    }

    fn client_addr(&self) -> ClientAddr {
        let told = self.request.told().and_then(|told| told.addr);
        let peer = || self.peer_addr().map(|addr| ClientAddr::Known(addr.ip().to_canonical()));
        told.or_else(peer).unwrap_or(ClientAddr::Unknown)
    }

    /// tide's view of the request: method, URL, extensions and the rest.
    ///
    /// A request that came to the handler without middleware of tide is made into one of tide by the first call, which
    /// takes a few microseconds.
    ///
    /// Its `cookie` is behind tide's own feature `cookies`, which a dependency on tide 0.16 beside the
    /// one on this crate can turn on.
    #[must_use]
    pub fn request(&self) -> &Request<State> {
        self.request.tide()
    }

    /// tide's view of the request, to take its body or to set extensions.
    #[must_use]
    pub fn request_mut(&mut self) -> &mut Request<State> {
        self.request.tide_mut()
    }

    /// Sets a header of the response to prepare, in place of any of that name.
    ///
    /// Use it for a value that comes from a peer in part: the target of a redirect, the name of a
    /// file. `insert_header`, `append_header` and `Redirect` of tide panic over one that is not ASCII, which
    /// is a 500; and one with a line break would be two headers, so the response is replaced by a 500.
    ///
    /// ```
    /// # use tidewire::{RequestContext, Server};
    /// # let mut server = Server::new();
    /// server.get("/to/*path", |mut ctx: RequestContext| async move {
    ///     // As it was sent, percent-encoding included.
    ///     let target = format!("/{}", ctx.param_raw("path").unwrap_or_default());
    ///     ctx.set_response_header("location", &target)?;
    ///     Ok(tide::StatusCode::Found)
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// A 500 if HTTP does not allow the name, or the value is not visible ASCII, space and tab
    /// (RFC 9110 §5.5). The response is as it was.
    pub fn set_response_header(&mut self, name: &str, value: &str) -> HandlerResult {
        if !is_header_line(name, value) {
            // Without the value, which may be a cookie.
            let text = format!("HTTP does not allow this header: {name:?}");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text).into());
        }
        self.response().insert_header(name, value);
        Ok(())
    }

    /// The response to prepare, for a handler that returns `Ok(())` or a body: 200 at first. Its headers
    /// are those of the 101 as well, if the handler [upgrades](Self::upgrade_to_websocket).
    ///
    /// Its `insert_header` panics over a value that is not ASCII. For a value that comes from a peer in part there
    /// is [`set_response_header`](Self::set_response_header).
    #[must_use]
    pub fn response(&mut self) -> &mut Response {
        let pending = &self.pending;
        self.response.get_or_insert_with(|| {
            let prepared = pending.take_prepared();
            Box::new(prepared.unwrap_or_else(|| Response::new(StatusCode::Ok)))
        })
    }

    fn opening(&self) -> Opening<'_, Self> {
        let is_get = match self.request.method() {
            Method::Get => true,
            // Without `Upgrade` it is answered like a GET (RFC 9110 §9.3.2).
            Method::Head => self.header_bytes("upgrade").is_none(),
            _ => false,
        };
        Opening {
            is_get,
            is_http_1_1: self.request.is_http_1_1(),
            is_secure: self.is_secure() || self.request.told().is_some_and(|told| told.is_secure),
            headers: self,
        }
    }
}

/// Whether each `%` is followed by two hexadecimal digits (RFC 3986 §2.1).
fn is_percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    })
}

impl<State: Clone + Send + Sync + 'static> HeaderLines for RequestContext<State> {
    fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        self.request.values(name).map(as_text)
    }
}

impl<State> Drop for RequestContext<State> {
    fn drop(&mut self) {
        if let Some(response) = self.response.take() {
            self.pending.prepare(response);
        }
    }
}

impl<State> fmt::Debug for RequestContext<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("method", &self.request.method())
            .field("path", &self.request.path())
            .finish_non_exhaustive()
    }
}

/// The client of a request, as trusted proxies tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Told {
    /// `None` if they do not tell it.
    pub(crate) addr: Option<ClientAddr>,
    /// Whether the client speaks TLS to one of them.
    pub(crate) is_secure: bool,
}

/// The header lines of a request whose values `http_types` cannot hold: those that are not ASCII.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawHeaders(Vec<(http::HeaderName, Vec<u8>)>);

impl RawHeaders {
    pub(crate) fn push(&mut self, name: http::HeaderName, value: Vec<u8>) {
        self.0.push((name, value));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of a header that are not ASCII, byte for byte as they were received.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let same = move |line: &&(http::HeaderName, _)| line.0.as_str().eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, value)| value.as_slice())
    }
}
