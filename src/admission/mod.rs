//! Who gets in: limits on open WebSocket connections.
//!
//! | file | holds |
//! | --- | --- |
//! | `limit` | [`ConnectionLimit`], as a server's author sees it |
//! | `pool` | the permits of a limit, for all clients or for each address |
//! | `admit` | how a request gets the permits of all its limits, or none |
//!
//! When a request asks, and for how long it holds its permits, is `upgrade/`.

mod admit;
mod limit;
mod pool;

pub(crate) use self::admit::{Admission, ServerLimits, admit};
pub use self::limit::ConnectionLimit;

/// Where a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientAddr {
    Known(std::net::IpAddr),
    /// It has none, or a proxy keeps it to itself. All such clients count as one.
    Unknown,
    /// The client may have a hand in what is told. Whatever it is counted as, it would have one more.
    Disputed,
}
