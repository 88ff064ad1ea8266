//! How much may wait for a slow member.

use crate::connection::{Bounds, SlowConsumer};

/// How a room treats members that do not keep up.
///
/// ```
/// use tidewire::{RoomOptions, SlowConsumer};
///
/// let ticker = RoomOptions::default().slow_consumer(SlowConsumer::Conflate);
/// # let _ = ticker;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RoomOptions {
    bounds: Bounds,
}

impl RoomOptions {
    /// Messages that may wait for one member, in all its rooms together. Default 256; at least one.
    ///
    /// They wait once the connection has [`send_buffer_size`](crate::WebSocketOptions::send_buffer_size)
    /// bytes that its peer has not taken.
    #[must_use]
    pub fn max_messages(mut self, max: usize) -> Self {
        self.bounds.max_messages = max.max(1);
        self
    }

    /// Bytes that may wait for one member, in all its rooms together, uncompressed and without headers.
    /// Default 1 MiB.
    ///
    /// A longer message reaches only members for whom nothing has to wait. What waits is shared with the
    /// other members, so that the memory of a message is taken once, however many wait for it.
    #[must_use]
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.bounds.max_bytes = max;
        self
    }

    /// What to do beyond that. Default [`SlowConsumer::DropNewest`].
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.bounds.policy = policy;
        self
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }
}

impl Default for RoomOptions {
    fn default() -> Self {
        let policy = SlowConsumer::default();
        Self { bounds: Bounds { max_messages: 256, max_bytes: 1 << 20, policy } }
    }
}
