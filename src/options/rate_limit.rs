//! The options for a limit on the rate of the peer's frames.
//!
//! `proto/token_bucket.rs` measures the rate; `connection/read.rs` counts the frames.

/// A limit on the rate at which the peer may send.
///
/// There is a token bucket for messages and one for control frames. A bucket starts with `burst`
/// tokens; each frame takes one, and `per_second` tokens come back each second, up to `burst`. A frame
/// that finds the bucket empty fails the connection with 1008, after the messages before it have been
/// received. Frames that had to wait because this side did not read do not count against the peer.
///
/// ```
/// use tidewire::WebSocketOptions;
/// use tidewire::limits::RateLimit;
///
/// let limit = RateLimit::default().messages_per_second(20).message_burst(100);
/// let options = WebSocketOptions::default().rate_limit(limit);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    pub(crate) messages: Rate,
    pub(crate) controls: Rate,
}

/// The size of a token bucket, and the tokens that come back each second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            messages: Rate { per_second: 100, burst: 200 },
            controls: Rate { per_second: 10, burst: 20 },
        }
    }
}

impl RateLimit {
    /// Messages each second. Default 100; at least one.
    ///
    /// Each fragment of a message counts as one, since every frame costs the same work.
    #[must_use]
    pub fn messages_per_second(mut self, count: u32) -> Self {
        self.messages.per_second = count.max(1);
        self
    }

    /// Messages that may come at once, after a pause. Default 200; at least one.
    #[must_use]
    pub fn message_burst(mut self, count: u32) -> Self {
        self.messages.burst = count.max(1);
        self
    }

    /// Control frames each second. Default 10; at least one.
    ///
    /// Pings count, and so do pongs beyond the number of pings that this side has sent.
    #[must_use]
    pub fn control_frames_per_second(mut self, count: u32) -> Self {
        self.controls.per_second = count.max(1);
        self
    }

    /// Control frames that may come at once, after a pause. Default 20; at least one.
    #[must_use]
    pub fn control_frame_burst(mut self, count: u32) -> Self {
        self.controls.burst = count.max(1);
        self
    }
}
