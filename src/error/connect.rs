//! The errors of a client that opens a connection, and the response of the server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{error, fmt, io};

use crate::causes;
use crate::head::Fields;
use crate::proto::DeflateAnswerError;

/// The reason why a [`Client`](crate::Client) could not open a connection.
///
/// If the server, or a proxy, has answered, [`response`](Self::response) returns the answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not a valid WebSocket URL (RFC 6455 §3).
    InvalidUrl {
        /// The URL, without the parts that may be secret: user, password and query.
        url: String,
        /// The reason.
        reason: String,
    },
    /// A header that HTTP does not allow, or that the opening handshake writes itself.
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// A subprotocol that is not a token, or that is offered twice (§4.1).
    InvalidSubprotocol {
        /// The subprotocol.
        name: String,
    },
    /// The closure of [`ReconnectOptions::prepare`](crate::client::ReconnectOptions::prepare) has failed, with this
    /// error.
    Prepare(Arc<dyn error::Error + Send + Sync>),
    /// The URL needs TLS, and this build has no TLS.
    TlsMissing,
    /// The lookup of the host's name failed.
    Resolve {
        /// The name.
        host: String,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// A connection to each of the host's addresses failed.
    Connect {
        /// The address that was tried last.
        addr: String,
        /// The system's error for that address.
        error: Arc<io::Error>,
    },
    /// The proxy refused to open a tunnel. [`response`](Self::response) has its status.
    ProxyRefused(Box<HandshakeResponse>),
    /// The TLS handshake failed, for instance since the certificate is not trusted.
    Tls {
        /// The host that the certificate has to name.
        host: String,
        /// The error of rustls, or of the stream below.
        error: Arc<io::Error>,
    },
    /// A step took longer than its deadline allows.
    TimedOut(ConnectStep),
    /// The stream failed or ended before the server had answered.
    Io(Arc<io::Error>),
    /// The server answered with a status other than 101.
    Refused(Box<HandshakeResponse>),
    /// The server redirected more often than [`max_redirects`](crate::Client::max_redirects) allows, or
    /// from `wss` to `ws`.
    Redirected(Box<HandshakeResponse>),
    /// The answer is not HTTP/1.1, or its head has more than 16 KiB or 100 lines. A refusal may be
    /// HTTP/1.0.
    MalformedResponse {
        /// The reason.
        reason: String,
    },
    /// The server answered 101, but the answer breaks a rule of the opening handshake (§4.1).
    InvalidResponse {
        /// The rule.
        violation: ResponseViolation,
        /// The answer.
        response: Box<HandshakeResponse>,
    },
}

/// A step from a URL to a connection that has a deadline.
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
    /// A `Sec-WebSocket-Accept` for another key: the answer of a cache, or of a server without
    /// WebSocket.
    AcceptMismatch,
    /// An extension, or a parameter of one, that does not fit the offer.
    Extension(DeflateAnswerError),
    /// A subprotocol that was not offered, or several.
    SubprotocolNotOffered {
        /// The server's value.
        name: String,
    },
    /// No subprotocol, although the options
    /// [require one](crate::WebSocketOptions::require_subprotocol).
    SubprotocolMissing,
}

/// The HTTP response of a server, or of a proxy, to an opening handshake.
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

    /// The value of the first header line of this name that is text. Upper and lower case are equal.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.text(name)
    }

    /// The names and values of all header lines, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter()
    }

    /// The beginning of the body: at most 1 KiB; empty for a 101.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The time that the server asks to wait before a retry, in its `Retry-After` header (RFC 9110
    /// §10.2.3). The header may hold seconds or a date.
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

/// Shows the body as text, and leaves out cookies and the query of a `Location`.
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

/// A URL in a form that is safe to log: without query and fragment, and "…" if it may name a user.
pub(crate) fn without_secrets(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    match url.split_at(end) {
        (shown, _) if shown.contains('@') => "…".to_owned(),
        (shown, rest) if rest.starts_with('?') => format!("{shown}?…"),
        (shown, _) => shown.to_owned(),
    }
}

impl ConnectError {
    /// The server's response; `None` if it did not get that far.
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

    /// Whether the deadline of a step has passed ([`TimedOut`](Self::TimedOut)), or a stream of the system
    /// has timed out ([`io::ErrorKind::TimedOut`]).
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Resolve { error, .. }
            | Self::Connect { error, .. }
            | Self::Tls { error, .. }
            | Self::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether another try, a little later, may succeed.
    ///
    /// True if the network failed or took too long, if the preparation failed, and for the statuses 408, 425, 429 and 5xx except
    /// 501 and 505. [`Reconnect`](crate::client::Reconnect) uses this unless it is given a rule of its own.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Prepare(_)
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::TimedOut(_)
            | Self::Io(_) => true,
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
            Self::Prepare(_) => f.write_str("the connection could not be prepared"),
            Self::TlsMissing => f.write_str("this build has no TLS"),
            Self::Resolve { host, .. } => write!(f, "cannot look up {host}"),
            Self::Connect { addr, .. } => write!(f, "cannot connect to {addr}"),
            Self::ProxyRefused(response) => {
                write!(f, "the proxy refuses to open a tunnel, with {}", response.status)
            }
            Self::Tls { host, .. } => write!(f, "the TLS handshake with {host} failed"),
            Self::TimedOut(step) => step.fmt(f),
            Self::Io(_) => f.write_str("the stream ended before the server answered"),
            Self::Refused(response) => {
                write!(f, "the server answered {} instead of 101", response.status)
            }
            Self::Redirected(response) => {
                let target = without_secrets(response.header("location").unwrap_or("nowhere"));
                write!(f, "the server redirects with {} to {target:?}", response.status)
            }
            Self::MalformedResponse { reason } => {
                write!(f, "the answer is not an HTTP response: {reason}")
            }
            Self::InvalidResponse { .. } => {
                f.write_str("the 101 response breaks a rule of the opening handshake")
            }
        }?;
        causes::append(self, f)
    }
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection was made in time",
            Self::Handshake => "the opening handshake was not answered in time",
        })
    }
}

impl fmt::Display for ResponseViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpgradeMissing => f.write_str("the 101 has no `Upgrade: websocket` header"),
            Self::ConnectionMissing => f.write_str("the 101 has no `Connection: Upgrade` header"),
            Self::AcceptMissing => {
                f.write_str("the 101 does not have exactly one Sec-WebSocket-Accept header")
            }
            Self::AcceptMismatch => f.write_str("Sec-WebSocket-Accept is for another key"),
            Self::Extension(_) => f.write_str("the extensions of the 101 do not fit the offer"),
            Self::SubprotocolNotOffered { name } => {
                write!(f, "the subprotocol {name:?} was not offered")
            }
            Self::SubprotocolMissing => {
                f.write_str("the server chose no subprotocol, and one is required")
            }
        }?;
        causes::append(self, f)
    }
}

impl error::Error for ResponseViolation {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Extension(error) => Some(error),
            _ => None,
        }
    }
}

impl error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Resolve { error, .. }
            | Self::Connect { error, .. }
            | Self::Tls { error, .. }
            | Self::Io(error) => Some(&**error),
            Self::Prepare(error) => Some(&**error),
            Self::InvalidResponse { violation, .. } => Some(violation),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_repeats_its_cause() {
        let io = || Arc::new(io::Error::other("it is down"));
        let response = || {
            Box::new(HandshakeResponse {
                status: 101,
                headers: Fields::default(),
                body: Vec::new(),
            })
        };
        let invalid = |violation| ConnectError::InvalidResponse { violation, response: response() };
        let extension = ResponseViolation::Extension(DeflateAnswerError::ExtensionRepeated);
        let cases = [
            (ConnectError::Resolve { host: "example.com".to_owned(), error: io() }, 2),
            (ConnectError::Connect { addr: "192.0.2.1:80".to_owned(), error: io() }, 2),
            (ConnectError::Tls { host: "example.com".to_owned(), error: io() }, 2),
            (ConnectError::Io(io()), 2),
            (ConnectError::TimedOut(ConnectStep::Connect), 1),
            (ConnectError::TimedOut(ConnectStep::Handshake), 1),
            (ConnectError::TlsMissing, 1),
            (ConnectError::InvalidHeader { name: "a b".to_owned() }, 1),
            (ConnectError::Refused(response()), 1),
            (ConnectError::Redirected(response()), 1),
            (ConnectError::ProxyRefused(response()), 1),
            (invalid(ResponseViolation::AcceptMissing), 2),
            (invalid(extension), 3),
        ];
        for (error, texts) in cases {
            assert_eq!(causes::check_texts(&error), texts, "{error:#}");
            // One more where it is the cause of an `Error`.
            assert_eq!(causes::check_texts(&crate::Error::from(error)), texts + 1);
        }
    }
}
