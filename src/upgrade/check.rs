//! The server's answer to an opening handshake, whichever HTTP library has read the request
//! ([RFC 6455 §4.2]).
//!
//! `Server`, `endpoint` and `accept` each make an [`Opening`] of their request and render the same fields of the
//! same [`Upgrade`].
//!
//! [RFC 6455 §4.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use crate::connection::{ConnectionTask, Deflation, Handling, Opened, Shared, WebSocket};
use crate::options::{Settings, UpgradeOptions};
use crate::proto::handshake::{HandshakeError, HeaderLines, Opening, is_header_line, is_reserved};
use crate::proto::{DeflateParameters, Role};
use crate::stream::Stream;

/// An opening handshake that keeps all rules, for an HTTP library of the caller: the answer to the request,
/// and the connection once that answer is written.
///
/// [`check`](Self::check) needs method and headers of the request. The caller sends
/// [`response`](Self::response), takes the stream below from its HTTP library, and gives it to
/// [`run`](Self::run) or [`open`](Self::open). Dropped, it has done nothing.
///
/// Here on hyper, with smol:
///
#[cfg_attr(all(feature = "server", feature = "client"), doc = "```")]
#[cfg_attr(not(all(feature = "server", feature = "client")), doc = "```ignore")]
/// use std::convert::Infallible;
///
/// use http::{Request, Response};
/// use hyper::body::Incoming;
/// use hyper::server::conn::http1;
/// use hyper::service::service_fn;
/// use smol::net::{TcpListener, TcpStream};
/// use smol_hyper::rt::FuturesIo;
/// use tidewire::upgrade::{Upgrade, UpgradeOptions};
/// use tidewire::{Error, WebSocket, WebSocketOptions};
///
/// async fn echo(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     let options = WebSocketOptions::default().subprotocols(["chat.v2"]);
///     let options = UpgradeOptions::from(options);
///     let checked = Upgrade::check_version(request.version())
///         .and_then(|()| Upgrade::check(request.method(), request.headers(), &options));
///     let upgrade = match checked {
///         Ok(upgrade) => upgrade,
///         Err(error) => return Ok(error.response()),
///     };
///     let response = upgrade.response().map(|()| String::new());
///     smol::spawn(async move {
///         // hyper has it once the response is written.
///         let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
///         let Ok(parts) = upgraded.downcast::<FuturesIo<TcpStream>>() else { return };
///         let handler = |mut ws: WebSocket| async move {
///             while let Some(message) = ws.recv().await? {
///                 ws.send(message).await?;
///             }
///             Ok::<_, Error>(())
///         };
///         upgrade.unread(parts.read_buf).run(parts.io.into_inner(), handler).await;
///     })
///     .detach();
///     Ok(response)
/// }
///
/// # smol::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// smol::spawn(async move {
///     while let Ok((stream, _)) = listener.accept().await {
///         let serving = http1::Builder::new()
///             .serve_connection(FuturesIo::new(stream), service_fn(echo))
///             .with_upgrades();
///         smol::spawn(serving).detach();
///     }
/// })
/// .detach();
///
/// let mut ws = tidewire::connect(&format!("ws://{addr}/")).await?;
/// ws.send("Hello").await?;
/// assert_eq!(ws.recv().await?, Some("Hello".into()));
/// # ws.close(1000, "").await?;
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[must_use = "the client waits for the response and the connection"]
pub struct Upgrade {
    /// Those of the 101.
    fields: Vec<Field>,
    subprotocol: Option<Box<str>>,
    deflate: Option<DeflateParameters>,
    /// Holds its part of a [`DeflateBudget`](crate::deflate::DeflateBudget).
    deflation: Option<Arc<Deflation>>,
    peer_addr: Option<SocketAddr>,
    client_ip: Option<IpAddr>,
    /// For log records.
    path: Option<Box<str>>,
    unread: Bytes,
    settings: Settings,
}

/// Name and value of a header line, valid as HTTP and ASCII.
pub(crate) type Field = (Cow<'static, str>, Cow<'static, str>);

impl Upgrade {
    /// Checks a request against the rules of an opening handshake (RFC 6455 §4.2.1): method, `Host` (RFC 9110
    /// §7.2, RFC 9112 §3.2), version, key, no body; the page that it comes from against the
    /// [options](UpgradeOptions::allow_origins) (§10.2). Agrees on a subprotocol and on
    /// permessage-deflate, as the options say.
    ///
    /// The limits of the options are taken by [`Connections::admit`](super::Connections::admit). The handshake timeout is
    /// not used: the caller writes the answer.
    ///
    /// The request counts as one of HTTP/1.1 over a connection of which it is not known whether the client
    /// speaks TLS: see [`check_version`](Self::check_version) and [`check_over_tls`](Self::check_over_tls).
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] says which rule is broken; its [`response`](HandshakeError::response) is the answer
    /// to the request. [`HandshakeError::InvalidHeader`] if HTTP does not allow a
    /// [header](UpgradeOptions::header) of the options.
    pub fn check(
        method: &Method,
        headers: &HeaderMap,
        options: &UpgradeOptions,
    ) -> Result<Self, HandshakeError> {
        let is_get = *method == Method::GET;
        Self::answer(&Opening { is_get, is_http_1_1: true, is_secure: false, headers }, options)
    }

    /// Checks a request as [`check`](Self::check) does, of a client that speaks TLS to this program or to a
    /// trusted proxy in front of it. A page of the same host must then have come over TLS as well: its
    /// `Origin` must be `https` (§10.2).
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check).
    pub fn check_over_tls(
        method: &Method,
        headers: &HeaderMap,
        options: &UpgradeOptions,
    ) -> Result<Self, HandshakeError> {
        let is_get = *method == Method::GET;
        Self::answer(&Opening { is_get, is_http_1_1: true, is_secure: true, headers }, options)
    }

    /// Checks the version of a request, where the HTTP library serves others than HTTP/1.1, too. Method and
    /// headers do not show it.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::HttpVersion`] for all but HTTP/1.1 (§4.2.1). HTTP/1.0 has no upgrade, and HTTP/2
    /// opens a WebSocket in another way (RFC 8441).
    pub fn check_version(version: Version) -> Result<(), HandshakeError> {
        if version == Version::HTTP_11 { Ok(()) } else { Err(HandshakeError::HttpVersion) }
    }

    /// Takes every step of the server's opening handshake, except for the bytes.
    pub(crate) fn answer<H: HeaderLines>(
        opening: &Opening<'_, H>,
        options: &UpgradeOptions,
    ) -> Result<Self, HandshakeError> {
        let parts = &options.parts;
        let websocket = &parts.websocket.parts;
        let accept = opening.accept(&parts.origins)?;
        let (chosen, offered) = (parts.subprotocol.as_ref(), opening.subprotocols()?);
        let subprotocol = websocket.subprotocols.choose(chosen, &offered)?;
        let offers = opening.extensions()?;
        let own = own_fields(&parts.headers)?;
        // Last, since it may reserve memory.
        let agreement = websocket.deflate.as_ref().and_then(|deflate| deflate.negotiate(&offers));

        // The order of §1.3.
        let mut fields: Vec<Field> = vec![
            ("Upgrade".into(), "websocket".into()),
            ("Connection".into(), "Upgrade".into()),
            ("Sec-WebSocket-Accept".into(), accept.into()),
        ];
        if let Some(name) = subprotocol {
            fields.push(("Sec-WebSocket-Protocol".into(), name.to_owned().into()));
        }
        let deflate = agreement.as_ref().map(|agreement| agreement.parameters);
        if let Some(parameters) = deflate {
            let extension = parameters.to_string();
            fields.push(("Sec-WebSocket-Extensions".into(), extension.into()));
        }
        fields.extend(own);
        let deflation = agreement.map(|agreement| {
            let options = websocket.deflate.clone().unwrap_or_default();
            Deflation::new(&options, agreement, Role::Server)
        });
        Ok(Self {
            fields,
            subprotocol: subprotocol.map(Box::from),
            deflate,
            deflation,
            peer_addr: None,
            client_ip: None,
            path: None,
            unread: Bytes::new(),
            settings: websocket.settings.clone(),
        })
    }

    /// Gives back the memory for compression, while the request waits for something.
    pub(super) fn release_memory(&mut self) {
        self.deflation = None;
    }

    /// Takes it again. If others have it meanwhile, each message is compressed on its own.
    pub(super) fn take_memory(&mut self, options: &UpgradeOptions) {
        let deflate = options.parts.websocket.parts.deflate.as_ref();
        let (Some(agreed), Some(deflate)) = (self.deflate, deflate) else { return };
        let agreement = deflate.agree_again(agreed);
        if agreement.parameters != agreed {
            self.deflate = Some(agreement.parameters);
            let name = "Sec-WebSocket-Extensions";
            let field = self.fields.iter_mut().find(|field| field.0 == name);
            if let Some((_, value)) = field {
                *value = agreement.parameters.to_string().into();
            }
        }
        self.deflation = Some(Deflation::new(deflate, agreement, Role::Server));
    }

    /// The fields of the 101, spelled as in the RFC. Names and values are ASCII.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The answer to the request: 101 with all its headers.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in self.fields() {
            // They were checked, but for the length that `http` allows a name.
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            {
                response.headers_mut().append(name, value);
            }
        }
        response
    }

    /// The subprotocol that the 101 names (§4.2.2), if one was agreed on.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The parameters of permessage-deflate that the 101 names (RFC 7692 §5.1), if it was agreed on.
    #[must_use]
    pub fn deflate(&self) -> Option<DeflateParameters> {
        self.deflate
    }

    /// Says where the client is, for [`WebSocket::peer_addr`].
    pub fn peer_addr(mut self, addr: SocketAddr) -> Self {
        self.peer_addr = Some(addr);
        self
    }

    /// Says which address the client has, for a [`ConnectionLimit`](crate::limits::ConnectionLimit) for each address: if it
    /// is not that of the [peer](Self::peer_addr), which is then a proxy that you trust.
    pub fn client_ip(mut self, address: IpAddr) -> Self {
        self.client_ip = Some(address);
        self
    }

    /// The address that limits count, if it is known.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client_ip.or(self.peer_addr.map(|addr| addr.ip()))
    }

    /// Says which path the request has, for log records. A query is left out.
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(kept_path(path.split('?').next().unwrap_or_default()));
        self
    }

    /// Gives bytes that were read behind the head of the request, which are the first frames. Default: none.
    ///
    /// An HTTP library whose upgraded stream returns such bytes itself, as hyper's does, needs none of this.
    pub fn unread(mut self, bytes: impl Into<Bytes>) -> Self {
        self.unread = bytes.into();
        self
    }

    /// The connection over the stream of the request, after the [response](Self::response) has been written.
    ///
    /// It has no task of its own: it lives from the calls made on it, like that of
    /// [`WebSocket::from_stream`].
    #[must_use]
    pub fn open<S>(self, stream: S) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.open_over(Stream::boxed(stream))
    }

    /// Runs `handler` on the connection over the stream of the request, after the
    /// [response](Self::response) has been written.
    ///
    /// The future that is returned is the connection's task, until the connection is closed, like that of
    /// [`WebSocket::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops handler and connection, without a closing handshake.
    pub fn run<S, F, Fut, T, E>(
        self,
        stream: S,
        handler: F,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: fmt::Display + 'static,
    {
        self.run_over(Stream::boxed(stream), handler)
    }

    pub(crate) fn open_over(self, stream: Stream) -> WebSocket {
        let (settings, opened, unread) = self.into_parts();
        WebSocket::new(Shared::new(stream, unread, Role::Server, settings, opened))
    }

    pub(crate) fn run_over<F, Fut, T, E>(
        self,
        stream: Stream,
        handler: F,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: fmt::Display + 'static,
    {
        let (settings, opened, unread) = self.into_parts();
        let shared = Shared::new(stream, unread, Role::Server, settings.with_task(), opened);
        let handler = handler(WebSocket::new(Arc::clone(&shared)));
        Box::pin(ConnectionTask::new(Handling::new(Box::pin(handler)), shared))
    }

    /// Takes the fields of the 101.
    #[cfg(feature = "server")]
    pub(super) fn take_fields(&mut self) -> Vec<Field> {
        std::mem::take(&mut self.fields)
    }

    /// The parts that a connection is made of.
    pub(super) fn into_parts(self) -> (Settings, Opened, Bytes) {
        let Self { subprotocol, deflation, peer_addr, path, unread, settings, .. } = self;
        let opened = Opened { deflation, subprotocol, peer_addr, path, ..Opened::default() };
        (settings, opened, unread)
    }
}

/// A path as it is kept for the life of a connection. The memory is the server's, and the length the client's, so it has
/// 200 bytes at most.
pub(crate) fn kept_path(path: &str) -> Box<str> {
    const MOST: usize = 200;

    let mut len = path.len().min(MOST);
    while !path.is_char_boundary(len) {
        len = len.saturating_sub(1);
    }
    match path.split_at_checked(len) {
        Some((kept, cut)) if !cut.is_empty() => format!("{kept}…").into(),
        _ => path.into(),
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("subprotocol", &self.subprotocol)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}

/// The headers of the options, without those that are the handshake's own.
fn own_fields(headers: &[(String, String)]) -> Result<Vec<Field>, HandshakeError> {
    let allowed = headers.iter().filter(|(name, _)| !is_reserved(name));
    let fields = allowed.map(|(name, value)| {
        let is_valid = is_header_line(name, value);
        is_valid.then(|| (name.clone().into(), value.clone().into()))
    });
    fields.collect::<Option<_>>().ok_or(HandshakeError::InvalidHeader)
}
