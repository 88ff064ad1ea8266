//! How fast the peer may send: what counts, and against which limit.
//!
//! The clock is read once for all that was read from the stream together, not for each frame.

use std::time::Instant;

use crate::ws::proto::{Bucket, ProtocolError};
use crate::ws::rate_limit::{Rate, RateLimit};

#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    messages: Bucket,
    controls: Bucket,
    /// Was the stream empty since the last time? If not, what comes now may be as old as that.
    has_caught_up: bool,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        let bucket = |rate: Rate| Bucket::new(rate.per_second, rate.burst, now);
        let (messages, controls) = (bucket(limit.messages), bucket(limit.controls));
        Self { limit, messages, controls, has_caught_up: true }
    }

    /// Something was read: it may be as much as time allows.
    pub(super) fn refill(&mut self, now: Instant) {
        let overflow = !std::mem::take(&mut self.has_caught_up);
        self.messages.refill(now, overflow);
        self.controls.refill(now, overflow);
    }

    /// There is nothing to read: what comes next was not kept waiting.
    pub(super) fn catch_up(&mut self) {
        self.has_caught_up = true;
    }

    /// Messages that the peer may send now.
    pub(super) fn messages_left(&self) -> usize {
        self.messages.available()
    }

    /// Counts a run of messages, which are no more than were left.
    pub(super) fn take_run(&mut self, messages: usize) {
        self.messages.take_many(messages);
    }

    /// Counts a data frame.
    pub(super) fn take_message(&mut self) -> Result<(), ProtocolError> {
        let per_second = self.limit.messages.per_second;
        let is_allowed = self.messages.take();
        is_allowed.then_some(()).ok_or(ProtocolError::MessageRateExceeded { per_second })
    }

    /// Counts a control frame.
    pub(super) fn take_control(&mut self) -> Result<(), ProtocolError> {
        let per_second = self.limit.controls.per_second;
        let is_allowed = self.controls.take();
        is_allowed.then_some(()).ok_or(ProtocolError::ControlRateExceeded { per_second })
    }
}
