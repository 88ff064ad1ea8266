//! The reasons for which a request does not become a WebSocket connection, and the answers that tell them.

#[cfg(feature = "accept")]
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a request did not become a WebSocket connection.
///
/// Returned from a handler with `?`, it *is* the answer to the request: its
/// [status](Self::status), and a body that says what was wrong and what usually causes it. Where another
/// HTTP library answers, `HandshakeError::response` (feature `accept`) makes the same answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// 405: the method is not GET (§4.2.1).
    MethodNotGet,
    /// 400: the request is not HTTP. Seen by `accept` only.
    HeadMalformed,
    /// 431: the head of the request has more than 16 KiB or 100 lines. Seen by `accept` only.
    HeadTooLarge,
    /// 408: the head of the request did not end in time. Seen by `accept` only.
    HeadTimedOut,
    /// 400: the request target has a fragment (RFC 9112 §3.2). Seen by `accept` only.
    TargetInvalid,
    /// 400: the request is not HTTP/1.1 (§4.2.1).
    HttpVersion,
    /// 400: no `Host` header (§4.2.1).
    HostMissing,
    /// 400: more than one `Host` header (RFC 9112 §3.2).
    HostRepeated,
    /// 400: a `Host` that is empty, or not a host with an optional port (RFC 9110 §4.2.1, RFC 9112 §3.2).
    HostInvalid,
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
    /// 400: `Sec-WebSocket-Extensions` is not a list of extensions (§9.1).
    ExtensionsMalformed,
    /// 400: `Sec-WebSocket-Protocol` is not a list of tokens (§4.1).
    SubprotocolsMalformed,
    /// 400: the client offers no subprotocol of the server, which requires one
    /// ([`require_subprotocol`](crate::WebSocketOptions::require_subprotocol)).
    SubprotocolUnsupported,
    /// 500: the handler has chosen a subprotocol that the client does not offer (§4.2.2).
    SubprotocolNotOffered,
    /// 403: a page of another site, or one that came without TLS to a connection with it, and which the
    /// options do not allow (§10.2).
    OriginForbidden,
    /// 503: a `ConnectionLimit` has no permit, or none became free while the request was allowed
    /// to wait.
    LimitReached {
        /// When the client may try again: `Retry-After`, in whole seconds rounded up.
        retry_after: Duration,
    },
    /// 500: a `ConnectionLimit` of 0, which admits no connection.
    LimitIsZero,
    /// 500: a `ConnectionLimit` for each key, and the handler has not said the key of the connection.
    LimitKeyMissing,
    /// 400: a `ConnectionLimit` for each address has no address to count, because the headers in which
    /// trusted proxies tell it contradict each other, or are malformed.
    AddressDisputed,
    /// 400: the client has sent something before the 101, which it must not (§4.1), and would have to
    /// wait for a `ConnectionLimit`.
    EarlyData,
    /// 500: the context was upgraded before.
    AlreadyUpgraded,
    /// 400: the request has a body, where the frames begin (RFC 9112 §6.3).
    NotUpgradable,
    /// 500: the HTTP server does not give its stream away, or has given it to another handler. Seen with HTTP libraries
    /// of the caller only.
    StreamMissing,
    /// 500: a header of the options has a name or a value that HTTP does not allow.
    InvalidHeader,
    /// 500: the client went away, or middleware replaced the answer, before the 101 was sent.
    Abandoned,
    /// 500: the 101 could not be sent within the handshake timeout.
    TimedOut,
    /// 503: the server shuts down, or the executor of `set_spawner` takes no more tasks.
    ShuttingDown,
}

impl HandshakeError {
    /// The HTTP status that answers the request.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotGet => 405,
            Self::HeadTimedOut => 408,
            Self::HeadTooLarge => 431,
            Self::VersionUnsupported => 426,
            Self::OriginForbidden => 403,
            Self::LimitReached { .. } | Self::ShuttingDown => 503,
            Self::HeadMalformed
            | Self::TargetInvalid
            | Self::HttpVersion
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::UpgradeMissing
            | Self::ConnectionMissing
            | Self::VersionMissing
            | Self::KeyMissing
            | Self::KeyInvalid
            | Self::ExtensionsMalformed
            | Self::SubprotocolsMalformed
            | Self::SubprotocolUnsupported
            | Self::AddressDisputed
            | Self::EarlyData
            | Self::NotUpgradable => 400,
            Self::LimitIsZero
            | Self::LimitKeyMissing
            | Self::SubprotocolNotOffered
            | Self::AlreadyUpgraded
            | Self::StreamMissing
            | Self::InvalidHeader
            | Self::Abandoned
            | Self::TimedOut => 500,
        }
    }

    /// Whether the program has failed, and not the client or a limit of the server.
    pub(crate) fn is_failure_of_ours(self) -> bool {
        matches!(
            self,
            Self::SubprotocolNotOffered
                | Self::LimitIsZero
                | Self::AlreadyUpgraded
                | Self::InvalidHeader
        )
    }

    /// A short name for logs and counters, such as `origin_forbidden`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MethodNotGet => "method_not_get",
            Self::HeadMalformed => "head_malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimedOut => "head_timed_out",
            Self::TargetInvalid => "target_invalid",
            Self::HttpVersion => "http_version",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::UpgradeMissing => "upgrade_missing",
            Self::ConnectionMissing => "connection_missing",
            Self::VersionMissing => "version_missing",
            Self::VersionUnsupported => "version_unsupported",
            Self::KeyMissing => "key_missing",
            Self::KeyInvalid => "key_invalid",
            Self::ExtensionsMalformed => "extensions_malformed",
            Self::SubprotocolsMalformed => "subprotocols_malformed",
            Self::SubprotocolUnsupported => "subprotocol_unsupported",
            Self::SubprotocolNotOffered => "subprotocol_not_offered",
            Self::OriginForbidden => "origin_forbidden",
            Self::AlreadyUpgraded => "already_upgraded",
            Self::NotUpgradable => "not_upgradable",
            Self::StreamMissing => "stream_missing",
            Self::InvalidHeader => "invalid_header",
            Self::Abandoned => "abandoned",
            Self::TimedOut => "timed_out",
            Self::LimitReached { .. } => "limit_reached",
            Self::LimitIsZero => "limit_is_zero",
            Self::LimitKeyMissing => "limit_key_missing",
            Self::AddressDisputed => "address_disputed",
            Self::EarlyData => "early_data",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The answer to the request, for an HTTP library of the caller: status, text, and the headers that go
    /// with the status, such as `Sec-WebSocket-Version` of a 426 or `Retry-After` of a 503.
    ///
    /// It ends the HTTP connection (`Connection: close`, RFC 9112 §9.6): a client that does not wait for the
    /// answer may have sent frames, which are not the next request.
    ///
    /// ```
    /// use tidewire::HandshakeError;
    ///
    /// let response = HandshakeError::VersionUnsupported.response();
    /// assert_eq!(response.status(), 426);
    /// assert_eq!(response.headers()["sec-websocket-version"], "13");
    /// assert!(response.body().starts_with("the WebSocket version is not 13\n"));
    /// ```
    #[cfg(feature = "accept")]
    #[must_use]
    pub fn response(self) -> http::Response<String> {
        use http::header::{CONNECTION, CONTENT_TYPE};
        use http::{HeaderName, HeaderValue, StatusCode};

        let mut response = http::Response::new(self.text());
        let status = StatusCode::from_u16(self.status());
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for (name, value) in self.fields() {
            // Both are ours, and valid.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.append(name, value);
            }
        }
        headers.append(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// The headers that go with the status, spelled as in the RFCs.
    #[cfg(feature = "accept")]
    pub(crate) fn fields(self) -> Vec<(&'static str, Cow<'static, str>)> {
        match self {
            // A 426 names the protocol that is asked for (RFC 9110 §15.5.22) and its version (§4.4).
            Self::VersionUnsupported => vec![
                ("Connection", "Upgrade".into()),
                ("Upgrade", "websocket".into()),
                ("Sec-WebSocket-Version", "13".into()),
            ],
            Self::MethodNotGet => vec![("Allow", "GET".into())],
            Self::LimitReached { retry_after } => {
                let part_of_a_second = u64::from(retry_after.subsec_nanos() > 0);
                let seconds = retry_after.as_secs().saturating_add(part_of_a_second);
                vec![("Retry-After", seconds.to_string().into())]
            }
            _ => Vec::new(),
        }
    }

    /// The body of the answer: the error, and the hint on a line of its own.
    #[cfg(feature = "accept")]
    pub(crate) fn text(self) -> String {
        format!("{self}\n{}", self.hint()).trim_end().to_owned()
    }

    /// What usually causes it, for the person who reads the answer.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::MethodNotGet => "A WebSocket opens with a GET request.",
            Self::TargetInvalid => "A client does not send the part of a URL that follows `#`.",
            Self::HttpVersion => {
                "A proxy that speaks HTTP/1.0 to this server causes this; nginx needs \
                 `proxy_http_version 1.1`."
            }
            Self::HostMissing | Self::HostRepeated => "HTTP/1.1 requires the header, once.",
            Self::HostInvalid => {
                "It is a name or an address, with a port if that is not the usual one."
            }
            Self::UpgradeMissing | Self::ConnectionMissing => {
                "Either this is not a WebSocket client, or a proxy in between does not pass on \
                 `Connection: Upgrade` and `Upgrade: websocket`, which are hop-by-hop headers."
            }
            Self::VersionMissing | Self::VersionUnsupported => {
                "This server speaks version 13, the one of RFC 6455."
            }
            Self::KeyMissing | Self::KeyInvalid => {
                "The key is 16 random bytes in base64, new for each connection."
            }
            Self::ExtensionsMalformed => {
                "Extensions are separated by commas, their parameters by semicolons."
            }
            Self::SubprotocolsMalformed => {
                "A subprotocol is a token: letters, digits and some signs, but no space, quote or \
                 semicolon."
            }
            Self::SubprotocolUnsupported => {
                "A browser lists them in the second argument of `new WebSocket(url, protocols)`."
            }
            Self::OriginForbidden => {
                "The page belongs to another site, or was loaded without TLS. If it should be \
                 allowed, or if a proxy changes the Host header, the server can list its origin."
            }
            Self::ShuttingDown => "Another server, or this one a little later, will answer.",
            Self::LimitReached { .. } => "`Retry-After` tells when to try again.",
            Self::AddressDisputed => {
                "A proxy in between should replace `Forwarded` and `X-Forwarded-For`, or remove the \
                 one that it does not write."
            }
            Self::EarlyData => "A client sends its first frame after it has read the 101.",
            Self::NotUpgradable => "Frames follow the head of an opening handshake.",
            Self::HeadMalformed
            | Self::HeadTooLarge
            | Self::HeadTimedOut
            | Self::LimitIsZero
            | Self::LimitKeyMissing
            | Self::SubprotocolNotOffered
            | Self::AlreadyUpgraded
            | Self::StreamMissing
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
            Self::HeadMalformed => "the request is not HTTP",
            Self::HeadTooLarge => "the head of the request is too large",
            Self::HeadTimedOut => "the head of the request did not end in time",
            Self::TargetInvalid => "the request target has a fragment",
            Self::HttpVersion => "the opening handshake needs HTTP/1.1",
            Self::HostMissing => "the request has no Host header",
            Self::HostRepeated => "the request has more than one Host header",
            Self::HostInvalid => "the Host header is not a host with an optional port",
            Self::UpgradeMissing => "the request has no `Upgrade: websocket` header",
            Self::ConnectionMissing => "the request has no `Connection: Upgrade` header",
            Self::VersionMissing => "the request has no Sec-WebSocket-Version header",
            Self::VersionUnsupported => "the WebSocket version is not 13",
            Self::KeyMissing => "the request has no Sec-WebSocket-Key header",
            Self::KeyInvalid => "Sec-WebSocket-Key is not one key of 16 bytes in base64",
            Self::ExtensionsMalformed => "Sec-WebSocket-Extensions is malformed",
            Self::SubprotocolsMalformed => "Sec-WebSocket-Protocol is not a list of tokens",
            Self::SubprotocolUnsupported => "the client offers no subprotocol of this server",
            Self::SubprotocolNotOffered => "the chosen subprotocol was not offered",
            Self::OriginForbidden => "pages of this origin may not connect",
            Self::LimitReached { .. } => {
                "there are as many connections as a limit of the server allows"
            }
            Self::LimitIsZero => "a connection limit of 0 admits no connection",
            Self::LimitKeyMissing => {
                "a connection limit for each key needs the key of the connection"
            }
            Self::AddressDisputed => "what proxies tell of the client's address is contradictory",
            Self::EarlyData => "the client has sent something before the 101",
            Self::AlreadyUpgraded => "the request was upgraded before",
            Self::NotUpgradable => "the request has a body",
            Self::StreamMissing => "the HTTP server has no stream for the connection",
            Self::InvalidHeader => "a header for the 101 response is not valid HTTP",
            Self::Abandoned => "the request ended before the 101 response was sent",
            Self::TimedOut => "the 101 response could not be sent in time",
            Self::ShuttingDown => "the server shuts down",
        })
    }
}

impl Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{HandshakeError as E, *};

    const CASES: [(E, u16, &str); 32] = [
        (E::MethodNotGet, 405, "method_not_get"),
        (E::HeadMalformed, 400, "head_malformed"),
        (E::HeadTooLarge, 431, "head_too_large"),
        (E::HeadTimedOut, 408, "head_timed_out"),
        (E::TargetInvalid, 400, "target_invalid"),
        (E::HttpVersion, 400, "http_version"),
        (E::HostMissing, 400, "host_missing"),
        (E::HostRepeated, 400, "host_repeated"),
        (E::HostInvalid, 400, "host_invalid"),
        (E::UpgradeMissing, 400, "upgrade_missing"),
        (E::ConnectionMissing, 400, "connection_missing"),
        (E::VersionMissing, 400, "version_missing"),
        (E::VersionUnsupported, 426, "version_unsupported"),
        (E::KeyMissing, 400, "key_missing"),
        (E::KeyInvalid, 400, "key_invalid"),
        (E::ExtensionsMalformed, 400, "extensions_malformed"),
        (E::SubprotocolsMalformed, 400, "subprotocols_malformed"),
        (E::SubprotocolUnsupported, 400, "subprotocol_unsupported"),
        (E::SubprotocolNotOffered, 500, "subprotocol_not_offered"),
        (E::OriginForbidden, 403, "origin_forbidden"),
        (E::LimitReached { retry_after: Duration::ZERO }, 503, "limit_reached"),
        (E::LimitIsZero, 500, "limit_is_zero"),
        (E::LimitKeyMissing, 500, "limit_key_missing"),
        (E::AddressDisputed, 400, "address_disputed"),
        (E::EarlyData, 400, "early_data"),
        (E::AlreadyUpgraded, 500, "already_upgraded"),
        (E::NotUpgradable, 400, "not_upgradable"),
        (E::StreamMissing, 500, "stream_missing"),
        (E::InvalidHeader, 500, "invalid_header"),
        (E::Abandoned, 500, "abandoned"),
        (E::TimedOut, 500, "timed_out"),
        (E::ShuttingDown, 503, "shutting_down"),
    ];

    #[test]
    fn each_refusal_has_its_status_its_name_and_its_own_words() {
        for (error, status, name) in CASES {
            assert_eq!((error.status(), error.name()), (status, name));
        }
        let words: HashSet<_> = CASES.iter().map(|case| case.0.to_string()).collect();
        assert_eq!(words.len(), CASES.len());
    }

    #[cfg(feature = "accept")]
    #[test]
    fn the_answer_has_status_text_and_the_headers_of_the_status() {
        for (error, status, _) in CASES {
            let response = error.response();
            assert_eq!(response.status(), status, "{error}");
            let text = response.body();
            assert!(text.starts_with(&error.to_string()) && text.ends_with(error.hint()), "{text}");
            assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
            let lines = |name| {
                let values = response.headers().get_all(name).iter();
                values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
            };
            let is_426 = status == 426;
            let connection = if is_426 { &["Upgrade", "close"][..] } else { &["close"] };
            assert_eq!(lines("connection"), connection, "{error}");
            assert_eq!(lines("upgrade"), if is_426 { &["websocket"][..] } else { &[] }, "{error}");
            assert_eq!(lines("sec-websocket-version"), if is_426 { &["13"][..] } else { &[] });
            assert_eq!(lines("allow"), if status == 405 { &["GET"][..] } else { &[] }, "{error}");
        }
        for (millis, seconds) in [(0, "0"), (1, "1"), (1000, "1"), (1001, "2")] {
            let retry_after = Duration::from_millis(millis);
            let response = E::LimitReached { retry_after }.response();
            assert_eq!(response.headers()["retry-after"], seconds);
        }
    }

    #[test]
    fn a_hint_is_for_what_the_client_can_mend() {
        for (error, status, name) in CASES {
            let hint = error.hint();
            assert!(hint.is_empty() || hint.ends_with('.'), "{hint}");
            let is_ours = status == 500 || name.starts_with("head_");
            assert_eq!(hint.is_empty(), is_ours, "{error}");
        }
    }
}
