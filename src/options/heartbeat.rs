//! What a caller may set for a heartbeat: pings that the peer has to answer ([RFC 6455 §5.5.2]).
//!
//! This file knows when pings are due. How one is told from another, and when the peer is given up, is
//! `connection/heartbeat.rs`.
//!
//! [RFC 6455 §5.5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2

use std::time::Duration;

/// Shorter intervals and timeouts would keep the connection busy with itself.
const SHORTEST: Duration = Duration::from_millis(10);

/// The most by which a ping is early so that it goes out with others: to wake threads for each costs
/// several times as much.
const MAX_GRID: Duration = Duration::from_millis(100);

/// How often the peer is asked whether it is there, and how long it may show no sign of life then.
///
/// A server asks with the defaults: see [`WebSocketOptions::heartbeat`](crate::WebSocketOptions::heartbeat).
///
/// A peer is given up if, for [`timeout`](Self::timeout) after a ping, no byte was read from it and it took
/// none of the bytes that waited for it. So one that is inside a long message, in either direction, is
/// not. Bytes that find room in the kernel's buffer are no sign of life: they would for a peer that is
/// gone, too. One that is gone without a word is noticed `timeout` and the longer of `interval` and
/// `timeout` after its last byte, at the latest: 45 s by default. While its handler leaves `read_ahead_size` (64 KiB) of
/// the peer's bytes unreceived, this side does not read, and does not give the peer up.
///
/// What remains: a ping stands behind all that was sent before it. A peer that needs more than `timeout` to
/// read what has left this machine (what is in its own buffers, or in those of a proxy), and that sends
/// nothing meanwhile, is given up although it reads. For such peers, raise `timeout`.
///
/// ```
/// use std::time::Duration;
/// use tidewire::{HeartbeatOptions, WebSocketOptions};
///
/// let heartbeat = HeartbeatOptions::default().interval(Duration::from_secs(10));
/// let options = WebSocketOptions::default().heartbeat(heartbeat);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HeartbeatOptions {
    interval: Duration,
    timeout: Duration,
    jitter: u8,
}

impl Default for HeartbeatOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(20), jitter: 10 }
    }
}

impl HeartbeatOptions {
    /// Time from one ping to the next. Default 25 s; at least 10 ms.
    ///
    /// Proxies and routers forget connections that are silent for 30 to 60 s and more. A ping waits
    /// for the answer to the one before, or for [`timeout`](Self::timeout).
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(SHORTEST);
        self
    }

    /// How long the peer may show no sign of life after a ping. Default 20 s; at least 10 ms.
    ///
    /// Time in which this side does not read, because its handler is busy and
    /// [`read_ahead_size`](crate::WebSocketOptions::read_ahead_size) is used up, does not count.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(SHORTEST);
        self
    }

    /// By how much a ping may be early, in percent of [`interval`](Self::interval), so that the
    /// pings of many connections spread out. Default 10; more than 100 counts as 100.
    ///
    /// The first ping goes out at any point of the second half of the interval. With 0 it waits for the whole
    /// of it, as all others do. Beyond that, pings that are due within a sixty-fourth of the interval, and
    /// within 100 ms, go out together, with the first of them.
    #[must_use]
    pub fn jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(100);
        self
    }

    /// Time until the first ping; with jitter, less `random` of 65 536 parts of half the interval.
    pub(crate) fn until_first(&self, random: u16) -> Duration {
        let most = if self.jitter == 0 { Duration::ZERO } else { self.interval / 2 };
        self.interval.saturating_sub(part(most, random)).max(SHORTEST)
    }

    /// Time from one ping to the next, less `random` of 65 536 parts of the jitter.
    pub(crate) fn until_next(&self, random: u16) -> Duration {
        let most = self.interval / 100 * u32::from(self.jitter);
        self.interval.saturating_sub(part(most, random)).max(SHORTEST)
    }

    /// Pings that are due within so much of each other go out together.
    pub(crate) fn grid(&self) -> Duration {
        (self.interval / 64).min(MAX_GRID)
    }

    /// How long the peer may show no sign of life.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.timeout
    }
}

/// So many of 65 536 parts.
fn part(whole: Duration, parts: u16) -> Duration {
    whole / (1 << 16) * u32::from(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What each tenth of the range of random numbers makes of a minute.
    fn schedule(jitter: u8, until: fn(&HeartbeatOptions, u16) -> Duration) -> Vec<u64> {
        let options = HeartbeatOptions::default().interval(MINUTE).jitter(jitter);
        let random = (0..=10_u16).map(|tenth| u16::MAX / 10 * tenth);
        random.map(|random| until(&options, random).as_secs()).collect()
    }

    #[test]
    fn the_first_ping_goes_out_at_any_point_of_the_second_half_of_the_interval() {
        let tenths = schedule(10, HeartbeatOptions::until_first);
        assert_eq!(tenths, [60, 57, 54, 51, 48, 45, 42, 39, 36, 33, 30]);
    }

    #[test]
    fn later_pings_are_early_by_up_to_the_jitter() {
        let cases = [
            (10, [60, 59, 58, 58, 57, 57, 56, 55, 55, 54, 54]),
            (50, [60, 57, 54, 51, 48, 45, 42, 39, 36, 33, 30]),
            (200, [60, 54, 48, 42, 36, 30, 24, 18, 12, 6, 0]),
        ];
        for (jitter, tenths) in cases {
            assert_eq!(schedule(jitter, HeartbeatOptions::until_next), tenths, "{jitter} %");
        }
    }

    #[test]
    fn without_jitter_each_ping_waits_for_the_whole_interval() {
        assert_eq!(schedule(0, HeartbeatOptions::until_first), [60; 11]);
        assert_eq!(schedule(0, HeartbeatOptions::until_next), [60; 11]);
    }

    #[test]
    fn times_of_any_length_are_taken_and_none_is_too_short_to_rest() {
        for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let options = HeartbeatOptions::default().interval(interval).timeout(interval);
            for jitter in [0, 1, 100, u8::MAX] {
                for random in [0, 1, u16::MAX] {
                    let next = options.jitter(jitter).until_next(random);
                    assert!(next >= SHORTEST && next <= interval.max(SHORTEST), "{next:?}");
                    assert!(options.jitter(jitter).until_first(random) <= interval.max(SHORTEST));
                }
            }
            assert!(options.answer_timeout() >= SHORTEST);
        }
    }
}
