//! A heartbeat: pings, what counts as an answer, and when the peer is given up ([RFC 6455 §5.5.2],
//! [§5.5.3]).
//!
//! Instants and random numbers come in as arguments; what is sent, and what the end of the
//! connection is, goes out to `core/watch`.
//!
//! [RFC 6455 §5.5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2
//! [§5.5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use crate::runtime;
use crate::ws::heartbeat::HeartbeatOptions;

/// A deadline that is noticed so much later was not watched, and the peer perhaps not read.
const LATE: Duration = Duration::from_secs(1);

/// Pings of the caller that are remembered while the heartbeat's own is not answered. A peer that
/// answers some later one only does so within a round trip, and nobody sends more in one.
const PINGS_KEPT: usize = 64;

/// What only the pong of one ping has.
pub(super) type Token = [u8; 8];

#[derive(Debug)]
pub(super) struct Heartbeat {
    options: HeartbeatOptions,
    /// When the next ping goes out, if the last is answered.
    due: Instant,
    asked: Option<Asked>,
}

/// A ping without an answer.
#[derive(Debug)]
struct Asked {
    token: Token,
    at: Instant,
    until: Instant,
    /// When to look whether it is answered.
    look_at: Instant,
    /// What had passed when it was queued, or when it was last looked at.
    traffic: Traffic,
    /// Was there a time since in which this side did not read?
    is_excused: bool,
    /// Was there a time since in which the ping waited for what was queued before it?
    was_held: bool,
    /// Was the deadline noticed too late once?
    was_late: bool,
    /// Pings that the caller has sent since.
    later: VecDeque<u64>,
}

/// Bytes that have passed over the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) read: u64,
    pub(super) queued: u64,
    pub(super) written: u64,
}

/// What a heartbeat wants done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Beat {
    Nothing,
    /// Send a ping.
    Ping(Token),
    /// The peer is gone.
    Fail,
}

/// What the peer has answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// The ping that was sent at this time.
    Heartbeat(Instant),
    /// A ping of the caller, and with it those before (§5.5.3).
    Later,
}

impl Heartbeat {
    pub(super) fn new(options: HeartbeatOptions, now: Instant, random: u16) -> Self {
        let due = aligned(&options, now, options.until_first(random));
        Self { options, due, asked: None }
    }

    /// It is time for what [`next`](Self::next) said; `token` and `random` are for a new ping.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        traffic: Traffic,
        token: Token,
        random: u16,
    ) -> Beat {
        let timeout = self.options.answer_timeout();
        let Some(asked) = &mut self.asked else {
            if now < self.due {
                return Beat::Nothing;
            }
            self.due = aligned(&self.options, now, self.options.until_next(random));
            let until = runtime::later(now, timeout);
            // At the time of the next ping nearly every peer has answered, and nobody has to look
            // before.
            let look_at = until.min(self.due);
            self.asked = Some(Asked::new(token, now, until, look_at, traffic));
            return Beat::Ping(token);
        };
        if now < asked.until {
            asked.look_at = asked.until;
            return Beat::Nothing;
        }
        if self.options.does_traffic_count() && traffic.read > asked.traffic.read {
            self.asked = None;
            return Beat::Nothing;
        }
        if !asked.may_go_on(now, traffic) {
            return Beat::Fail;
        }
        asked.until = runtime::later(now, timeout);
        asked.look_at = asked.until;
        Beat::Nothing
    }

    /// A pong has arrived; `None` unless it is the answer to the last ping.
    ///
    /// A pong of another ping does not count: it may have been on its way for long. But a peer may
    /// answer only the latest of several pings, so those that the caller has sent since count too.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<Answer> {
        let asked = self.asked.take_if(|asked| asked.is_answered_by(payload))?;
        let is_own = payload == asked.token;
        Some(if is_own { Answer::Heartbeat(asked.at) } else { Answer::Later })
    }

    /// The caller sends a ping of its own.
    pub(super) fn note_ping(&mut self, payload: &[u8]) {
        let Some(asked) = &mut self.asked else { return };
        if asked.later.len() == PINGS_KEPT {
            asked.later.pop_front();
        }
        asked.later.push_back(fingerprint(payload));
    }

    /// The connection parks: takes note of whether the ping has gone, and may be answered.
    pub(super) fn take_note(&mut self, is_reading: bool, written: u64) {
        if let Some(asked) = &mut self.asked {
            asked.is_excused |= !is_reading;
            asked.was_held |= written <= asked.traffic.queued;
        }
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Instant {
        self.asked.as_ref().map_or(self.due, |asked| asked.look_at)
    }
}

impl Asked {
    fn new(token: Token, at: Instant, until: Instant, look_at: Instant, traffic: Traffic) -> Self {
        Self {
            token,
            at,
            until,
            look_at,
            traffic,
            is_excused: false,
            was_held: false,
            was_late: false,
            later: VecDeque::new(),
        }
    }

    fn is_answered_by(&self, payload: &[u8]) -> bool {
        payload == self.token || self.later.contains(&fingerprint(payload))
    }

    /// The time for an answer is over: does the peer get more of it?
    fn may_go_on(&mut self, now: Instant, traffic: Traffic) -> bool {
        let is_late = now.saturating_duration_since(self.until) > LATE;
        let is_first_late = is_late && !std::mem::replace(&mut self.was_late, is_late);
        // A peer that takes what is before the ping is there. One that takes nothing is not.
        let has_taken = traffic.written > self.traffic.written;
        self.traffic.written = traffic.written;
        let was_held = std::mem::take(&mut self.was_held) && has_taken;
        std::mem::take(&mut self.is_excused) || was_held || is_first_late
    }
}

fn aligned(options: &HeartbeatOptions, now: Instant, wait: Duration) -> Instant {
    runtime::align(runtime::later(now, wait), options.grid())
}

/// Tells payloads apart, except for a peer that takes pains; such a one is alive.
fn fingerprint(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = *b"<token1>";
    const NOTHING: Traffic = Traffic { read: 0, queued: 0, written: 10 };
    const SECOND: Duration = Duration::from_secs(1);

    /// A heartbeat of one ping every ten seconds, and the first of them at `now`.
    struct Pinged {
        heartbeat: Heartbeat,
        start: Instant,
    }

    impl Pinged {
        fn new(change: fn(HeartbeatOptions) -> HeartbeatOptions) -> Self {
            Self::with(change, NOTHING)
        }

        fn with(change: fn(HeartbeatOptions) -> HeartbeatOptions, traffic: Traffic) -> Self {
            let start = Instant::now();
            let options = HeartbeatOptions::default().interval(10 * SECOND).timeout(4 * SECOND);
            let mut heartbeat = Heartbeat::new(change(options.jitter(100)), start, 0);
            assert!(heartbeat.next() <= start);
            assert_eq!(heartbeat.beat(start, traffic, TOKEN, 0), Beat::Ping(TOKEN));
            Self { heartbeat, start }
        }

        /// What happens after so many seconds.
        fn beat(&mut self, seconds: u32, traffic: Traffic) -> Beat {
            self.heartbeat.beat(self.start + seconds * SECOND, traffic, *b"<token2>", 0)
        }

        /// When something is to happen, in seconds; pings may be early, to go out with others.
        fn next(&self) -> u64 {
            (self.heartbeat.next() - self.start + SECOND / 10).as_secs()
        }
    }

    fn unchanged(options: HeartbeatOptions) -> HeartbeatOptions {
        options
    }

    #[test]
    fn a_peer_that_does_not_answer_in_time_is_given_up() {
        let mut pinged = Pinged::new(unchanged);
        assert_eq!(pinged.next(), 4);
        assert_eq!(pinged.beat(3, NOTHING), Beat::Nothing);
        assert_eq!(pinged.next(), 4);
        assert_eq!(pinged.beat(4, NOTHING), Beat::Fail);
    }

    #[test]
    fn a_peer_that_answers_is_asked_again_after_the_interval() {
        let mut pinged = Pinged::new(unchanged);
        assert_eq!(pinged.heartbeat.answer(&TOKEN), Some(Answer::Heartbeat(pinged.start)));
        assert_eq!(pinged.next(), 10);
        assert_eq!(pinged.beat(9, NOTHING), Beat::Nothing);
        assert_eq!(pinged.beat(10, NOTHING), Beat::Ping(*b"<token2>"));
    }

    #[test]
    fn the_next_ping_waits_for_the_answer_to_the_last() {
        let mut pinged = Pinged::new(|options| options.timeout(25 * SECOND));
        assert_eq!(pinged.next(), 10);
        assert_eq!(pinged.beat(10, NOTHING), Beat::Nothing);
        assert_eq!(pinged.next(), 25);
        assert!(pinged.heartbeat.answer(&TOKEN).is_some());
        assert_eq!(pinged.next(), 10);
        assert_eq!(pinged.beat(12, NOTHING), Beat::Ping(*b"<token2>"));
    }

    #[test]
    fn a_pong_of_another_ping_is_no_answer() {
        let mut pinged = Pinged::new(unchanged);
        for payload in [&b""[..], b"<token0>", b"<token1>x", b"<token1"] {
            assert_eq!(pinged.heartbeat.answer(payload), None);
        }
        assert!(pinged.heartbeat.answer(&TOKEN).is_some());
        assert_eq!(pinged.heartbeat.answer(&TOKEN), None, "a second time");
        assert_eq!(pinged.beat(10, NOTHING), Beat::Ping(*b"<token2>"));
        assert_eq!(pinged.heartbeat.answer(&TOKEN), None, "too late");
        assert_eq!(pinged.beat(14, NOTHING), Beat::Fail);
    }

    #[test]
    fn the_answer_to_a_later_ping_of_the_caller_is_one() {
        let mut pinged = Pinged::new(unchanged);
        for number in 0..100_u8 {
            pinged.heartbeat.note_ping(&[number]);
            assert!(pinged.heartbeat.asked.as_ref().unwrap().later.len() <= PINGS_KEPT);
        }
        assert_eq!(pinged.heartbeat.answer(&[100]), None);
        assert_eq!(pinged.heartbeat.answer(&[99]), Some(Answer::Later));
        pinged.heartbeat.note_ping(b"before the next");
        assert_eq!(pinged.beat(10, NOTHING), Beat::Ping(*b"<token2>"));
        assert_eq!(pinged.heartbeat.answer(b"before the next"), None);
    }

    #[test]
    fn what_the_peer_sends_counts_if_it_is_to() {
        let traffic = Traffic { read: 1, ..NOTHING };
        assert_eq!(Pinged::new(unchanged).beat(4, traffic), Beat::Fail);
        let mut pinged = Pinged::new(|options| options.traffic_counts(true));
        assert_eq!(pinged.beat(4, traffic), Beat::Nothing);
        assert_eq!(pinged.beat(10, traffic), Beat::Ping(*b"<token2>"));
        assert_eq!(pinged.beat(14, traffic), Beat::Fail, "nothing since");
    }

    #[test]
    fn time_in_which_this_side_does_not_read_does_not_count() {
        let mut pinged = Pinged::new(unchanged);
        for seconds in [4, 8, 12] {
            pinged.heartbeat.take_note(false, NOTHING.written);
            pinged.heartbeat.take_note(true, NOTHING.written);
            assert_eq!(pinged.beat(seconds, NOTHING), Beat::Nothing);
            assert_eq!(pinged.next(), u64::from(seconds) + 4);
        }
        pinged.heartbeat.take_note(true, NOTHING.written);
        assert_eq!(pinged.beat(16, NOTHING), Beat::Fail);
    }

    #[test]
    fn a_peer_that_takes_what_is_before_the_ping_has_time() {
        let traffic = |written| Traffic { read: 0, queued: 100, written };
        let mut pinged = Pinged::with(unchanged, traffic(10));
        pinged.heartbeat.take_note(true, 10);
        assert_eq!(pinged.beat(4, traffic(50)), Beat::Nothing);
        pinged.heartbeat.take_note(true, 100);
        assert_eq!(pinged.beat(8, traffic(150)), Beat::Nothing, "it left before the deadline");
        pinged.heartbeat.take_note(true, 150);
        assert_eq!(pinged.beat(12, traffic(200)), Beat::Fail);

        let mut pinged = Pinged::with(unchanged, traffic(10));
        pinged.heartbeat.take_note(true, 10);
        assert_eq!(pinged.beat(4, traffic(10)), Beat::Fail, "it takes nothing");
    }

    #[test]
    fn a_deadline_that_nobody_has_watched_is_given_once_more() {
        let mut pinged = Pinged::new(unchanged);
        assert_eq!(pinged.beat(60, NOTHING), Beat::Nothing);
        assert_eq!(pinged.next(), 64);
        assert_eq!(pinged.beat(120, NOTHING), Beat::Fail);
    }

    #[test]
    fn pings_that_are_due_at_about_the_same_time_go_out_together() {
        let (now, options) = (Instant::now(), HeartbeatOptions::default());
        let due = |random| Heartbeat::new(options, now, random).next();
        let mut dues: Vec<Instant> = (0..=u16::MAX).map(due).collect();
        dues.dedup();
        // As many as there are tenths of a second in 25 s.
        assert!((250..=252).contains(&dues.len()), "{}", dues.len());
    }

    #[test]
    fn pings_of_connections_that_are_opened_together_spread_out() {
        use crate::ws::connection::random;

        let (now, options) = (Instant::now(), HeartbeatOptions::default());
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let due = Heartbeat::new(options, now, random::number()).next();
            let until = due.saturating_duration_since(now).as_millis();
            tenths[usize::try_from(until / 2500).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (40..250).contains(count)), "{tenths:?}");
    }
}
