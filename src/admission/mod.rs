//! Limits on open WebSocket connections.
//!
//! | file | holds |
//! | --- | --- |
//! | `limit` | [`ConnectionLimit`], the public type |
//! | `pool` | the permits of a limit, for all clients, for each address or for each key |
//! | `admit` | the admission of a request by all its limits, or by none |
//!
//! `upgrade/` decides when a request asks for permits, and when it gives them back.

mod admit;
mod limit;
mod pool;

use std::net::IpAddr;
use std::sync::Arc;

#[cfg(feature = "server")]
pub(crate) use self::admit::ServerLimits;
pub(crate) use self::admit::{Admission, admit};
pub use self::limit::ConnectionLimit;

/// The address of a client, if it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientAddr {
    Known(IpAddr),
    /// It has no address, or a proxy does not tell it. All such clients count as one.
    Unknown,
    /// The client may have forged the address that proxies report. To count it under any address would give it
    /// one more permit.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "a server reads what proxies report")
    )]
    Disputed,
}

/// The key that a connection has for limits that count keys.
#[derive(Clone, Debug, Default)]
pub(crate) enum LimitKey {
    /// The handler has not said one.
    #[default]
    Missing,
    Known(Arc<str>),
    /// The connection is opened to refuse a client, which has no key. Limits that count keys do not count it.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "a server refuses clients in close frames")
    )]
    Exempt,
}
