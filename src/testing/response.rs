//! Responses of a server, and assertions about them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{HandshakeResponse, Result};

/// Largest number of bytes of a body that a failure shows.
const MOST: usize = 1 << 10;

/// A response of the server, with its whole body.
///
/// A method that begins with `assert` panics if it does not hold, with the response in its message. Otherwise it
/// returns the response, for the next assertion.
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

    /// Creates the response to an opening handshake.
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

    /// The value of the first header line of this name that is text. Upper and lower case are equal.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find_map(|(known, value)| {
            let value = known.eq_ignore_ascii_case(name).then_some(value)?;
            std::str::from_utf8(value).ok()
        })
    }

    /// The names and values of all header lines.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text. Bytes that are not UTF-8 are replaced by `U+FFFD`.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Json`](crate::Error::Json) if it is not JSON, or does not fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Asserts that the status is `expected`.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn assert_status(&self, expected: u16) -> &Self {
        assert!(self.status == expected, "{} instead of {expected}\n{self:?}", self.status);
        self
    }

    /// Asserts that the first header line of this name has this value.
    ///
    /// # Panics
    ///
    /// If there is no such line, or its value is another.
    #[track_caller]
    pub fn assert_header(&self, name: &str, expected: &str) -> &Self {
        let found = self.header(name);
        assert!(found == Some(expected), "{name} is {found:?}, not {expected:?}\n{self:?}");
        self
    }

    /// Asserts that there is no header line of this name.
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

    /// Asserts that the body is this text.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn assert_text(&self, expected: &str) -> &Self {
        assert!(self.text() == expected, "the body is not {expected:?}\n{self:?}");
        self
    }

    /// Asserts that the body contains this text.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn assert_contains(&self, expected: &str) -> &Self {
        assert!(self.text().contains(expected), "no {expected:?} in the body\n{self:?}");
        self
    }

    /// Asserts that the body is JSON, and equal to `expected` as JSON.
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

/// Shows the response in full, with a long body shortened.
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
