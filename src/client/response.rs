//! The response to an opening handshake ([RFC 9112]).
//!
//! After a 101, the bytes behind its head belong to the connection. After any other status, they are the
//! beginning of a body. `check_response` checks the rules for a 101.
//!
//! [RFC 9112]: https://www.rfc-editor.org/rfc/rfc9112

use std::io;
use std::time::Duration;

use bytes::Bytes;
use httparse::Status;

use crate::error::{ConnectError, HandshakeResponse};
use crate::head;
use crate::head::{Fields, HeadError};
use crate::proto::handshake::HeaderLines;
use crate::runtime::Clock;
use crate::stream::Stream;

/// The number of bytes of a body that are kept.
const MAX_BODY: usize = 1 << 10;

/// The number of bytes of a body that are read. It is larger, since chunks have sizes beside their data.
const MAX_RAW_BODY: usize = 2 * MAX_BODY;

/// Longest time for a body. It is short, since a body only explains the status.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest number of interim responses: 100, 102, 103 (RFC 9110 §15.2).
const MAX_INFORMATIONAL: u32 = 8;

pub(super) const SWITCHING_PROTOCOLS: u16 = 101;

/// A response, and the bytes behind its head.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: HandshakeResponse,
    /// The first bytes of the new protocol, or of a body.
    pub(super) unread: Bytes,
}

impl Answer {
    /// Reads the head of a final response.
    pub(super) async fn read(stream: &mut Stream) -> Result<Self, ConnectError> {
        let mut buf = Vec::new();
        for _ in 0..=MAX_INFORMATIONAL {
            let (response, len) = head::read(stream, &mut buf, parse).await?;
            let unread = buf.split_off(len);
            if is_final(response.status) {
                return Ok(Self { response, unread: unread.into() });
            }
            buf = unread;
        }
        Err(malformed("too many interim (1xx) responses"))
    }

    /// Reads as much of the beginning of the body as arrives in time.
    pub(super) async fn read_body(self, stream: &mut Stream, clock: &Clock) -> HandshakeResponse {
        let Self { mut response, unread } = self;
        let framing = Framing::of(&response);
        let mut raw = unread.to_vec();
        // The bytes that came before an error or the deadline are kept.
        let _ = clock.timeout(Some(BODY_TIMEOUT), framing.read(stream, &mut raw)).await;
        response.body = framing.body(&raw);
        response.body.truncate(MAX_BODY);
        response
    }
}

fn is_final(status: u16) -> bool {
    status == SWITCHING_PROTOCOLS || status >= 200
}

/// Reads a head. Returns it with its length, if it is whole.
fn parse(buf: &[u8]) -> httparse::Result<(HandshakeResponse, usize)> {
    let mut lines = [httparse::EMPTY_HEADER; head::MAX_LINES];
    let mut parsed = httparse::Response::new(&mut lines);
    let Status::Complete(len) = parsed.parse(buf)? else { return Ok(Status::Partial) };
    let status = parsed.code.unwrap_or_default();
    // HTTP/1.0 has no upgrades (RFC 9110 §7.8), but it may open a tunnel or refuse.
    if parsed.version != Some(1) && status == SWITCHING_PROTOCOLS {
        return Err(httparse::Error::Version);
    }
    let headers = Fields::new(parsed.headers);
    Ok(Status::Complete((HandshakeResponse { status, headers, body: Vec::new() }, len)))
}

impl From<HeadError> for ConnectError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Io(error) => Self::Io(error.into()),
            HeadError::TooLarge => malformed("the head is too large"),
            HeadError::Malformed(error) => malformed(&error.to_string()),
        }
    }
}

fn malformed(reason: &str) -> ConnectError {
    ConnectError::MalformedResponse { reason: reason.to_owned() }
}

/// The rule that tells the end of a body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
    /// The body ends with the stream.
    ToEnd,
}

impl Framing {
    fn of(response: &HandshakeResponse) -> Self {
        // `chunked` overrides a length (RFC 9112 §6.3).
        if response.headers.has_token("transfer-encoding", "chunked") {
            return Self::Chunked;
        }
        let length = response.header("content-length").and_then(|value| value.trim().parse().ok());
        match (response.status, length) {
            (101 | 204 | 304, _) => Self::Length(0),
            (_, Some(length)) => Self::Length(length),
            (_, None) => Self::ToEnd,
        }
    }

    /// Reads as much of a body as is kept.
    async fn read(self, stream: &mut Stream, raw: &mut Vec<u8>) -> io::Result<()> {
        while !self.is_enough(raw) && head::read_some(stream, raw).await? {}
        Ok(())
    }

    fn is_enough(self, raw: &[u8]) -> bool {
        match self {
            Self::Length(length) => raw.len() >= length.min(MAX_BODY),
            Self::Chunked => {
                let is_ended = raw == b"0\r\n\r\n" || raw.ends_with(b"\r\n0\r\n\r\n");
                is_ended || raw.len() >= MAX_RAW_BODY
            }
            Self::ToEnd => raw.len() >= MAX_BODY,
        }
    }

    fn body(self, raw: &[u8]) -> Vec<u8> {
        match self {
            Self::Length(length) => raw.get(..length).unwrap_or(raw).to_vec(),
            Self::Chunked => unchunked(raw),
            Self::ToEnd => raw.to_vec(),
        }
    }
}

/// The data of the chunks (RFC 9112 §7.1) that are there.
fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Status::Complete((start, size))) = httparse::parse_chunk_size(raw) {
        let data = raw.get(start..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        body.extend_from_slice(data.get(..size).unwrap_or(data));
        // A line break follows the data.
        match size.checked_add(2).and_then(|end| data.get(end..)) {
            Some(rest) if size > 0 => raw = rest,
            _ => break,
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(head: &str) -> HandshakeResponse {
        match parse(head.as_bytes()) {
            Ok(Status::Complete((response, len))) if len == head.len() => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_is_whole_or_wanted_or_wrong() {
        let head = b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let Ok(Status::Complete((response, len))) = parse(head) else { panic!("not whole") };
        assert_eq!((response.status, len), (101, 37));
        assert_eq!(response.header("UPGRADE"), Some("websocket"));

        assert!(matches!(parse(b"HTTP/1.1 101 Switching"), Ok(Status::Partial)));
        for head in [
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            b"HTTP/1.0 101 x\r\n\r\n".to_vec(),
            b"HTTP/1.1 1x1 x\r\n\r\n".to_vec(),
            [b"HTTP/1.1 101 x\r\n".to_vec(), b"a: b\r\n".repeat(101)].concat(),
        ] {
            assert!(parse(&head).is_err());
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        for (head, raw, body) in [
            ("Content-Length: 5", &b"hello and more"[..], &b"hello"[..]),
            ("Transfer-Encoding: chunked", b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello"),
            ("Transfer-Encoding: chunked", b"3\r\nhel\r\n5\r\nlo", b"hello"),
            ("Transfer-Encoding: chunked", b"ffffffffffffffff\r\nhello", b"hello"),
            ("Transfer-Encoding: chunked", b"zz\r\nhello", b""),
            ("X: y", b"hello", b"hello"),
        ] {
            let head = format!("HTTP/1.1 403 Forbidden\r\n{head}\r\n\r\n");
            assert_eq!(Framing::of(&response(&head)).body(raw), body, "{head}");
        }
    }

    #[test]
    fn a_body_is_read_no_further_than_it_goes_or_is_kept() {
        for (framing, raw, is_enough) in [
            (Framing::Chunked, &b"0\r\n\r\n"[..], true),
            (Framing::Chunked, b"1\r\nx\r\n0\r\n\r\n", true),
            (Framing::Chunked, b"1\r\nx\r\n0\r\n", false),
            (Framing::Chunked, &[b'x'; MAX_RAW_BODY], true),
            (Framing::Length(0), b"", true),
            (Framing::Length(5), b"hell", false),
            (Framing::Length(usize::MAX), &[b'x'; MAX_BODY], true),
            (Framing::ToEnd, &[b'x'; MAX_BODY - 1], false),
        ] {
            assert_eq!(framing.is_enough(raw), is_enough, "{framing:?}");
        }
    }

    #[test]
    fn a_switch_of_protocols_has_no_body_for_any_headers() {
        let response = response("HTTP/1.1 101 x\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(Framing::of(&response), Framing::Length(0));
    }
}
