//! Why a client did not get its connection, and what the server had to say about it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{error, fmt, io};

use crate::head::Fields;
use crate::proto::DeflateAnswerError;

/// Why a [`Client`](crate::Client) did not get its connection.
///
/// Where the server answered, the answer is there to look at: see [`response`](Self::response).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is none that a WebSocket can be opened at (RFC 6455 §3).
    InvalidUrl {
        /// The URL, without what may be secret: user, password and query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header that HTTP does not allow, or one that the opening handshake writes itself.
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// A subprotocol that is no token, or that is offered twice (§4.1).
    InvalidSubprotocol {
        /// The subprotocol.
        name: String,
    },
    /// The URL asks for TLS, and this build has none.
    TlsMissing,
    /// The name of the host could not be looked up.
    Resolve {
        /// The name.
        host: String,
        /// What the system says.
        error: Arc<io::Error>,
    },
    /// None of the host's addresses could be connected to.
    Connect {
        /// The address that was tried last.
        addr: String,
        /// What the system says.
        error: Arc<io::Error>,
    },
    /// The proxy does not open a tunnel; its status is that of the [`response`](Self::response).
    ProxyRefused(Box<HandshakeResponse>),
    /// There is no agreement on TLS: a certificate that is not trusted, say.
    Tls {
        /// Whose certificate it is.
        host: String,
        /// What rustls says.
        error: Arc<io::Error>,
    },
    /// A step took longer than it may.
    TimedOut(ConnectStep),
    /// The stream failed, or ended, before there was an answer.
    Io(Arc<io::Error>),
    /// The server answered with a status other than 101.
    Refused(Box<HandshakeResponse>),
    /// More redirects than [`max_redirects`](crate::Client::max_redirects) allows, or one from `wss`
    /// to `ws`.
    Redirected(Box<HandshakeResponse>),
    /// What the server answered is not HTTP/1.1 (HTTP/1.0 may refuse), or has a head of more than 16 KiB
    /// or 100 lines.
    MalformedResponse {
        /// What is wrong with it.
        reason: String,
    },
    /// The server answered 101, and broke a rule of the opening handshake (§4.1).
    InvalidResponse {
        /// The rule.
        violation: ResponseViolation,
        /// The answer.
        response: Box<HandshakeResponse>,
    },
}

/// The steps from a URL to a connection that have a deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectStep {
    /// Lookup, TCP, proxy and TLS together: [`connect_timeout`](crate::Client::connect_timeout).
    Connect,
    /// The opening handshake: [`handshake_timeout`](crate::Client::handshake_timeout).
    Handshake,
}

/// A rule of the opening handshake that a 101 response breaks (RFC 6455 §4.1).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResponseViolation {
    /// No `Upgrade: websocket`.
    UpgradeMissing,
    /// No `Connection: Upgrade`.
    ConnectionMissing,
    /// No `Sec-WebSocket-Accept`, or several.
    AcceptMissing,
    /// A `Sec-WebSocket-Accept` for another key: a cache, or no WebSocket server.
    AcceptMismatch,
    /// An extension, or parameters of it, that were not offered.
    Extension(DeflateAnswerError),
    /// A subprotocol that was not offered, or several.
    SubprotocolNotOffered {
        /// What the server wrote.
        name: String,
    },
    /// No subprotocol, where the options
    /// [require one](crate::WebSocketOptions::require_subprotocol).
    SubprotocolMissing,
}

/// What a server, or a proxy, answered to an opening handshake.
#[derive(Clone, Eq, PartialEq)]
pub struct HandshakeResponse {
    pub(crate) status: u16,
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
}

impl HandshakeResponse {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header line of this name that is text, in upper or lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.text(name)
    }

    /// All header lines, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter()
    }

    /// The beginning of the body: at most 1 KiB, and none of a 101.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// How long the server wants to be left alone, if it says so in seconds or as a date (RFC 9110
    /// §10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header("retry-after")?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// With the body as text, and without cookies and the query of a `Location`.
impl fmt::Debug for HandshakeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.headers().map(|(name, value)| match name {
            name if name.eq_ignore_ascii_case("set-cookie") => (name, "…".into()),
            name if name.eq_ignore_ascii_case("location") => {
                (name, without_secrets(&String::from_utf8_lossy(value)).into())
            }
            name => (name, String::from_utf8_lossy(value)),
        });
        f.debug_struct("HandshakeResponse")
            .field("status", &self.status)
            .field("headers", &lines.collect::<Vec<_>>())
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

/// A URL as it may be in a log: without query and fragment, and not at all if it may name a user.
pub(crate) fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    match url.split_at(end) {
        (shown, _) if shown.contains('@') => "…".to_owned(),
        (shown, rest) if rest.starts_with('?') => format!("{shown}?…"),
        (shown, _) => shown.to_owned(),
    }
}

impl ConnectError {
    /// What the server answered; `None` if it did not come to that.
    #[must_use]
    pub fn response(&self) -> Option<&HandshakeResponse> {
        match self {
            Self::ProxyRefused(response)
            | Self::Refused(response)
            | Self::Redirected(response)
            | Self::InvalidResponse { response, .. } => Some(response),
            _ => None,
        }
    }

    /// May another try succeed, a little later?
    ///
    /// So it is when the network failed or took too long, and for the statuses 408, 425, 429 and
    /// 5xx, except 501 and 505. [`Reconnect`](crate::Reconnect) goes by this unless it is told
    /// otherwise.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::TimedOut(_) | Self::Io(_) => true,
            Self::Refused(response) | Self::ProxyRefused(response) => {
                matches!(response.status, 408 | 425 | 429 | 500 | 502..=504 | 506..=599)
            }
            _ => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl { url, reason } => write!(f, "{url:?} cannot be opened: {reason}"),
            Self::InvalidHeader { name } => write!(f, "the header {name:?} cannot be sent"),
            Self::InvalidSubprotocol { name } => {
                write!(f, "the subprotocol {name:?} cannot be offered")
            }
            Self::TlsMissing => f.write_str("this build has no TLS"),
            Self::Resolve { host, error } => write!(f, "cannot look up {host}: {error}"),
            Self::Connect { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Self::ProxyRefused(response) => {
                write!(f, "the proxy opens no tunnel: it answered {}", response.status)
            }
            Self::Tls { host, error } => write!(f, "no TLS with {host}: {error}"),
            Self::TimedOut(step) => step.fmt(f),
            Self::Io(error) => write!(f, "the stream ended before there was an answer: {error}"),
            Self::Refused(response) => {
                write!(f, "the server answered {} instead of 101", response.status)
            }
            Self::Redirected(response) => {
                let target = without_secrets(response.header("location").unwrap_or("nowhere"));
                write!(f, "the server redirects with {} to {target:?}", response.status)
            }
            Self::MalformedResponse { reason } => {
                write!(f, "the answer is no HTTP response: {reason}")
            }
            Self::InvalidResponse { violation, .. } => violation.fmt(f),
        }
    }
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "there was no connection in time",
            Self::Handshake => "there was no answer to the opening handshake in time",
        })
    }
}

impl fmt::Display for ResponseViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpgradeMissing => f.write_str("the 101 has no `Upgrade: websocket` header"),
            Self::ConnectionMissing => f.write_str("the 101 has no `Connection: Upgrade` header"),
            Self::AcceptMissing => f.write_str("the 101 has not one Sec-WebSocket-Accept header"),
            Self::AcceptMismatch => f.write_str("Sec-WebSocket-Accept belongs to another key"),
            Self::Extension(error) => error.fmt(f),
            Self::SubprotocolNotOffered { name } => {
                write!(f, "the subprotocol {name:?} was not offered")
            }
            Self::SubprotocolMissing => {
                f.write_str("the server speaks no subprotocol of this client")
            }
        }
    }
}

impl error::Error for ResponseViolation {}

impl error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Resolve { error, .. }
            | Self::Connect { error, .. }
            | Self::Tls { error, .. }
            | Self::Io(error) => Some(&**error),
            Self::InvalidResponse { violation, .. } => Some(violation),
            _ => None,
        }
    }
}
