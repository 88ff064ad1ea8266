//! The server's opening handshake without the server: over a stream that the caller has accepted
//! ([RFC 6455 §4.2]).
//!
//! For programs that need no routes, and for runtimes that the server does not know: it has futures and one
//! timer, and no task. The rest of HTTP is in `server/` and `http/`.
//!
//! [RFC 6455 §4.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2

use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use httparse::Status;

use crate::connection::WebSocket;
use crate::error::Result;
use crate::escaped::Escaped;
use crate::head;
use crate::head::{Fields, HeadError};
use crate::options::UpgradeOptions;
use crate::proto::extension::is_token;
use crate::proto::handshake::{HandshakeError, HeaderLines, Opening, is_host_and_port};
use crate::records::record;
use crate::runtime::Clock;
use crate::stream::Stream;
use crate::upgrade::Upgrade;

/// How long the head of the request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a request from a stream that the caller has accepted.
///
/// The caller decides how it is answered: [`upgrade`](UpgradeRequest::upgrade) or
/// [`run`](UpgradeRequest::run), or [`refuse`](UpgradeRequest::refuse). The head may have 16 KiB and 100
/// lines, and take 10 s; a request with a body cannot be upgraded. Any host is answered for: a
/// server of a private network compares [`header("host")`](UpgradeRequest::header) with its own names, so
/// that no other name is made to lead to it (DNS rebinding).
///
/// ```no_run
/// use tidewire::WebSocketOptions;
///
/// # async fn run(listener: smol::net::TcpListener) -> tidewire::Result<()> {
/// loop {
///     let (stream, _) = listener.accept().await?;
///     smol::spawn(async move {
///         let request = tidewire::upgrade::accept(stream).await?;
///         if request.path() != "/echo" {
///             return request.refuse(404, "there is /echo only\n").await;
///         }
///         let mut ws = request.upgrade(WebSocketOptions::default()).await?;
///         while let Some(message) = ws.recv().await? {
///             ws.send(message).await?;
///         }
///         Ok(())
///     })
///     .detach();
/// }
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) if the stream fails or ends before the head does.
/// [`Error::Handshake`](crate::Error::Handshake) for a head that is not HTTP, has a fragment in its target
/// (RFC 9112 §3.2), is too large, or takes too long; the client has then been told.
///
/// # Cancel safety
///
/// Dropping the future drops the stream.
pub async fn accept<S>(stream: S) -> Result<UpgradeRequest>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    read_request(Stream::boxed(stream), HEAD_TIMEOUT).await
}

async fn read_request(mut stream: Stream, timeout: Duration) -> Result<UpgradeRequest> {
    let mut buf = Vec::new();
    // The options of the connection, which may have another clock, come later.
    let clock = Clock::default();
    let reading = head::read(&mut stream, &mut buf, parse);
    let (head, len) = match clock.timeout(Some(timeout), reading).await {
        Some(Ok(whole)) => whole,
        Some(Err(HeadError::Io(error))) => return Err(error.into()),
        Some(Err(HeadError::TooLarge)) => {
            return Err(turn_away(stream, false, HandshakeError::HeadTooLarge, (None, None)).await);
        }
        Some(Err(HeadError::Malformed(error))) => {
            record!(debug, "the request is not HTTP", error = Escaped(error));
            let error = HandshakeError::HeadMalformed;
            return Err(turn_away(stream, false, error, (None, None)).await);
        }
        None => {
            let error = HandshakeError::HeadTimedOut;
            return Err(turn_away(stream, false, error, (None, None)).await);
        }
    };
    if head.target.contains('#') {
        // A server that leaves it out sees another path than a proxy that does not.
        let error = HandshakeError::TargetInvalid;
        return Err(turn_away(stream, head.without_content, error, (None, None)).await);
    }
    let unread = buf.split_off(len).into();
    Ok(UpgradeRequest { head, unread, peer_addr: None, is_secure: false, stream })
}

/// A request that has been read, to be upgraded or refused.
///
/// Made by [`accept`]. Dropped, it closes the stream without an answer.
pub struct UpgradeRequest {
    head: Head,
    /// Bytes behind the head: the first frames.
    unread: Bytes,
    peer_addr: Option<SocketAddr>,
    is_secure: bool,
    stream: Stream,
}

#[derive(Debug)]
struct Head {
    is_get: bool,
    /// Whether the method is `HEAD`, whose answer has no content.
    without_content: bool,
    is_http_1_1: bool,
    /// Path and query.
    target: String,
    fields: Fields,
}

impl UpgradeRequest {
    /// Says where the client is, for [`WebSocket::peer_addr`].
    #[must_use]
    pub fn peer_addr(mut self, addr: SocketAddr) -> Self {
        self.peer_addr = Some(addr);
        self
    }

    /// Says that the client speaks TLS, to this program or to a proxy in front of it. A page of the same
    /// host must then have come over TLS as well to connect: its `Origin` must be `https` (§10.2).
    ///
    /// Default: not known, and either will do.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.is_secure = true;
        self
    }

    /// The path of the request, as it was sent, dot segments included; without scheme and host if the target
    /// is a whole URL (RFC 9112 §3.2.2).
    #[must_use]
    pub fn path(&self) -> &str {
        path_of(&self.head)
    }

    /// The query, without its `?`; `None` if there is none.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        Some(self.head.target.split_once('?')?.1)
    }

    /// The first header line of this name that is text, in upper or lower case. `Host` is that of the
    /// target if the target is a whole URL.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.fields.text(name)
    }

    /// All header lines, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.head.fields.iter()
    }

    /// The subprotocols the client offers, in its order of preference (§4.1).
    ///
    /// An element that is not a token is left out; a request that offers one is refused with 400 when it is
    /// upgraded.
    #[must_use]
    pub fn offered_subprotocols(&self) -> Vec<&str> {
        let listed = self.head.fields.list("sec-websocket-protocol");
        listed.filter(|name| is_token(name)).collect()
    }

    /// Answers 101 and returns the connection, which has no task of its own: it lives from the calls
    /// made on it, as that of [`WebSocket::from_stream`].
    ///
    /// A `ConnectionLimit` of the options is not used: the caller decides how many streams it accepts.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`](crate::Error::Handshake) if the request is not a valid opening handshake
    /// (§4.2.1) or comes from a page that may not connect (§10.2); the client has then been told.
    /// [`Error::Io`](crate::Error::Io) if the stream fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    pub async fn upgrade(self, options: impl Into<UpgradeOptions>) -> Result<WebSocket> {
        let (upgrade, stream) = self.switch(options.into()).await?;
        Ok(upgrade.open_over(stream))
    }

    /// Answers 101 and runs `handler` on the connection. The future that is returned is the connection's task,
    /// until the connection is closed, like that of [`WebSocket::run`].
    ///
    /// # Errors
    ///
    /// Those of [`upgrade`](Self::upgrade). If the handler fails, the peer is told by 1011.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops handler and connection, without a closing handshake.
    pub async fn run<F, Fut, T, E>(
        self,
        options: impl Into<UpgradeOptions>,
        handler: F,
    ) -> Result<()>
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: fmt::Display + 'static,
    {
        // Boxed, so that its memory is free while the connection lives.
        let (upgrade, stream) = Box::pin(self.switch(options.into())).await?;
        upgrade.run_over(stream, handler).await;
        Ok(())
    }

    /// Answers with a status other than 101, and closes. A status below 200 or above 599, which does not
    /// answer a request, becomes 500. Where HTTP allows no content, `body` is left out.
    ///
    /// Before it drops the stream it waits for the client to end its side, for 2 s at most, so that the
    /// answer is not lost to a reset. A stream whose `close` does not end the sending side, as of
    /// `async_io::Async<TcpStream>`, takes all of that: wrap it, or use the runtime's own type.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the stream fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    pub async fn refuse(mut self, status: u16, body: &str) -> Result<()> {
        let status = if (200..=599).contains(&status) { status } else { 500 };
        respond(&mut self.stream, self.head.without_content, status, "", body).await?;
        Ok(())
    }

    /// Answers 101; returns the upgrade and the stream behind the answer.
    async fn switch(mut self, options: UpgradeOptions) -> Result<(Upgrade, Stream)> {
        let Head { is_get, is_http_1_1, .. } = self.head;
        let is_secure = self.is_secure;
        let opening = Opening { is_get, is_http_1_1, is_secure, headers: &self.head.fields };
        let mut upgrade = match Upgrade::answer(&opening, &options) {
            Ok(upgrade) => upgrade.path(logged_path(&self.head)).unread(self.unread),
            Err(error) => {
                let whose = (Some(logged_path(&self.head)), self.peer_addr);
                return Err(turn_away(self.stream, self.head.without_content, error, whose).await);
            }
        };
        if let Some(addr) = self.peer_addr {
            upgrade = upgrade.peer_addr(addr);
        }
        let head = lines(upgrade.fields());
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\n");
        let sending = async {
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.flush().await
        };
        let timeout = Some(options.parts.handshake_timeout);
        let sent = options.parts.websocket.parts.settings.clock.timeout(timeout, sending).await;
        sent.ok_or(HandshakeError::TimedOut)??;
        Ok((upgrade, self.stream))
    }
}

impl fmt::Debug for UpgradeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeRequest").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// A head and its length, if it is whole.
fn parse(buf: &[u8]) -> httparse::Result<(Head, usize)> {
    let mut lines = [httparse::EMPTY_HEADER; head::MAX_LINES];
    let mut parsed = httparse::Request::new(&mut lines);
    let Status::Complete(len) = parsed.parse(buf)? else { return Ok(Status::Partial) };
    let (target, host) = take_apart(parsed.path.unwrap_or_default());
    let mut fields = Fields::new(parsed.headers);
    if let Some(host) = host {
        // A value that is not a host stays, and the request is refused.
        if fields.lines("host").all(|line| is_host_and_port(line.trim())) {
            fields.replace("host", host);
        }
    }
    let head = Head {
        is_get: parsed.method == Some("GET"),
        without_content: parsed.method == Some("HEAD"),
        is_http_1_1: parsed.version == Some(1),
        target,
        fields,
    };
    Ok(Status::Complete((head, len)))
}

/// Path and query of a target, and the host of an absolute one, which replaces the value of `Host`
/// (RFC 9112 §3.2.2). Any other target stays as it is.
fn take_apart(target: &str) -> (String, Option<&str>) {
    let (scheme, rest) = target.split_once("://").unwrap_or_default();
    let is_http = ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme));
    let (host, resource) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_http || host.is_empty() || host.contains('@') || target.contains('#') {
        return (target.to_owned(), None);
    }
    let slash = if resource.starts_with('/') { "" } else { "/" };
    (format!("{slash}{resource}"), Some(host))
}

fn path_of(head: &Head) -> &str {
    head.target.split('?').next().unwrap_or_default()
}

/// The path for log records: of a URL that is none of ours, no user and no password.
fn logged_path(head: &Head) -> &str {
    let path = path_of(head);
    if path.starts_with('/') || !path.contains('@') { path } else { "…" }
}

/// Header lines as HTTP/1.1 writes them.
fn lines<N: fmt::Display, V: fmt::Display>(fields: impl IntoIterator<Item = (N, V)>) -> String {
    let mut lines = String::new();
    for (name, value) in fields {
        let _ = write!(lines, "{name}: {value}\r\n");
    }
    lines
}

/// Tells a client why it gets no connection.
async fn turn_away(
    mut stream: Stream,
    to_head: bool,
    error: HandshakeError,
    (path, peer): (Option<&str>, Option<SocketAddr>),
) -> crate::Error {
    let path = path.map(Escaped);
    record!(debug, "handshake refused", path = path, peer = peer, reason = error.name());
    let more = lines(error.fields());
    match respond(&mut stream, to_head, error.status(), &more, &error.text()).await {
        Ok(()) => error.into(),
        Err(error) => error.into(),
    }
}

/// Answers, and lets the client read it: for 2 s at most, bytes that it still sends are read and thrown away.
async fn respond(
    stream: &mut Stream,
    to_head: bool,
    status: u16,
    more: &str,
    body: &str,
) -> io::Result<()> {
    const LINGER: Duration = Duration::from_secs(2);

    // 204 and 304 have no content and no length (RFC 9110 §6.4.1); 205 has a length of 0.
    let body = if matches!(status, 204 | 205 | 304) { "" } else { body };
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let body = if to_head { "" } else { body };
    let answer = format!(
        "HTTP/1.1 {status} \r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         {more}{length}\r\n{body}"
    );
    let saying = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.close().await?;
        stream.drain().await
    };
    Clock::default().timeout(Some(LINGER), saying).await.unwrap_or(Ok(()))
}

#[cfg(all(test, feature = "client", feature = "server"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::Error;
    use crate::runtime::{TcpStream, block_on};

    #[test]
    fn no_record_has_the_password_of_a_target() {
        for (target, logged) in [
            ("/@ada/echo?token=x", "/@ada/echo"),
            ("http://y/echo?token=x", "/echo"),
            ("http://ada:secret@y/echo", "…"),
            ("ada:secret@y:80", "…"),
            ("ftp://y/echo", "ftp://y/echo"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let Ok(Status::Complete((head, _))) = parse(head.as_bytes()) else {
                panic!("{target}")
            };
            assert_eq!(logged_path(&head), logged);
        }
    }

    #[test]
    fn a_head_that_does_not_end_in_time_is_answered_with_408() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = block_on(TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let client = std::thread::spawn(move || {
            let (mut client, mut answer) = (listener.accept().unwrap().0, String::new());
            client.write_all(b"GET / HTTP/1.1\r\nHost").unwrap();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        let reading = read_request(Stream::boxed(stream), Duration::from_millis(50));
        let within = Some(Duration::from_secs(5));
        let outcome = block_on(Clock::default().timeout(within, reading)).unwrap();
        assert!(matches!(outcome, Err(Error::Handshake(HandshakeError::HeadTimedOut))));
        let answer = client.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 \r\nConnection: close\r\n"), "{answer}");
    }
}
