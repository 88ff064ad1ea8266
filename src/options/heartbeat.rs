//! The options for a heartbeat: pings that the peer has to answer ([RFC 6455 §5.5.2]).
//!
//! This file computes when pings are due. `connection/heartbeat.rs` matches pongs to pings and decides
//! when the peer is gone.
//!
//! [RFC 6455 §5.5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2

use std::time::Duration;

/// Shortest interval and timeout. Anything shorter would keep the connection busy with pings.
const SHORTEST: Duration = Duration::from_millis(10);

/// Longest time by which a ping is sent early so that it goes out with others. To wake threads for
/// each ping alone costs several times as much.
const MAX_GRID: Duration = Duration::from_millis(100);

/// Options for a heartbeat: pings by which a connection notices that its peer is gone.
///
/// A server pings with the defaults: see [`WebSocketOptions::heartbeat`](crate::WebSocketOptions::heartbeat).
///
/// The connection fails if the peer shows no sign of life for [`timeout`](Self::timeout) after a ping:
/// this side read no byte from the peer, and the peer took none of the bytes that waited for it. A long
/// message under way, in either direction, is therefore a sign of life. Bytes that fit into the
/// kernel's send buffer are not, since the kernel takes them for a dead peer, too. A peer that vanished
/// is noticed at the latest after `timeout` plus the longer of `interval` and `timeout`, counted from
/// its last byte: 45 s by default. While the handler leaves `read_ahead_size` (64 KiB) of the peer's
/// bytes unreceived, this side does not read, and the timeout does not run.
///
/// A limitation remains: a ping stands behind all bytes sent before it. Some of them may have left this
/// machine and wait in buffers of the peer or of a proxy. A peer that needs more than `timeout` to read
/// those, and sends nothing meanwhile, fails the connection although it reads. Raise `timeout` for such
/// peers.
///
/// ```
/// use std::time::Duration;
/// use tidewire::WebSocketOptions;
/// use tidewire::websocket::HeartbeatOptions;
///
/// let heartbeat = HeartbeatOptions::default().interval(Duration::from_secs(10));
/// let options = WebSocketOptions::default().heartbeat(heartbeat);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    /// Many proxies and routers forget a connection that was silent for 30 to 60 s. The next ping goes
    /// out only after the last one was answered, or its [`timeout`](Self::timeout) has passed.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(SHORTEST);
        self
    }

    /// Longest time without a sign of life after a ping. Default 20 s; at least 10 ms.
    ///
    /// Time in which this side does not read, because its handler is busy and
    /// [`read_ahead_size`](crate::WebSocketOptions::read_ahead_size) is used up, does not count.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(SHORTEST);
        self
    }

    /// Spreads out the pings of many connections: each is early by a random time of up to `percent` of
    /// the [`interval`](Self::interval). Default 10; more than 100 counts as 100.
    ///
    /// The first ping goes out at a random point in the second half of the interval. With 0 every ping,
    /// the first included, waits for the whole interval. Besides, pings that are due within a
    /// sixty-fourth of the interval, and within 100 ms, go out together, at the time of the first.
    #[must_use]
    pub fn jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(100);
        self
    }

    /// Time until the first ping. With jitter, `random` / 65 536 of half the interval is subtracted.
    pub(crate) fn until_first(&self, random: u16) -> Duration {
        let most = if self.jitter == 0 { Duration::ZERO } else { self.interval / 2 };
        self.interval.saturating_sub(part(most, random)).max(SHORTEST)
    }

    /// Time from one ping to the next. `random` / 65 536 of the jitter is subtracted.
    pub(crate) fn until_next(&self, random: u16) -> Duration {
        let most = self.interval / 100 * u32::from(self.jitter);
        self.interval.saturating_sub(part(most, random)).max(SHORTEST)
    }

    /// Pings that are due within this time of each other go out together.
    pub(crate) fn grid(&self) -> Duration {
        (self.interval / 64).min(MAX_GRID)
    }

    /// Longest time without a sign of life after a ping.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.timeout
    }
}

/// The share `parts` / 65 536 of `whole`.
fn part(whole: Duration, parts: u16) -> Duration {
    whole / (1 << 16) * u32::from(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// The times, in seconds, that an interval of a minute and random numbers in steps of a tenth give.
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
