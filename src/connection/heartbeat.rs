//! A heartbeat: pings, and when the peer is given up ([RFC 6455 §5.5.2], [§5.5.3]).
//!
//! One rule: a peer is given up that, for `timeout` after a ping, has neither sent a byte nor made room
//! for bytes that wait for it. A pong alone would ask too much: there is no place for one inside a long
//! frame ([§5.4]), and a peer that reads slowly finds our ping behind all that was sent before.
//!
//! Instants and random numbers come in as arguments; what is sent, and what the end of the
//! connection is, goes out to `timers`.
//!
//! [§5.4]: https://www.rfc-editor.org/rfc/rfc6455#section-5.4
//! [RFC 6455 §5.5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.2
//! [§5.5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3

use std::time::{Duration, Instant};

use crate::options::heartbeat::HeartbeatOptions;
use crate::runtime;

/// A deadline that is noticed so much later was not watched, and the peer perhaps not read.
const LATE: Duration = Duration::from_secs(1);

/// The payload of one ping, by which its pong is known. It begins with the tag of the connection.
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
    /// The signs of life before it.
    signs: Signs,
    /// Whether this side has not read at some time since.
    is_excused: bool,
    /// Whether the deadline was noticed too late once.
    was_late: bool,
}

/// Counters that only a live peer can have moved. If they are the same as before, there is no sign of life.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Signs {
    /// Bytes read from it.
    pub(super) read: u64,
    /// How often the stream has taken bytes that it had refused before: the peer has made room. A stream
    /// that has room, as the kernel's buffer has, takes bytes for a peer that is gone, too.
    pub(super) room_made: u64,
}

/// The action that a heartbeat asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Beat {
    Nothing,
    /// Send a ping.
    Ping(Token),
    /// The peer is gone.
    Fail,
}

impl Heartbeat {
    pub(super) fn new(options: HeartbeatOptions, now: Instant, random: u16) -> Self {
        let due = aligned(&options, now, options.until_first(random));
        Self { options, due, asked: None }
    }

    /// It is time for what [`next`](Self::next) said; `token` and `random` are for a new ping.
    pub(super) fn beat(&mut self, now: Instant, signs: Signs, token: Token, random: u16) -> Beat {
        let until = runtime::later(now, self.options.answer_timeout());
        if let Some(asked) = &mut self.asked {
            // The peer still has time to show a sign of life.
            if now < asked.until {
                return Beat::Nothing;
            }
            // No byte came and none went. It may be our own fault, and the peer has the same time once more.
            if signs == asked.signs {
                if !asked.may_go_on(now) {
                    return Beat::Fail;
                }
                asked.until = until;
                return Beat::Nothing;
            }
            // The pong may never come: a peer may answer the latest of several pings only (§5.5.3).
            self.asked = None;
        }
        if now < self.due {
            return Beat::Nothing;
        }
        self.due = aligned(&self.options, now, self.options.until_next(random));
        let (is_excused, was_late) = (false, false);
        self.asked = Some(Asked { token, at: now, until, signs, is_excused, was_late });
        Beat::Ping(token)
    }

    /// A pong has arrived; when its ping was sent, if that was the last.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<Instant> {
        self.asked.take_if(|asked| payload == asked.token).map(|asked| asked.at)
    }

    /// The connection parks: takes note of whether the peer is read.
    pub(super) fn record_activity(&mut self, is_reading: bool) {
        if let Some(asked) = &mut self.asked {
            asked.is_excused |= !is_reading;
        }
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Instant {
        self.asked.as_ref().map_or(self.due, |asked| asked.until)
    }
}

impl Asked {
    /// The time for a sign of life is over: does the peer get more of it?
    fn may_go_on(&mut self, now: Instant) -> bool {
        let is_late = now.saturating_duration_since(self.until) > LATE;
        let is_first_late = is_late && !std::mem::replace(&mut self.was_late, is_late);
        std::mem::take(&mut self.is_excused) || is_first_late
    }
}

fn aligned(options: &HeartbeatOptions, now: Instant, wait: Duration) -> Instant {
    runtime::align(runtime::later(now, wait), options.grid())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = *b"<token1>";
    const NOTHING: Signs = Signs { read: 0, room_made: 10 };
    const SECOND: Duration = Duration::from_secs(1);

    /// A heartbeat of one ping every ten seconds, and the first of them at `now`.
    struct Pinged {
        heartbeat: Heartbeat,
        start: Instant,
    }

    impl Pinged {
        fn new() -> Self {
            Self::with(4 * SECOND)
        }

        fn with(timeout: Duration) -> Self {
            let before = Instant::now();
            let start = before + 10 * SECOND;
            let options = HeartbeatOptions::default().interval(10 * SECOND).timeout(timeout);
            let mut heartbeat = Heartbeat::new(options.jitter(100), before, 0);
            assert!(heartbeat.next() <= start);
            assert_eq!(heartbeat.beat(start, NOTHING, TOKEN, 0), Beat::Ping(TOKEN));
            Self { heartbeat, start }
        }

        /// What happens after so many seconds.
        fn beat(&mut self, seconds: u32, signs: Signs) -> Beat {
            self.heartbeat.beat(self.start + seconds * SECOND, signs, *b"<token2>", 0)
        }

        /// When something is to happen, in seconds; pings may be early, to go out with others.
        fn next(&self) -> u64 {
            (self.heartbeat.next() - self.start + SECOND / 10).as_secs()
        }
    }

    #[test]
    fn a_peer_without_a_sign_of_life_is_given_up_in_time() {
        let mut pinged = Pinged::new();
        assert_eq!(pinged.next(), 4);
        assert_eq!(pinged.beat(3, NOTHING), Beat::Nothing);
        assert_eq!(pinged.next(), 4);
        assert_eq!(pinged.beat(4, NOTHING), Beat::Fail);
    }

    #[test]
    fn a_peer_that_answers_is_asked_again_after_the_interval() {
        let mut pinged = Pinged::new();
        assert_eq!(pinged.heartbeat.answer(&TOKEN), Some(pinged.start));
        assert_eq!(pinged.next(), 10);
        assert_eq!(pinged.beat(9, NOTHING), Beat::Nothing);
        assert_eq!(pinged.beat(10, NOTHING), Beat::Ping(*b"<token2>"));
    }

    #[test]
    fn the_next_ping_waits_for_the_answer_to_the_last() {
        let mut pinged = Pinged::with(25 * SECOND);
        assert_eq!(pinged.next(), 25);
        assert_eq!(pinged.beat(10, NOTHING), Beat::Nothing);
        assert!(pinged.heartbeat.answer(&TOKEN).is_some());
        assert_eq!(pinged.next(), 10);
        assert_eq!(pinged.beat(12, NOTHING), Beat::Ping(*b"<token2>"));
    }

    #[test]
    fn only_the_pong_of_the_last_ping_is_its_answer() {
        let mut pinged = Pinged::new();
        for payload in [&b""[..], b"<token0>", b"<token1>x", b"<token1"] {
            assert_eq!(pinged.heartbeat.answer(payload), None);
        }
        assert!(pinged.heartbeat.answer(&TOKEN).is_some());
        assert_eq!(pinged.heartbeat.answer(&TOKEN), None, "a second time");
        assert_eq!(pinged.beat(10, NOTHING), Beat::Ping(*b"<token2>"));
        assert_eq!(pinged.heartbeat.answer(&TOKEN), None, "too late");
    }

    #[test]
    fn a_peer_that_sends_or_makes_room_is_asked_again_instead_of_given_up() {
        for signs in [Signs { read: 1, ..NOTHING }, Signs { room_made: 11, ..NOTHING }] {
            let mut pinged = Pinged::new();
            assert_eq!(pinged.beat(4, signs), Beat::Nothing);
            assert_eq!(pinged.next(), 10);
            assert_eq!(pinged.beat(10, signs), Beat::Ping(*b"<token2>"));
            assert_eq!(pinged.beat(14, signs), Beat::Fail, "no sign since");

            let mut pinged = Pinged::with(15 * SECOND);
            assert_eq!(pinged.beat(15, signs), Beat::Ping(*b"<token2>"), "it is due already");
            assert_eq!(pinged.beat(30, signs), Beat::Fail, "no sign since");
        }
    }

    #[test]
    fn time_in_which_this_side_does_not_read_does_not_count() {
        let mut pinged = Pinged::new();
        for seconds in [4, 8, 12] {
            pinged.heartbeat.record_activity(false);
            pinged.heartbeat.record_activity(true);
            assert_eq!(pinged.beat(seconds, NOTHING), Beat::Nothing);
            assert_eq!(pinged.next(), u64::from(seconds) + 4);
        }
        pinged.heartbeat.record_activity(true);
        assert_eq!(pinged.beat(16, NOTHING), Beat::Fail);
    }

    #[test]
    fn a_deadline_that_nobody_has_watched_is_given_once_more() {
        let mut pinged = Pinged::new();
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
        // As many as there are tenths of a second in half of 25 s.
        assert!((125..=127).contains(&dues.len()), "{}", dues.len());
    }

    #[test]
    fn pings_of_connections_that_are_opened_together_spread_out() {
        use super::super::thread_cache;

        let (now, options) = (Instant::now(), HeartbeatOptions::default());
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let due = Heartbeat::new(options, now, thread_cache::number()).next();
            let until = due.saturating_duration_since(now).as_millis();
            tenths[usize::try_from(until.saturating_sub(12_500) / 1250).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (40..250).contains(count)), "{tenths:?}");
    }
}
