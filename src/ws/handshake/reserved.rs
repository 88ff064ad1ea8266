//! Headers of the 101 that are the handshake's own ([RFC 6455 §4.2.2]).
//!
//! [RFC 6455 §4.2.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2

/// The handshake's own headers, and those that a 101 must not have (RFC 9110 §15.2).
pub(crate) const RESERVED: [&str; 10] = [
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "content-length",
    "content-type",
    "transfer-encoding",
];

/// Whether this is a header that neither options nor a handler can add to the 101.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}
