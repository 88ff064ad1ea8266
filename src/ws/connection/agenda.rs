//! What an open connection does at points in time of its own: it pings, and it closes itself.
//!
//! Boxed, so that a connection which does nothing of it does not carry it. When the peer is given up is `heartbeat`; what each item comes
//! to, `core/watch`.

use std::time::{Duration, Instant};

use super::deadlines::Deadline;
use super::heartbeat::Heartbeat;
use super::random;
use crate::runtime::Clock;
use crate::ws::heartbeat::HeartbeatOptions;
use crate::ws::options::{Pings, Watch};
use crate::ws::proto::CloseFrame;

/// Shorter timeouts would close a connection before its handler has it.
const SHORTEST: Duration = Duration::from_millis(10);

/// The part of its lifetime by which a connection may be early.
const LIFETIME_JITTER: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Agenda {
    pub(super) heartbeat: Option<Heartbeat>,
    idle: Option<Box<Idle>>,
    lifetime: Option<Instant>,
    expiry: Option<Box<(Instant, CloseFrame)>>,
    /// Heartbeats that were asked for: that of a server, to begin with, is none.
    heartbeats: u64,
    clock: Clock,
}

/// How long nothing has passed.
#[derive(Debug)]
struct Idle {
    timeout: Duration,
    until: Instant,
    passed: Passed,
}

/// Data that has passed in either direction. If it is the same as before, none has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Passed {
    /// Data frames.
    pub(super) frames: u64,
    /// Bytes of a frame that has not arrived as a whole.
    pub(super) partial: usize,
    /// How often the peer has made room for bytes that waited.
    pub(super) room_made: u64,
}

impl Agenda {
    /// What the options put on it; `None` if nothing. `pings` if the connection does so without being asked.
    pub(super) fn new(watch: &Watch, pings: bool, clock: &Clock) -> Option<Box<Self>> {
        let mut agenda = Self {
            idle: watch.idle_timeout.map(|timeout| Box::new(Idle::new(timeout, clock))),
            lifetime: watch.max_lifetime.map(|lifetime| end_of_lifetime(lifetime, clock)),
            ..Self::empty(clock)
        };
        match watch.pings {
            Pings::Set(Some(options)) => {
                agenda.start_heartbeat(options);
            }
            Pings::ByServers if pings => {
                agenda.heartbeat = Some(agenda.beats(HeartbeatOptions::default()));
            }
            Pings::Set(None) | Pings::ByServers => {}
        }
        agenda.next().is_some().then(|| Box::new(agenda))
    }

    /// Without any item.
    pub(super) fn empty(clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..Self::default() }
    }

    /// Starts a heartbeat, in place of the one before; its number.
    pub(super) fn start_heartbeat(&mut self, options: HeartbeatOptions) -> u64 {
        self.heartbeat = Some(self.beats(options));
        self.heartbeats += 1;
        self.heartbeats
    }

    fn beats(&self, options: HeartbeatOptions) -> Heartbeat {
        Heartbeat::new(options, self.clock.now(), random::number())
    }

    /// Ends the heartbeat, if `number` is still that of the latest, or given as `None`.
    pub(super) fn stop_heartbeat(&mut self, number: Option<u64>) {
        if number.is_none_or(|number| number == self.heartbeats) {
            self.heartbeat = None;
        }
    }

    /// When the connection ends, in place of any time that was set before.
    pub(super) fn set_expiry(&mut self, expiry: Option<(Instant, CloseFrame)>) {
        self.expiry = expiry.map(Box::new);
    }

    /// What to close with when the connection's time is over.
    pub(super) fn take_expiry(&mut self) -> Option<CloseFrame> {
        self.expiry.take().map(|expiry| expiry.1)
    }

    /// The connection parks: takes note of what has passed, and whether it reads.
    pub(super) fn take_note(&mut self, passed: Passed, is_reading: bool) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.take_note(is_reading);
        }
        if let Some(idle) = &mut self.idle {
            // What waits to be read is not known, and the peer may have sent anything.
            if idle.passed != passed || !is_reading {
                idle.passed = passed;
                idle.until = self.clock.after(idle.timeout);
            }
        }
    }

    /// Whether anything on it was asked for.
    #[cfg(feature = "tungstenite")]
    pub(super) fn is_asked_for(&self) -> bool {
        let has_heartbeat = self.heartbeat.is_some() && self.heartbeats > 0;
        has_heartbeat || self.idle.is_some() || self.lifetime.is_some() || self.expiry.is_some()
    }

    /// What comes next, and when.
    pub(super) fn next(&self) -> Option<(Deadline, Instant)> {
        let heartbeat = self.heartbeat.as_ref().map(|it| (Deadline::Heartbeat, it.next()));
        let idle = self.idle.as_ref().map(|idle| (Deadline::Idle, idle.until));
        let lifetime = self.lifetime.map(|at| (Deadline::Lifetime, at));
        let expiry = self.expiry.as_ref().map(|expiry| (Deadline::Expiry, expiry.0));
        [heartbeat, idle, lifetime, expiry].into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}

impl Idle {
    fn new(timeout: Duration, clock: &Clock) -> Self {
        let timeout = timeout.max(SHORTEST);
        Self { timeout, until: clock.after(timeout), passed: Passed::default() }
    }
}

/// Up to a tenth early, so that clients who came together do not come back together.
fn end_of_lifetime(lifetime: Duration, clock: &Clock) -> Instant {
    clock.after(shortened(lifetime, random::number()).max(SHORTEST))
}

/// Less `random` of 65 536 parts of the jitter.
fn shortened(lifetime: Duration, random: u16) -> Duration {
    lifetime.saturating_sub(lifetime / LIFETIME_JITTER / (1 << 16) * u32::from(random))
}

#[cfg(test)]
mod tests {
    use super::super::alarm::Alarm;
    use super::*;
    use crate::ws::proto::CloseCode;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn lifetimes_are_up_to_a_tenth_shorter() {
        let tenths = (0..=10_u16).map(|tenth| u16::MAX / 10 * tenth);
        let lifetimes: Vec<u128> =
            tenths.map(|random| shortened(10 * MINUTE, random).as_secs().into()).collect();
        assert_eq!(lifetimes, [600, 594, 588, 582, 576, 570, 564, 558, 552, 546, 540]);
        assert_eq!(shortened(Duration::ZERO, u16::MAX), Duration::ZERO);
        assert!(shortened(Duration::MAX, u16::MAX) < Duration::MAX);
    }

    #[test]
    fn lifetimes_of_connections_that_are_opened_together_spread_out() {
        let clock = Clock::default();
        let now = clock.now();
        let mut ends: Vec<u64> =
            (0..1000).map(|_| (end_of_lifetime(10 * MINUTE, &clock) - now).as_secs()).collect();
        ends.sort_unstable();
        ends.dedup();
        assert!(ends.len() > 50, "{ends:?}");
    }

    #[test]
    fn an_agenda_without_items_is_none() {
        let is_some = |watch, pings| Agenda::new(&watch, pings, &Clock::default()).is_some();
        assert!(!is_some(Watch::default(), false));
        let old = Watch { max_lifetime: Some(Duration::MAX), ..Watch::default() };
        assert!(is_some(old, false));
        let silent = Watch { pings: Pings::Set(None), ..Watch::default() };
        assert!(is_some(Watch::default(), true) && !is_some(silent, true));
    }

    #[test]
    fn the_heartbeat_of_an_idle_connection_costs_little() {
        // One box with all of it; another has its timer.
        assert!(size_of::<Agenda>() <= 192, "{}", size_of::<Agenda>());
        assert!(size_of::<Alarm>() <= 112, "{}", size_of::<Alarm>());
    }

    #[test]
    fn what_comes_first_is_next() {
        let watch = Watch { idle_timeout: Some(MINUTE), ..Watch::default() };
        let mut agenda = Agenda::new(&watch, false, &Clock::default()).unwrap();
        let next = |agenda: &Agenda| agenda.next().map(|(deadline, _)| deadline);
        assert_eq!(next(&agenda), Some(Deadline::Idle));
        agenda.start_heartbeat(HeartbeatOptions::default());
        assert_eq!(next(&agenda), Some(Deadline::Heartbeat));
        let expiry = (Instant::now(), CloseFrame::lossy(CloseCode::NORMAL, ""));
        agenda.set_expiry(Some(expiry));
        assert_eq!(next(&agenda), Some(Deadline::Expiry));
        agenda.set_expiry(None);
        assert_eq!(next(&agenda), Some(Deadline::Heartbeat));
    }

    #[test]
    fn only_the_latest_heartbeat_is_stopped_by_its_number() {
        let mut agenda = Agenda::default();
        let first = agenda.start_heartbeat(HeartbeatOptions::default());
        let second = agenda.start_heartbeat(HeartbeatOptions::default());
        agenda.stop_heartbeat(Some(first));
        assert!(agenda.heartbeat.is_some());
        agenda.stop_heartbeat(Some(second));
        assert!(agenda.heartbeat.is_none());
    }
}
