//! Why a request does not become a WebSocket connection.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a request did not become a WebSocket connection.
///
/// Returned from a handler with `?`, it *is* the answer to the request: its
/// [status](Self::status), and a body that says what was wrong and what usually causes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// 405: the method is not GET (§4.2.1).
    MethodNotGet,
    /// 400: what was sent is no HTTP. Seen by `accept` only.
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
    /// 400: a `Host` that is empty, or no host with an optional port (RFC 9110 §4.2.1, RFC 9112 §3.2).
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
    /// 400: `Sec-WebSocket-Extensions` is no list of extensions (§9.1).
    ExtensionsMalformed,
    /// 400: `Sec-WebSocket-Protocol` is no list of tokens (§4.1).
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
    /// 500: a `ConnectionLimit` of 0, which admits nobody.
    LimitIsZero,
    /// 400: a `ConnectionLimit` for each address has no address to count, because the headers in which
    /// trusted proxies tell it contradict each other, or are malformed.
    AddressDisputed,
    /// 400: the client has sent something before the 101, which it must not (§4.1), and would have to
    /// wait for a `ConnectionLimit`.
    EarlyData,
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
    /// 503: the server shuts down, or an executor that `set_spawner` has brought takes no more tasks.
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
            | Self::SubprotocolNotOffered
            | Self::AlreadyUpgraded
            | Self::InvalidHeader
            | Self::Abandoned
            | Self::TimedOut => 500,
        }
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
            Self::InvalidHeader => "invalid_header",
            Self::Abandoned => "abandoned",
            Self::TimedOut => "timed_out",
            Self::LimitReached { .. } => "limit_reached",
            Self::LimitIsZero => "limit_is_zero",
            Self::AddressDisputed => "address_disputed",
            Self::EarlyData => "early_data",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// What usually causes it, for whoever reads the answer.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::MethodNotGet => "A WebSocket opens with a GET request.",
            Self::TargetInvalid => "What follows `#` in a URL is not sent.",
            Self::HttpVersion => {
                "A proxy that speaks HTTP/1.0 to this server causes this; nginx needs \
                 `proxy_http_version 1.1`."
            }
            Self::HostMissing | Self::HostRepeated => "HTTP/1.1 requires the header, once.",
            Self::HostInvalid => {
                "It is a name or an address, with a port if that is not the usual one."
            }
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
            Self::NotUpgradable => "What follows the head of an opening handshake is frames.",
            Self::HeadMalformed
            | Self::HeadTooLarge
            | Self::HeadTimedOut
            | Self::LimitIsZero
            | Self::SubprotocolNotOffered
            | Self::AlreadyUpgraded
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
            Self::HeadMalformed => "the request is no HTTP",
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
            Self::LimitReached { .. } => "the server has as many connections as it may have",
            Self::LimitIsZero => "a connection limit of 0 admits nobody",
            Self::AddressDisputed => "what proxies tell of the client's address is contradictory",
            Self::EarlyData => "the client has sent something before the 101",
            Self::AlreadyUpgraded => "the request was upgraded before",
            Self::NotUpgradable => "the request has a body",
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

    const CASES: [(E, u16, &str); 30] = [
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
        (E::AddressDisputed, 400, "address_disputed"),
        (E::EarlyData, 400, "early_data"),
        (E::AlreadyUpgraded, 500, "already_upgraded"),
        (E::NotUpgradable, 400, "not_upgradable"),
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
