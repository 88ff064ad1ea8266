//! The options of a room: bounds for the messages that wait for a slow member, and what is kept for those who come back.

use super::history::History;
use crate::connection::{Bounds, SlowConsumer};

/// Options of a room, for members that do not keep up with its messages and for those who come back.
///
/// ```
/// use tidewire::rooms::{RoomOptions, SlowConsumer};
///
/// let ticker = RoomOptions::default().slow_consumer(SlowConsumer::Conflate);
/// # let _ = ticker;
/// ```
#[derive(Clone, Debug)]
pub struct RoomOptions {
    bounds: Bounds,
    history: Option<History>,
}

impl RoomOptions {
    /// Messages that may wait for one member, in all its rooms together. Default 256; at least one.
    ///
    /// Messages wait once the peer has left
    /// [`send_buffer_size`](crate::WebSocketOptions::send_buffer_size) bytes untaken.
    #[must_use]
    pub fn max_messages(mut self, max: usize) -> Self {
        self.bounds.max_messages = max.max(1);
        self
    }

    /// Bytes that may wait for one member, in all its rooms together, uncompressed and without headers.
    /// Default 1 MiB.
    ///
    /// A longer message reaches only members that are not behind. All members share the memory of a waiting
    /// message, so it is held once, for any number of members.
    #[must_use]
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.bounds.max_bytes = max;
        self
    }

    /// The policy for a member that exceeds a limit. Default [`SlowConsumer::DropNewest`].
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.bounds.policy = policy;
        self
    }

    /// Keeps the latest messages, for [`join_from`](crate::Room::join_from). Default: none are kept.
    ///
    /// It is the room's, and set where the room is created; the options of one member have no say in it.
    #[must_use]
    pub fn history(mut self, history: impl Into<Option<History>>) -> Self {
        self.history = history.into();
        self
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(super) fn kept_history(&self) -> Option<History> {
        self.history
    }
}

impl Default for RoomOptions {
    fn default() -> Self {
        let policy = SlowConsumer::default();
        Self { bounds: Bounds { max_messages: 256, max_bytes: 1 << 20, policy }, history: None }
    }
}
