//! What a server has answered, and what a test says about it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{HandshakeResponse, Result};

/// Most bytes of a body that the message of a failure shows.
const MOST: usize = 1 << 10;

/// An answer of the server, with its whole body.
///
/// The methods that begin with `assert` fail the test with the answer in their message, and return it
/// for the next of them.
#[derive(Clone)]
pub struct TestResponse {
    /// `GET /ping`.
    request: String,
    status: u16,
    headers: Vec<(Box<str>, Box<[u8]>)>,
    body: Bytes,
}

impl TestResponse {
    pub(super) fn new(request: String, head: &::http::response::Parts, body: Bytes) -> Self {
        let line = |(name, value): (&::http::HeaderName, &::http::HeaderValue)| {
            (name.as_str().into(), value.as_bytes().into())
        };
        let headers = head.headers.iter().map(line).collect();
        Self { request, status: head.status.as_u16(), headers, body }
    }

    /// The answer to an opening handshake.
    pub(super) fn of_handshake(request: String, response: &HandshakeResponse) -> Self {
        let headers = response.headers().map(|(name, value)| (name.into(), value.into()));
        Self {
            request,
            status: response.status(),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(response.body()),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header line of this name that is text, in upper or lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find_map(|(known, value)| {
            let value = known.eq_ignore_ascii_case(name).then_some(value)?;
            std::str::from_utf8(value).ok()
        })
    }

    /// All header lines.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; what is not UTF-8 in it is replaced by `U+FFFD`.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Json`](crate::Error::Json) if it is none, or not what is asked for.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The status is this one.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn assert_status(&self, expected: u16) -> &Self {
        assert!(self.status == expected, "{} instead of {expected}\n{self:?}", self.status);
        self
    }

    /// There is a header line of this name, and the first is this.
    ///
    /// # Panics
    ///
    /// If there is none, or it is another.
    #[track_caller]
    pub fn assert_header(&self, name: &str, expected: &str) -> &Self {
        let found = self.header(name);
        assert!(found == Some(expected), "{name} is {found:?}, not {expected:?}\n{self:?}");
        self
    }

    /// There is no header line of this name.
    ///
    /// # Panics
    ///
    /// If there is one.
    #[track_caller]
    pub fn assert_no_header(&self, name: &str) -> &Self {
        let is_there = self.headers().any(|(known, _)| known.eq_ignore_ascii_case(name));
        assert!(!is_there, "there should be no {name}\n{self:?}");
        self
    }

    /// The body is this text.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn assert_text(&self, expected: &str) -> &Self {
        assert!(self.text() == expected, "the body is not {expected:?}\n{self:?}");
        self
    }

    /// The body has this text in it.
    ///
    /// # Panics
    ///
    /// If it has not.
    #[track_caller]
    pub fn assert_contains(&self, expected: &str) -> &Self {
        assert!(self.text().contains(expected), "no {expected:?} in the body\n{self:?}");
        self
    }

    /// The body is JSON, and says the same as `expected`.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn assert_json(&self, expected: impl Serialize) -> &Self {
        let found: Option<serde_json::Value> = self.json().ok();
        let expected = serde_json::to_value(expected).ok();
        let is_same = found.is_some() && found == expected;
        assert!(is_same, "the body is not {}\n{self:?}", expected.unwrap_or_default());
        self
    }
}

/// The answer as it came, long bodies shortened.
impl fmt::Debug for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} was answered with {}", self.request, self.status)?;
        for (name, value) in self.headers() {
            writeln!(f, "  {name}: {}", String::from_utf8_lossy(value))?;
        }
        let shown = self.body.get(..MOST).unwrap_or(&self.body);
        write!(f, "\n  {}", String::from_utf8_lossy(shown).trim_end().replace('\n', "\n  "))?;
        if self.body.len() > MOST { write!(f, "… ({} bytes)", self.body.len()) } else { Ok(()) }
    }
}
