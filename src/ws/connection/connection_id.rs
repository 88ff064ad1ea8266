//! What a connection is called.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a connection: another one for each that this process has opened, in the order in
/// which they were.
///
/// ```
/// # fn run(ws: &tidewire::WebSocket) {
/// println!("connection {} is open", ws.id());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

impl From<ConnectionId> for u64 {
    fn from(id: ConnectionId) -> Self {
        id.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
