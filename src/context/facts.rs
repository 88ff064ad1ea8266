//! What of a request tide's `Request` cannot hold: it travels in the extensions.

use std::net::IpAddr;

/// Where the client of a request is, if trusted proxies in between told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientIp(pub(crate) IpAddr);

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

    /// The first such value of a header, byte for byte as it was received.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let same = |(line, _): &&(http::HeaderName, _)| line.as_str().eq_ignore_ascii_case(name);
        self.0.iter().find(same).map(|(_, value)| value.as_slice())
    }
}
