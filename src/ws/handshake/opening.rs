//! The opening handshake of the server, without I/O ([RFC 6455 §4.2]).
//!
//! Headers come in, a verdict and the accept key go out. Where they come from and who sends the
//! answer is `upgrade.rs`; what can be wrong is `error.rs`, and whose pages may connect `origin.rs`.
//!
//! [RFC 6455 §4.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2

use async_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{HandshakeError, HeaderLines, Origins};

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
        self.check_host()?;
        if !self.headers.has_token("upgrade", "websocket") {
            return Err(HandshakeError::UpgradeMissing);
        }
        if !self.headers.has_token("connection", "upgrade") {
            return Err(HandshakeError::ConnectionMissing);
        }
        self.check_version()?;
        self.key()
    }

    fn check_host(&self) -> Result<(), HandshakeError> {
        let mut lines = self.headers.lines("host");
        match (lines.next(), lines.next()) {
            (None, _) => Err(HandshakeError::HostMissing),
            (Some(_), None) => Ok(()),
            _ => Err(HandshakeError::HostRepeated),
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

    fn key(&self) -> Result<&str, HandshakeError> {
        let mut lines = self.headers.lines("sec-websocket-key");
        let key = lines.next().ok_or(HandshakeError::KeyMissing)?.trim();
        if lines.next().is_some() || !is_sixteen_bytes_of_base64(key) {
            return Err(HandshakeError::KeyInvalid);
        }
        Ok(key)
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
            ("ftp://example.com", "example.com", false, false),
            ("chrome-extension://example.com", "example.com", false, false),
            ("example.com", "example.com", false, false),
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

    #[test]
    fn a_list_has_what_can_be_a_token() {
        let lines =
            vec![("x", "chat, ,two words,é,v2"), ("y", "no"), ("x", "\u{fffd}, v1 ,\u{7f}")];
        assert_eq!(lines.list("x").collect::<Vec<_>>(), ["chat", "v2", "v1"]);
    }
}
