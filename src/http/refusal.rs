//! The server's own error responses: to requests that reach no handler, and for handlers that cannot answer.

use std::fmt;

use ::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use ::http::{HeaderValue, StatusCode};

use super::body::ResponseBody;
use crate::foreign::PanicText;
use crate::reject::{Reason, Refused};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The reason why the server, not a handler, answers a request.
///
/// `Display` is the body of the response: one line for a human reader.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// HTTP/1.1 without a `Host` line (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host` line (RFC 9112 §3.2).
    HostRepeated,
    /// `Host` is not a host with an optional port (RFC 9112 §3.2).
    HostInvalid,
    /// `Host`, or the target, names a host that
    /// [`ServerOptions`](crate::server::ServerOptions::allow_hosts) does not list (RFC 9110 §15.5.20).
    HostNotAllowed,
    /// The request target has a form that this server does not accept (RFC 9112 §3.2).
    TargetInvalid,
    /// The path has a segment `.` or `..` (RFC 3986 §3.3).
    DotSegment,
    /// The request target is too long (RFC 9110 §15.5.15).
    TargetTooLong {
        /// Length of the target, in bytes.
        len: usize,
        /// The limit of [`ServerOptions`](crate::server::ServerOptions), in bytes.
        max: usize,
    },
    /// The head of the request is too large (RFC 6585 §5).
    HeadTooLarge {
        /// Size of the head, in bytes.
        len: usize,
        /// The limit of [`ServerOptions`](crate::server::ServerOptions), in bytes.
        max: usize,
    },
    /// The head of the request was not complete in time (RFC 9110 §15.5.9).
    HeadTimeout,
    /// The client ended its direction in the middle of a head.
    HeadIncomplete,
    /// A method that tide does not know, or `CONNECT` (RFC 9110 §9.1).
    MethodUnknown,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    CodingUnknown,
    /// HTTP on a port that speaks TLS (RFC 9110 §4.2.2).
    #[cfg(feature = "tls")]
    NotEncrypted,
    /// HTTP/2, which this server does not speak (RFC 9110 §15.6.6).
    Http2,
    /// The handler or a middleware panicked.
    HandlerPanicked,
    /// The handler's response cannot be written as HTTP, for a reason that the log is told.
    ResponseInvalid(Box<str>),
}

impl Refusal {
    /// The reason for the log.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::HandlerPanicked => Reason::Panicked(PanicText(None)),
            Self::ResponseInvalid(why) => Reason::failed(why),
            refusal => Reason::Refused(Refused::named(refusal.name())),
        }
    }

    /// A short name for the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostNotAllowed => "host_not_allowed",
            Self::TargetInvalid => "target_invalid",
            Self::DotSegment => "dot_segment",
            Self::TargetTooLong { .. } => "target_too_long",
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::HeadTimeout => "head_timed_out",
            Self::HeadIncomplete => "head_incomplete",
            Self::MethodUnknown => "method_unknown",
            Self::CodingUnknown => "coding_unknown",
            #[cfg(feature = "tls")]
            Self::NotEncrypted => "not_encrypted",
            Self::Http2 => "http2",
            Self::HandlerPanicked => "handler_panicked",
            Self::ResponseInvalid(_) => "response_invalid",
        }
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::TargetInvalid
            | Self::DotSegment
            | Self::HeadIncomplete => StatusCode::BAD_REQUEST,
            #[cfg(feature = "tls")]
            Self::NotEncrypted => StatusCode::BAD_REQUEST,
            Self::HostNotAllowed => StatusCode::MISDIRECTED_REQUEST,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MethodUnknown | Self::CodingUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::HandlerPanicked | Self::ResponseInvalid(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response, for hyper to write. `to_head` leaves the body out.
    pub(super) fn response(&self, to_head: bool) -> ::http::Response<ResponseBody> {
        let text = self.text();
        let len = HeaderValue::from(text.len());
        let body = if to_head { ResponseBody::empty() } else { ResponseBody::full(text) };
        let mut response = ::http::Response::new(body);
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response.headers_mut().insert(CONTENT_LENGTH, len);
        if self.ends_connection() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The response as bytes, for a connection that hyper has ended.
    pub(super) fn encode(&self) -> Vec<u8> {
        let text = self.text();
        format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n\r\n{text}",
            self.status(),
            text.len(),
        )
        .into_bytes()
    }

    fn text(&self) -> String {
        format!("{self}\n")
    }

    /// Whether the connection ends with the response. It does if the request was not valid HTTP, since the
    /// bytes after it may not be a request.
    fn ends_connection(&self) -> bool {
        !matches!(self, Self::HandlerPanicked | Self::ResponseInvalid(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostMissing => f.write_str("the request has no Host header"),
            Self::HostRepeated => f.write_str("the request has more than one Host header"),
            Self::HostInvalid => f.write_str("the Host header is not a host with optional port"),
            Self::HostNotAllowed => f.write_str("this server does not answer for that host"),
            Self::TargetInvalid => f.write_str("the request target is not one for this server"),
            Self::DotSegment => f.write_str("the path of the request has a dot segment"),
            Self::TargetTooLong { len, max } => {
                write!(f, "the request target has {len} bytes, the limit is {max}")
            }
            Self::HeadTooLarge { len, max } => {
                write!(f, "the request head has {len} bytes, the limit is {max}")
            }
            Self::HeadTimeout => f.write_str("the request head was not complete in time"),
            Self::HeadIncomplete => f.write_str("the request ended in the middle of its head"),
            Self::MethodUnknown => f.write_str("the request method is not implemented"),
            Self::CodingUnknown => f.write_str("the only transfer coding implemented is chunked"),
            #[cfg(feature = "tls")]
            Self::NotEncrypted => f.write_str("this port speaks TLS: use https:// or wss://"),
            Self::Http2 => f.write_str("this server speaks HTTP/1.1 only"),
            Self::HandlerPanicked => f.write_str("the server failed to answer this request"),
            Self::ResponseInvalid(_) => {
                f.write_str("the response of the handler is not valid HTTP")
            }
        }
    }
}
