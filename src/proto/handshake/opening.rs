//! The rules for the request of an opening handshake ([RFC 6455 §4.2.1]).
//!
//! [RFC 6455 §4.2.1]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1

use async_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{HandshakeError, HeaderLines, Origins, is_host_and_port};
use crate::proto::extension;
use crate::proto::extension::{Extension, is_token};

/// The part of a request that the opening handshake depends on. Each adapter makes one of the types of its
/// HTTP library; the rules are here alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a, H> {
    /// Whether the method is GET.
    pub(crate) is_get: bool,
    /// Whether the version is HTTP/1.1.
    pub(crate) is_http_1_1: bool,
    /// Whether the client is known to speak TLS; if not, a proxy may speak it for us.
    pub(crate) is_secure: bool,
    pub(crate) headers: &'a H,
}

impl<'a, H: HeaderLines> Opening<'a, H> {
    /// Checks the request against §4.2.1 and answers with the `Sec-WebSocket-Accept` of §4.2.2.
    pub(crate) fn accept(&self, origins: &Origins) -> Result<String, HandshakeError> {
        let key = self.validate()?;
        self.check_origin(origins)?;
        Ok(derive_accept_key(key.as_bytes()))
    }

    /// Checks the request against §4.2.1; returns the key, which the answer is derived from.
    pub(crate) fn validate(&self) -> Result<&'a str, HandshakeError> {
        if !self.is_get {
            return Err(HandshakeError::MethodNotGet);
        }
        if !self.is_http_1_1 {
            return Err(HandshakeError::HttpVersion);
        }
        self.check_host()?;
        if !self.headers.has_token("upgrade", "websocket") {
            return Err(HandshakeError::UpgradeMissing);
        }
        if !self.headers.has_token("connection", "upgrade") {
            return Err(HandshakeError::ConnectionMissing);
        }
        self.check_version()?;
        let key = self.key()?;
        self.check_content()?;
        Ok(key)
    }

    /// The subprotocols that the client offers, in its order of preference (§4.1).
    pub(crate) fn subprotocols(&self) -> Result<Vec<&'a str>, HandshakeError> {
        let offered: Vec<_> = self.headers.list("sec-websocket-protocol").collect();
        if offered.iter().all(|name| is_token(name)) {
            return Ok(offered);
        }
        Err(HandshakeError::SubprotocolsMalformed)
    }

    /// The extensions that the client offers. A malformed list fails the handshake, also if the server uses
    /// none (§9.1).
    pub(crate) fn extensions(&self) -> Result<Vec<Extension<'a>>, HandshakeError> {
        let offers = extension::parse(self.headers.lines("sec-websocket-extensions"));
        offers.map_err(|_| HandshakeError::ExtensionsMalformed)
    }

    fn check_host(&self) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("host");
        match (lines.next().map(str::trim), lines.next()) {
            (None, _) => Err(HandshakeError::HostMissing),
            (_, Some(_)) => Err(HandshakeError::HostRepeated),
            (Some(host), None) if is_host_and_port(host) => Ok(()),
            _ => Err(HandshakeError::HostInvalid),
        }
    }

    fn check_version(&self) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("sec-websocket-version");
        match (lines.next().map(str::trim), lines.next()) {
            (Some("13"), None) => Ok(()),
            (None, _) => Err(HandshakeError::VersionMissing),
            _ => Err(HandshakeError::VersionUnsupported),
        }
    }

    fn key(&self) -> Result<&'a str, HandshakeError> {
        let mut lines = self.headers.lines("sec-websocket-key");
        let key = lines.next().ok_or(HandshakeError::KeyMissing)?.trim();
        if lines.next().is_some() || !is_sixteen_bytes_of_base64(key) {
            return Err(HandshakeError::KeyInvalid);
        }
        Ok(key)
    }

    /// Behind the head of the request come frames, so there is no content (RFC 9112 §6.3).
    fn check_content(&self) -> Result<(), HandshakeError> {
        let is_zero = |len: &str| !len.is_empty() && len.bytes().all(|digit| digit == b'0');
        let mut lengths = self.headers.lines("content-length");
        let is_coded = self.headers.lines("transfer-encoding").next().is_some();
        if is_coded || !lengths.all(|line| is_zero(line.trim())) {
            return Err(HandshakeError::NotUpgradable);
        }
        Ok(())
    }

    fn check_origin(&self, origins: &Origins) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("origin");
        // A browser sends the header with every request of a page. A program that leaves it out has no
        // cookies of somebody else.
        let Some(origin) = lines.next() else { return Ok(()) };
        let host = self.headers.lines("host").next().unwrap_or_default();
        let is_allowed = origins.allow(origin.trim(), host.trim(), self.is_secure);
        if lines.next().is_none() && is_allowed {
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
        Opening { is_get: true, is_http_1_1: true, is_secure: false, headers }.accept(origins)
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
        let cases: [(&str, &[&str], E, u16); 17] = [
            ("host", &[], E::HostMissing, 400),
            ("host", &[""], E::HostInvalid, 400),
            ("host", &["x y"], E::HostInvalid, 400),
            ("host", &["x", ""], E::HostRepeated, 400),
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
        let opening =
            Opening { is_get: true, is_http_1_1: true, is_secure: false, headers: &headers };
        let post = Opening { is_get: false, ..opening };
        assert_eq!(post.validate(), Err(E::MethodNotGet));
        let old = Opening { is_http_1_1: false, ..opening };
        assert_eq!(old.validate(), Err(E::HttpVersion));
    }

    #[test]
    fn a_request_with_content_is_refused() {
        for (name, values, is_allowed) in [
            ("content-length", &["0"][..], true),
            ("content-length", &["00", " 0 "], true),
            ("content-length", &["5"], false),
            ("content-length", &["0", "5"], false),
            ("content-length", &[""], false),
            ("content-length", &["+0"], false),
            ("transfer-encoding", &["chunked"], false),
            ("transfer-encoding", &[""], false),
        ] {
            let expected = if is_allowed { Ok(()) } else { Err(HandshakeError::NotUpgradable) };
            let found = answer(&with(name, values), &Origins::SameHost).map(drop);
            assert_eq!(found, expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn a_malformed_list_of_extensions_is_refused() {
        let extensions = |lines: &[&'static str]| {
            let headers = with("sec-websocket-extensions", lines);
            let opening =
                Opening { is_get: true, is_http_1_1: true, is_secure: false, headers: &headers };
            opening.extensions().map(|offers| offers.len())
        };
        assert_eq!(extensions(&[]), Ok(0));
        assert_eq!(extensions(&["permessage-deflate; a=1, x", "y"]), Ok(3));
        assert_eq!(extensions(&["x", ";"]), Err(HandshakeError::ExtensionsMalformed));
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
            // Of programs: no browser sends these schemes.
            ("ws://example.com", "example.com:80", true, true),
            ("wss://example.com:443", "example.com", true, true),
            ("ws://example.com", "example.com:443", false, false),
            ("wss://evil.org", "example.com", false, false),
            ("https://app.example.org", "example.com", false, true),
            ("http://app.example.org", "example.com", false, false),
            ("http://example.com:81", "example.com", false, false),
            ("https://example.com.evil.org", "example.com", false, false),
            ("https://evil.org", "example.com", false, false),
            ("ftp://example.com", "example.com", false, false),
            ("chrome-extension://example.com", "example.com", false, false),
            ("example.com", "example.com", false, false),
            ("null", "example.com", false, false),
            ("https://", "x", false, false),
        ] {
            let mut headers = with("host", &[host]);
            headers.push(("origin", origin));
            assert_eq!(answer(&headers, &Origins::SameHost).is_ok(), same_host, "{origin} {host}");
            assert_eq!(answer(&headers, &listed).is_ok(), allowed, "{origin} {host}");
            assert!(answer(&headers, &Origins::Any).is_ok());
        }
    }

    #[test]
    fn where_the_client_is_known_to_speak_tls_a_page_of_the_same_host_came_over_tls() {
        let listed = Origins::Listed(vec!["http://example.com".into()]);
        for (origin, same_host, allowed) in [
            ("https://example.com", true, true),
            ("wss://example.com:443", true, true),
            ("http://example.com", false, true),
            ("http://example.com:443", false, false),
            ("ws://example.com", false, false),
            ("https://evil.org", false, false),
        ] {
            let headers = with("origin", &[origin]);
            let headers: Vec<_> = with("host", &["example.com"])
                .into_iter()
                .chain(headers.into_iter().filter(|line| line.0 == "origin"))
                .collect();
            let opening =
                Opening { is_get: true, is_http_1_1: true, is_secure: true, headers: &headers };
            assert_eq!(opening.accept(&Origins::SameHost).is_ok(), same_host, "{origin}");
            assert_eq!(opening.accept(&listed).is_ok(), allowed, "{origin}");
            assert!(opening.accept(&Origins::Any).is_ok());
        }
    }

    #[test]
    fn subprotocols_are_tokens_in_the_order_of_the_client() {
        let offered = |lines: &[&'static str]| {
            let headers = with("sec-websocket-protocol", lines);
            let opening =
                Opening { is_get: true, is_http_1_1: true, is_secure: false, headers: &headers };
            opening.subprotocols().map(|names| names.join(" "))
        };
        assert_eq!(offered(&["chat, ,v2", "", " v1\t,"]).as_deref(), Ok("chat v2 v1"));
        assert_eq!(offered(&["a!#$%&'*+-.^_`|~9"]).as_deref(), Ok("a!#$%&'*+-.^_`|~9"));
        for name in ["two words", "é", "\u{fffd}", "a\u{7f}", "a\"b", "a;b", "a=b", "(a)", "a/b"] {
            let error = Err(HandshakeError::SubprotocolsMalformed);
            assert_eq!(offered(&["chat", name]), error, "{name}");
        }
    }
}
