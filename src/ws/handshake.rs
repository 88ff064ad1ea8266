//! The opening handshake of the server, without I/O ([RFC 6455 §4.2]).
//!
//! Headers come in, a verdict and the accept key go out. Where they come from and who sends the
//! answer is `upgrade.rs`.
//!
//! [RFC 6455 §4.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2

use std::error::Error;
use std::fmt;

use async_tungstenite::tungstenite::handshake::derive_accept_key;

/// Where header lines are looked up.
pub(crate) trait HeaderLines {
    /// The values of every line of this name, in order.
    fn lines(&self, name: &str) -> impl Iterator<Item = &str>;
}

/// The part of a request that the opening handshake depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a, H> {
    pub(crate) is_get: bool,
    pub(crate) is_http_1_1: bool,
    pub(crate) headers: &'a H,
}

impl<H: HeaderLines> Opening<'_, H> {
    /// Checks the request against §4.2.1 and answers with the `Sec-WebSocket-Accept` of §4.2.2.
    pub(crate) fn accept(&self, origins: &Origins) -> Result<String, HandshakeError> {
        let key = self.validate()?;
        self.check_origin(origins)?;
        Ok(derive_accept_key(key.as_bytes()))
    }

    /// Checks the request against §4.2.1; the key is what the answer is made of.
    pub(crate) fn validate(&self) -> Result<&str, HandshakeError> {
        if !self.is_get {
            return Err(HandshakeError::MethodNotGet);
        }
        if !self.is_http_1_1 {
            return Err(HandshakeError::HttpVersion);
        }
        if self.headers.lines("host").next().is_none() {
            return Err(HandshakeError::HostMissing);
        }
        if !self.has_token("upgrade", "websocket") {
            return Err(HandshakeError::UpgradeMissing);
        }
        if !self.has_token("connection", "upgrade") {
            return Err(HandshakeError::ConnectionMissing);
        }
        self.check_version()?;
        self.key()
    }

    fn check_version(&self) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("sec-websocket-version");
        match (lines.next().map(str::trim), lines.next()) {
            (Some("13"), None) => Ok(()),
            (None, _) => Err(HandshakeError::VersionMissing),
            _ => Err(HandshakeError::VersionUnsupported),
        }
    }

    fn key(&self) -> Result<&str, HandshakeError> {
        let mut lines = self.headers.lines("sec-websocket-key");
        let key = lines.next().ok_or(HandshakeError::KeyMissing)?.trim();
        if lines.next().is_some() || !is_sixteen_bytes_of_base64(key) {
            return Err(HandshakeError::KeyInvalid);
        }
        Ok(key)
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.headers.lines(name).flat_map(|line| line.split(','));
        tokens.any(|listed| listed.trim().eq_ignore_ascii_case(token))
    }

    fn check_origin(&self, origins: &Origins) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("origin");
        // Only browsers send the header, and only they carry somebody else's cookies.
        let Some(origin) = lines.next() else { return Ok(()) };
        let host = self.headers.lines("host").next().unwrap_or_default();
        if lines.next().is_none() && origins.allow(origin.trim(), host.trim()) {
            return Ok(());
        }
        Err(HandshakeError::OriginForbidden)
    }
}

/// Sixteen bytes are 22 characters and two of padding.
fn is_sixteen_bytes_of_base64(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==") else { return false };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    digits.len() == 22 && digits.bytes().all(is_digit)
}

/// Whose pages may connect ([RFC 6455 §10.2]).
///
/// [RFC 6455 §10.2]: https://www.rfc-editor.org/rfc/rfc6455#section-10.2
#[derive(Clone, Debug, Default)]
pub(crate) enum Origins {
    #[default]
    SameHost,
    /// These, and the same host.
    Listed(Vec<String>),
    Any,
}

impl Origins {
    fn allow(&self, origin: &str, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::SameHost => is_same_host(origin, host),
            Self::Listed(list) => {
                let is_listed = |listed: &String| listed.eq_ignore_ascii_case(origin);
                list.iter().any(is_listed) || is_same_host(origin, host)
            }
        }
    }
}

/// Does `origin` name the host that the request was sent to?
///
/// The scheme is not compared: behind a proxy that ends TLS it is not the one the client used.
fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_owned();
    !authority.is_empty() && without_port(authority).eq_ignore_ascii_case(&without_port(host))
}

/// Why a request did not become a WebSocket connection.
///
/// Returned from a handler with `?`, it *is* the answer to the request: its
/// [status](Self::status), and a body that says what was wrong and what usually causes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// 405: the method is not GET (§4.2.1).
    MethodNotGet,
    /// 400: the request is not HTTP/1.1 (§4.2.1).
    HttpVersion,
    /// 400: no `Host` header (§4.2.1).
    HostMissing,
    /// 400: no `Upgrade: websocket` header (§4.2.1).
    UpgradeMissing,
    /// 400: no `Connection: Upgrade` header (§4.2.1).
    ConnectionMissing,
    /// 400: no `Sec-WebSocket-Version` header (§4.2.1).
    VersionMissing,
    /// 426: a version other than 13; the answer names ours (§4.4).
    VersionUnsupported,
    /// 400: no `Sec-WebSocket-Key` header (§4.2.1).
    KeyMissing,
    /// 400: the key is not the base64 of 16 bytes, or there are several (§4.2.1).
    KeyInvalid,
    /// 403: a page of another site, which the options do not allow (§10.2).
    OriginForbidden,
    /// 500: the context was upgraded before.
    AlreadyUpgraded,
    /// 400: the stream below cannot be had, because the request has a body.
    NotUpgradable,
    /// 500: a header of the options has a name or a value that HTTP does not allow.
    InvalidHeader,
    /// 500: the client went away, or middleware replaced the answer, before the 101 was sent.
    Abandoned,
    /// 500: the 101 could not be sent within the handshake timeout.
    TimedOut,
}

impl HandshakeError {
    /// The HTTP status that answers the request.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotGet => 405,
            Self::VersionUnsupported => 426,
            Self::OriginForbidden => 403,
            Self::HttpVersion
            | Self::HostMissing
            | Self::UpgradeMissing
            | Self::ConnectionMissing
            | Self::VersionMissing
            | Self::KeyMissing
            | Self::KeyInvalid
            | Self::NotUpgradable => 400,
            Self::AlreadyUpgraded
            | Self::InvalidHeader
            | Self::Abandoned
            | Self::TimedOut => 500,
        }
    }

    /// What usually causes it, for whoever reads the answer.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::MethodNotGet => "A WebSocket opens with a GET request.",
            Self::HttpVersion => {
                "A proxy that speaks HTTP/1.0 to this server causes this; nginx needs \
                 `proxy_http_version 1.1`."
            }
            Self::HostMissing => "HTTP/1.1 requires the header.",
            Self::UpgradeMissing | Self::ConnectionMissing => {
                "Either this is no WebSocket client, or a proxy in between does not pass on \
                 `Connection: Upgrade` and `Upgrade: websocket`, which are hop-by-hop headers."
            }
            Self::VersionMissing | Self::VersionUnsupported => {
                "This server speaks version 13, the one of RFC 6455."
            }
            Self::KeyMissing | Self::KeyInvalid => {
                "The key is 16 random bytes in base64, new for each connection."
            }
            Self::OriginForbidden => {
                "The page belongs to another site. If it should be allowed, or if a proxy changes \
                 the Host header, the server can list its origin."
            }
            Self::NotUpgradable => "What follows the head of an opening handshake is frames.",
            Self::AlreadyUpgraded
            | Self::InvalidHeader
            | Self::Abandoned
            | Self::TimedOut => "",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MethodNotGet => "the method of an opening handshake is GET",
            Self::HttpVersion => "the opening handshake needs HTTP/1.1",
            Self::HostMissing => "the request has no Host header",
            Self::UpgradeMissing => "the request has no `Upgrade: websocket` header",
            Self::ConnectionMissing => "the request has no `Connection: Upgrade` header",
            Self::VersionMissing => "the request has no Sec-WebSocket-Version header",
            Self::VersionUnsupported => "the WebSocket version is not 13",
            Self::KeyMissing => "the request has no Sec-WebSocket-Key header",
            Self::KeyInvalid => "Sec-WebSocket-Key is not one key of 16 bytes in base64",
            Self::OriginForbidden => "pages of this origin may not connect",
            Self::AlreadyUpgraded => "the request was upgraded before",
            Self::NotUpgradable => "the request has a body",
            Self::InvalidHeader => "a header for the 101 response is not valid HTTP",
            Self::Abandoned => "the request ended before the 101 response was sent",
            Self::TimedOut => "the 101 response could not be sent in time",
        })
    }
}

impl Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: [(&str, &str); 5] = [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    impl HeaderLines for Vec<(&str, &str)> {
        fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
            self.iter().filter(move |line| line.0 == name).map(|line| line.1)
        }
    }

    fn answer(headers: &Vec<(&str, &str)>, origins: &Origins) -> Result<String, HandshakeError> {
        Opening { is_get: true, is_http_1_1: true, headers }.accept(origins)
    }

    fn with(name: &'static str, values: &[&'static str]) -> Vec<(&'static str, &'static str)> {
        let mut headers: Vec<_> = VALID.into_iter().filter(|line| line.0 != name).collect();
        headers.extend(values.iter().map(|value| (name, *value)));
        headers
    }

    #[test]
    fn the_request_of_section_1_3_is_answered_with_its_accept_key() {
        let accept = answer(&VALID.to_vec(), &Origins::SameHost);
        assert_eq!(accept.as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn tokens_may_stand_in_lists_on_several_lines_in_any_case() {
        for (name, values) in [
            ("connection", &["keep-alive, Upgrade"] as &[_]),
            ("connection", &["keep-alive", "UPGRADE"]),
            ("connection", &["Upgrade,"]),
            ("upgrade", &["h2c, WebSocket"]),
            ("sec-websocket-version", &[" 13 "]),
        ] {
            assert!(answer(&with(name, values), &Origins::SameHost).is_ok(), "{name}: {values:?}");
        }
    }

    #[test]
    fn every_requirement_of_section_4_2_1_has_its_own_error_and_status() {
        use HandshakeError as E;
        let cases: [(&str, &[&str], E, u16); 14] = [
            ("host", &[], E::HostMissing, 400),
            ("upgrade", &[], E::UpgradeMissing, 400),
            ("upgrade", &["h2c"], E::UpgradeMissing, 400),
            ("connection", &[], E::ConnectionMissing, 400),
            ("connection", &["keep-alive"], E::ConnectionMissing, 400),
            ("connection", &["not-upgrade"], E::ConnectionMissing, 400),
            ("sec-websocket-version", &[], E::VersionMissing, 400),
            ("sec-websocket-version", &["8"], E::VersionUnsupported, 426),
            ("sec-websocket-version", &["13", "13"], E::VersionUnsupported, 426),
            ("sec-websocket-key", &[], E::KeyMissing, 400),
            ("sec-websocket-key", &["c2hvcnQ="], E::KeyInvalid, 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], E::KeyInvalid, 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25j!!=="], E::KeyInvalid, 400),
            (
                "sec-websocket-key",
                &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
                E::KeyInvalid,
                400,
            ),
        ];
        for (name, values, error, status) in cases {
            let headers = with(name, values);
            assert_eq!(answer(&headers, &Origins::SameHost), Err(error), "{name}: {values:?}");
            assert_eq!(error.status(), status, "{error}");
        }
        let headers = VALID.to_vec();
        let post = Opening { is_get: false, is_http_1_1: true, headers: &headers };
        assert_eq!(post.validate(), Err(E::MethodNotGet));
        let old = Opening { is_get: true, is_http_1_1: false, headers: &headers };
        assert_eq!(old.validate(), Err(E::HttpVersion));
    }

    #[test]
    fn pages_of_the_same_host_pass_and_others_need_to_be_allowed() {
        let listed = Origins::Listed(vec!["https://app.example.org".into()]);
        for (origin, host, same_host, allowed) in [
            ("https://example.com", "example.com", true, true),
            ("https://EXAMPLE.com", "example.COM", true, true),
            ("https://example.com", "example.com:443", true, true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true, true),
            ("http://[::1]:8080", "[::1]:8080", true, true),
            ("https://app.example.org", "example.com", false, true),
            ("http://app.example.org", "example.com", false, false),
            ("http://example.com:81", "example.com", false, false),
            ("https://example.com.evil.org", "example.com", false, false),
            ("https://evil.org", "example.com", false, false),
            ("null", "example.com", false, false),
            ("https://", "", false, false),
        ] {
            let mut headers = with("host", &[host]);
            headers.push(("origin", origin));
            assert_eq!(answer(&headers, &Origins::SameHost).is_ok(), same_host, "{origin} {host}");
            assert_eq!(answer(&headers, &listed).is_ok(), allowed, "{origin} {host}");
            assert!(answer(&headers, &Origins::Any).is_ok());
        }
    }
}
