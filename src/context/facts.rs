//! What of a request tide's `Request` cannot hold: it travels in the extensions.

use crate::ws::admission::ClientAddr;

/// What trusted proxies tell of the client of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Told {
    /// `None` if they say nothing about it.
    pub(crate) addr: Option<ClientAddr>,
    /// Whether the client speaks TLS to one of them.
    pub(crate) is_secure: bool,
}

/// The header lines of a request whose values `http_types` cannot hold: those that are not ASCII.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawHeaders(Vec<(http::HeaderName, Vec<u8>)>);

impl RawHeaders {
    pub(crate) fn push(&mut self, name: http::HeaderName, value: Vec<u8>) {
        self.0.push((name, value));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Such values of a header, byte for byte as they were received.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let same = move |line: &&(http::HeaderName, _)| line.0.as_str().eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, value)| value.as_slice())
    }
}
