//! The bytes of an HTTP connection, cut into pieces at the end of each head and body.
//!
//! hyper reads all bytes that are there, and does not tell how many it holds after the current message. So
//! it gets the bytes in pieces, and no piece goes beyond the end of a head or a body. That shows which bytes
//! came too early, and which bytes are a request line: hyper silently drops a fragment of the target.
//!
//! A head ends with an empty line, and so does a chunked body ([RFC 9112 §2.1], §7.1). An empty line inside a
//! chunk costs hyper one more read, and changes nothing else.
//!
//! [RFC 9112 §2.1]: https://www.rfc-editor.org/rfc/rfc9112#section-2.1

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::io::AsyncRead;
use memchr::memchr;

/// The beginning of the HTTP/2 preface (RFC 9113 §3.4). hyper recognizes only the whole preface.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A stream of bytes that is read in pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Bytes after the last piece, which were read and not asked for.
    held: Bytes,
    /// Bytes still to come of a body of known length.
    body: u64,
    section: Section,
}

/// The lines before an empty line: a head, or a part of a chunked body.
#[derive(Debug)]
struct Section {
    is_first_line: bool,
    /// Whether the current line is empty so far, except perhaps for a CR.
    is_empty_line: bool,
    /// Whether there is a `#` in the first line.
    has_fragment: bool,
}

/// The end of a head, or perhaps of a chunked body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct End {
    /// Whether there is a `#` in the first line. If this was a head, that is the request line.
    pub(super) has_fragment: bool,
    /// Whether bytes after it have arrived already.
    pub(super) is_followed: bool,
}

impl Pieces {
    /// Announces that a body of this length comes next.
    pub(super) fn begin_body(&mut self, len: u64) {
        self.body = len;
    }

    /// Reads a piece or a part of it. Also returns the end of a head, if the piece has one.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, Option<End>)>> {
        let room = match self.body {
            0 => buf.len(),
            body => usize::try_from(body).unwrap_or(usize::MAX).min(buf.len()),
        };
        let buf = buf.get_mut(..room).unwrap_or_default();
        let (len, section) = if self.held.is_empty() {
            let len = ready!(Pin::new(stream).poll_read(cx, buf))?;
            let new = buf.get(..len).unwrap_or_default();
            let (len, section) = self.cut(new);
            self.held = Bytes::copy_from_slice(new.get(len..).unwrap_or_default());
            (len, section)
        } else {
            let new = self.held.slice(..room.min(self.held.len()));
            let (len, section) = self.cut(&new);
            self.held.copy_to_slice(buf.get_mut(..len).unwrap_or_default());
            (len, section)
        };
        let is_followed = !self.held.is_empty();
        let end = section.map(|Section { has_fragment, .. }| End { has_fragment, is_followed });
        Poll::Ready(Ok((len, end)))
    }

    /// The number of these bytes that belong to the current piece, and the section that ends with them.
    fn cut(&mut self, new: &[u8]) -> (usize, Option<Section>) {
        if self.body > 0 {
            self.body = self.body.saturating_sub(u64::try_from(new.len()).unwrap_or(u64::MAX));
            return (new.len(), None);
        }
        match self.section.end(new) {
            Some(len) if !new.get(..len).unwrap_or_default().ends_with(HTTP_2) => {
                (len, Some(std::mem::take(&mut self.section)))
            }
            _ => (new.len(), None),
        }
    }

    /// Takes the bytes after the last piece.
    pub(super) fn take_held(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }
}

impl Section {
    /// The number of these bytes up to the end of the section; `None` if it does not end in them.
    fn end(&mut self, new: &[u8]) -> Option<usize> {
        let mut rest = new;
        while let Some(at) = memchr(b'\n', rest) {
            let (line, next) = rest.split_at_checked(at.saturating_add(1)).unwrap_or((rest, &[]));
            self.add(line);
            rest = next;
            if self.is_empty_line {
                return Some(new.len().saturating_sub(rest.len()));
            }
            (self.is_first_line, self.is_empty_line) = (false, true);
        }
        self.add(rest);
        None
    }

    /// Adds bytes to the current line.
    fn add(&mut self, bytes: &[u8]) {
        self.is_empty_line &= bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        self.has_fragment |= self.is_first_line && memchr(b'#', bytes).is_some();
    }
}

impl Default for Section {
    fn default() -> Self {
        Self { is_first_line: true, is_empty_line: true, has_fragment: false }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::poll_fn;

    use super::*;

    const HEAD: &str = "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Reads all of `input`, `step` bytes at a time, into buffers of `room` bytes.
    fn pieces(input: &str, step: usize, room: usize, body: u64) -> Vec<(String, Option<End>)> {
        let mut pieces = Pieces::default();
        pieces.begin_body(body);
        let mut read = vec![(String::new(), None)];
        for mut input in input.as_bytes().chunks(step) {
            while !input.is_empty() || !pieces.held.is_empty() {
                let mut buf = vec![0; room];
                let reading = poll_fn(|cx| pieces.poll_read(&mut input, cx, &mut buf));
                let (len, end) = reading.now_or_never().unwrap().unwrap();
                let (piece, ended) = read.last_mut().unwrap();
                *piece += std::str::from_utf8(&buf[..len]).unwrap();
                if end.is_some() {
                    *ended = end;
                    read.push((String::new(), None));
                }
            }
        }
        read
    }

    #[test]
    fn no_piece_goes_beyond_the_end_of_a_head_or_a_body() {
        for (input, body, expected) in [
            (HEAD.to_owned(), 0, &[HEAD, ""][..]),
            (HEAD.repeat(2), 0, &[HEAD, HEAD, ""]),
            (format!("{HEAD}\r\n{HEAD}G"), 0, &[HEAD, "\r\n", HEAD, "G"]),
            ("GET / HTTP/1.0\n\nGET".to_owned(), 0, &["GET / HTTP/1.0\n\n", "GET"]),
            ("GET / HTTP/1.0\n\r\n\n".to_owned(), 0, &["GET / HTTP/1.0\n\r\n", "\n", ""]),
            (format!("1\r\na\r\n0\r\n\r\n{HEAD}"), 0, &["1\r\na\r\n0\r\n\r\n", HEAD, ""]),
            (format!("a\n\nb\n\n{HEAD}"), 6, &[&format!("a\n\nb\n\n{HEAD}"), ""]),
        ] {
            for step in [1, 2, 7, usize::MAX] {
                for room in [1, 3, 1000] {
                    let read = pieces(&input, step, room, body);
                    let read: Vec<_> = read.iter().map(|(piece, _)| &**piece).collect();
                    assert_eq!(read, expected, "{input:?} {step} {room}");
                }
            }
        }
    }

    #[test]
    fn an_end_tells_of_a_fragment_in_the_first_line_and_of_bytes_after_it() {
        let end = |has_fragment, is_followed| Some(End { has_fragment, is_followed });
        for step in [1, usize::MAX] {
            // If it arrives byte by byte, no more bytes are there when the end is read.
            let is_followed = step > 1;
            let ends = |input: &str| -> Vec<_> {
                pieces(input, step, 1000, 0).into_iter().map(|(_, end)| end).collect()
            };
            assert_eq!(ends(HEAD), [end(true, false), None]);
            assert_eq!(ends(&format!("{HEAD}x")), [end(true, is_followed), None]);
            let others = "GET /a HTTP/1.1\r\nReferer: /a#b\r\n\r\n";
            assert_eq!(ends(others), [end(false, false), None]);
            let both = format!("\r\n{HEAD}{others}");
            let all = [(false, is_followed), (true, is_followed), (false, false)];
            let all: Vec<_> = all.map(|(has, is)| end(has, is)).into_iter().chain([None]).collect();
            assert_eq!(ends(&both), all);
        }
    }

    #[test]
    fn the_preface_of_http_2_is_not_cut() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(pieces(preface, usize::MAX, 1000, 0), [(preface.to_owned(), None)]);
    }
}
