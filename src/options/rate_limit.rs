//! What a caller may set for the rate of what the peer sends.
//!
//! How the rate is measured is `proto/bucket.rs`; what counts, `connection/limiter.rs`.

/// How fast the peer may send, over the time that this side reads.
///
/// Each kind has a bucket: it holds `burst` at first, each frame takes one out, and `per_second` are
/// put back, up to `burst`. A peer that finds it empty fails the connection with 1008, after the
/// messages before have been received. What waited while this side did not read is not held against
/// the peer.
///
/// ```
/// use tidewire::{RateLimit, WebSocketOptions};
///
/// let limit = RateLimit::default().messages_per_second(20).message_burst(100);
/// let options = WebSocketOptions::default().rate_limit(limit);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RateLimit {
    pub(crate) messages: Rate,
    pub(crate) controls: Rate,
}

/// The size of a bucket, and how fast it fills.
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
    /// A message in fragments counts once for each: a frame costs the same, whatever it is part of.
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
    /// Those are pings, and pongs beyond the number of pings that this side has sent.
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
