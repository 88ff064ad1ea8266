//! The head of an HTTP/1.1 message, read without an HTTP server ([RFC 9112 §2]).
//!
//! httparse parses it. `accept` reads requests in this way, and `client/` responses. The HTTP server uses hyper
//! instead.
//!
//! [RFC 9112 §2]: https://www.rfc-editor.org/rfc/rfc9112#section-2

use std::io;

use futures::io::AsyncReadExt;

use crate::proto::handshake::{HeaderLines, as_text};
use crate::stream::Stream;

/// Longest head, in bytes.
const MAX_LEN: usize = 16 << 10;

/// Largest number of header lines.
pub(crate) const MAX_LINES: usize = 100;

/// The reason why a head cannot be read.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The stream failed, or ended before the head did.
    Io(io::Error),
    /// The head has more than 16 KiB or 100 lines.
    TooLarge,
    /// The bytes are not HTTP.
    Malformed(httparse::Error),
}

/// Header lines, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fields(Vec<(Box<str>, Box<[u8]>)>);

impl Fields {
    pub(crate) fn new(parsed: &[httparse::Header<'_>]) -> Self {
        Self(parsed.iter().map(|line| (line.name.into(), line.value.into())).collect())
    }

    /// Sets the value of all lines of this name.
    #[cfg(feature = "accept")]
    pub(crate) fn replace(&mut self, name: &str, value: &str) {
        for (_, old) in self.0.iter_mut().filter(|line| line.0.eq_ignore_ascii_case(name)) {
            *old = value.as_bytes().into();
        }
    }

    /// The names and values of all lines.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of the first line of this name that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| {
            let value = known.eq_ignore_ascii_case(name).then_some(value)?;
            std::str::from_utf8(value).ok()
        })
    }
}

impl HeaderLines for Fields {
    fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.iter().filter(move |line| line.0.eq_ignore_ascii_case(name));
        named.map(|line| as_text(line.1))
    }
}

/// Reads until `buf` begins with a whole head. `parse` turns it into a value, and returns its length.
pub(crate) async fn read<T>(
    stream: &mut Stream,
    buf: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> httparse::Result<(T, usize)>,
) -> Result<(T, usize), HeadError> {
    let mut may_be_whole = true;
    loop {
        if may_be_whole {
            match parse(buf) {
                Ok(httparse::Status::Complete((_, len))) if len > MAX_LEN => {
                    return Err(HeadError::TooLarge);
                }
                Ok(httparse::Status::Complete(head)) => return Ok(head),
                Ok(httparse::Status::Partial) => {}
                Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
                Err(error) => return Err(HeadError::Malformed(error)),
            }
        }
        if buf.len() > MAX_LEN {
            return Err(HeadError::TooLarge);
        }
        let known = buf.len();
        if !read_some(stream, buf).await.map_err(HeadError::Io)? {
            return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        // A head can only end with a line. So the head of a peer that sends byte by byte is not parsed from its
        // start for each byte.
        let new = buf.get(known..).unwrap_or_default();
        may_be_whole = known == 0 || new.contains(&b'\n');
    }
}

/// Reads the bytes that are there; false at the end of the stream.
pub(crate) async fn read_some(stream: &mut Stream, buf: &mut Vec<u8>) -> io::Result<bool> {
    let mut scratch = vec![0; 4 << 10];
    let len = stream.read(&mut scratch).await?;
    buf.extend_from_slice(scratch.get(..len).unwrap_or_default());
    Ok(len > 0)
}
