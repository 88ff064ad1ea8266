//! The target of a WebSocket URL ([RFC 6455 §3]).
//!
//! [RFC 6455 §3]: https://www.rfc-editor.org/rfc/rfc6455#section-3

use std::fmt::Write as _;

use data_encoding::BASE64;
use url::{Host, Url};

use crate::error::{ConnectError, without_secrets};

/// The parts of a `ws` or `wss` URL, in the forms that a request needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) is_secure: bool,
    /// The host, without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Host`. The port is left out if it is the scheme's default.
    pub(super) authority: String,
    /// Path and query (§3, resource-name).
    pub(super) resource: String,
    /// The value of `Authorization`, if the URL names a user.
    pub(super) authorization: Option<String>,
    url: Url,
}

impl Target {
    /// Reads a URL. `http` and `https` count as `ws` and `wss`.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        Self::from_url(parse_url(text)?)
    }

    fn from_url(url: Url) -> Result<Self, ConnectError> {
        let (is_secure, default_port) = match url.scheme() {
            "ws" | "http" => (false, 80),
            "wss" | "https" => (true, 443),
            _ => return Err(invalid(&url, "the scheme is neither ws nor wss")),
        };
        // A fragment has no meaning for a server, and MUST NOT be used (§3).
        if url.fragment().is_some() {
            return Err(invalid(&url, "there must be no fragment"));
        }
        let (host, mut authority) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), name.to_owned()),
            Some(Host::Ipv4(ip)) => (ip.to_string(), ip.to_string()),
            Some(Host::Ipv6(ip)) => (ip.to_string(), format!("[{ip}]")),
            None => return Err(invalid(&url, "there is no host")),
        };
        let port = url.port().unwrap_or(default_port);
        if port != default_port {
            let _ = write!(authority, ":{port}");
        }
        let mut resource = url.path().to_owned();
        if let Some(query) = url.query() {
            let _ = write!(resource, "?{query}");
        }
        let authorization = basic(&url);
        Ok(Self { is_secure, host, port, authority, resource, authorization, url })
    }

    /// Resolves a `Location` against this target.
    pub(super) fn join(&self, location: &str) -> Result<Self, ConnectError> {
        let joined = self.url.join(location);
        let mut url = joined.map_err(|error| invalid(&self.url, &error.to_string()))?;
        // A fragment is not meant for the server (RFC 9110 §10.2.2).
        url.set_fragment(None);
        let mut there = Self::from_url(url)?;
        if self.is_same_origin(&there) && there.authorization.is_none() {
            there.authorization.clone_from(&self.authorization);
        }
        Ok(there)
    }

    /// Whether `other` has the same origin, so that it may see headers that were meant for this server.
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        (self.is_secure, &self.host, self.port) == (other.is_secure, &other.host, other.port)
    }
}

/// User and password of a URL in the form of `Basic` (RFC 7617).
pub(super) fn basic(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = decoded(url.username());
    credentials.push(b':');
    credentials.extend(decoded(url.password().unwrap_or_default()));
    Some(format!("Basic {}", BASE64.encode(&credentials)))
}

/// Text without its percent-encoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

pub(super) fn parse_url(text: &str) -> Result<Url, ConnectError> {
    Url::parse(text).map_err(|error| {
        // A URL that cannot be parsed is not shown if a password may be anywhere in it.
        let url = if text.contains('@') { "…".to_owned() } else { without_secrets(text) };
        ConnectError::InvalidUrl { url, reason: error.to_string() }
    })
}

/// The error of a URL that was parsed, but is not accepted.
pub(super) fn invalid(url: &Url, reason: &str) -> ConnectError {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    ConnectError::InvalidUrl { url: without_secrets(url.as_str()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, is_secure, host, port, authority, resource) in [
            ("ws://example.com", false, "example.com", 80, "example.com", "/"),
            ("wss://example.com/a/b?c=d", true, "example.com", 443, "example.com", "/a/b?c=d"),
            ("WS://Example.COM:8080/", false, "example.com", 8080, "example.com:8080", "/"),
            ("wss://example.com:80/", true, "example.com", 80, "example.com:80", "/"),
            ("https://example.com:443/x", true, "example.com", 443, "example.com", "/x"),
            ("ws://[::1]:9000/?", false, "::1", 9000, "[::1]:9000", "/?"),
            ("ws://127.1/ä b", false, "127.0.0.1", 80, "127.0.0.1", "/%C3%A4%20b"),
            (
                "ws://bücher.example/",
                false,
                "xn--bcher-kva.example",
                80,
                "xn--bcher-kva.example",
                "/",
            ),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.is_secure, &*target.host, target.port), (is_secure, host, port));
            assert_eq!((&*target.authority, &*target.resource), (authority, resource));
            assert_eq!(target.authorization, None);
        }
    }

    #[test]
    fn a_url_that_leads_nowhere_says_why() {
        for (url, reason) in [
            ("", "relative URL without a base"),
            ("/ws", "relative URL without a base"),
            ("example.com/ws", "relative URL without a base"),
            ("ftp://example.com/", "the scheme is neither ws nor wss"),
            ("ws://example.com/#part", "there must be no fragment"),
            ("ws://", "empty host"),
            ("ws://example.com:70000/", "invalid port number"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.to_string().ends_with(reason), "{url}: {error}");
        }
    }

    #[test]
    fn user_and_password_are_for_the_server_only() {
        let target = Target::parse("ws://ada:p%40ss@example.com/").unwrap();
        // ada:p@ss
        assert_eq!(target.authorization.as_deref(), Some("Basic YWRhOnBAc3M="));
        assert_eq!(target.authority, "example.com");
        for url in ["ftp://ada:secret@example.com/", "ws://ada:secret@example.com:x/"] {
            let error = Target::parse(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_location_is_read_where_it_was_found() {
        let here = Target::parse("ws://example.com/a/b").unwrap();
        for (location, authority, resource, is_same_origin) in [
            ("/c", "example.com", "/c", true),
            ("c?d", "example.com", "/a/c?d", true),
            ("//other.example/", "other.example", "/", false),
            ("ws://example.com:81/", "example.com:81", "/", false),
            ("https://example.com/a", "example.com", "/a", false),
            // A fragment is meant for the client (RFC 9110 §10.2.2).
            ("/c#part", "example.com", "/c", true),
        ] {
            let there = here.join(location).unwrap();
            assert_eq!((&*there.authority, &*there.resource), (authority, resource));
            assert_eq!(here.is_same_origin(&there), is_same_origin);
        }
    }

    #[test]
    fn user_and_password_are_kept_on_the_way_to_the_same_server_only() {
        let here = Target::parse("ws://ada:x@example.com/a").unwrap();
        for (location, authorization) in [
            ("/c", Some("Basic YWRhOng=")),
            ("http://example.com/c", Some("Basic YWRhOng=")),
            ("ws://bob:y@example.com/c", Some("Basic Ym9iOnk=")),
            ("ws://example.com:81/", None),
            ("wss://example.com/", None),
            ("//other.example/", None),
        ] {
            let there = here.join(location).unwrap();
            assert_eq!(there.authorization.as_deref(), authorization, "{location}");
        }
    }
}
