//! Timers: what happens to one connection at points in time, and one coarse timer for all of it.
//!
//! A timer costs system calls, so there is none while nothing is due: it is made when a connection parks with a
//! message, a write or a close unfinished, or with a timer of its options, and left alone when that ends. To
//! poll a timer is to read the clock, so the timer has a waker of its own that remembers whether it went off.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use super::heartbeat::{Beat, Heartbeat, Signs, Token};
use super::state::Connection;
use super::thread_cache;
use crate::error::{Error, TimeoutKind};
use crate::options::heartbeat::HeartbeatOptions;
use crate::options::{Pings, Watch};
use crate::proto::{CloseCode, CloseFrame, Frame, OpCode, Payload};
use crate::runtime;
use crate::runtime::{Clock, Timer};
use crate::stream::Stream;

/// Something that happens to a connection at a point in time: a timeout ends, or a ping or a close is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deadline {
    /// The rest of the message numbered so.
    Message(u64),
    /// The messages before the peer's close frame, to be received.
    Drain,
    /// The next byte that the peer takes.
    Send,
    /// Room in the budget of the server.
    Room,
    /// The peer's close frame.
    Close,
    /// The end of the stream, after the closing handshake.
    Linger,
    /// The next ping of the heartbeat, or the answer to the last.
    Heartbeat,
    /// The next message, of either side.
    Idle,
    /// The connection's time.
    Lifetime,
    /// The time that its user has set.
    Expiry,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    message: Option<(u64, Instant)>,
    send: Option<Instant>,
    pause: Option<Pause>,
    close: Option<(Deadline, Instant)>,
    /// Of an open connection, if it has any.
    open: Option<Box<OpenTimers>>,
    /// Whether one of these is for connections that are idle.
    watches_idle: bool,
    /// Whether a deadline may be earlier than the alarm, so that [`poll`](Self::poll) has to look at all of them.
    has_moved: bool,
    alarm: Option<Box<Alarm>>,
    clock: Clock,
}

/// The connection waits for room in the budget of its server. The clock of its message stands still.
#[derive(Debug)]
struct Pause {
    since: Instant,
    /// When it has lost its patience.
    until: Option<Instant>,
}

impl Timers {
    /// Whether there is a deadline that stays while the connection is open.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn new(open: Option<Box<OpenTimers>>, clock: Clock) -> Self {
        let watches_idle = open.as_ref().is_some_and(|open| open.idle.is_some());
        let has_moved = open.is_some();
        Self { open, watches_idle, has_moved, clock, ..Self::default() }
    }

    /// A message is under way; the clock of the one numbered `number` starts if it does not run.
    pub(super) fn start_message(&mut self, number: u64, timeout: Duration) {
        if self.message.is_none_or(|(running, _)| running != number) {
            self.message = Some((number, self.clock.after(timeout)));
            self.has_moved = true;
        }
    }

    pub(super) fn stop_message(&mut self) {
        self.message = None;
    }

    /// The peer takes nothing; the clock starts if it does not run. Returns whether it did start.
    pub(super) fn start_send(&mut self, timeout: Duration) -> bool {
        let starts = self.send.is_none();
        if starts {
            self.send = Some(self.clock.after(timeout));
            self.has_moved = true;
        }
        starts
    }

    pub(super) fn stop_send(&mut self) {
        self.send = None;
    }

    /// The connection waits for others, with so much patience; a clock that runs already goes on.
    pub(super) fn pause(&mut self, patience: Option<Duration>) {
        let since = || Pause { since: self.clock.now(), until: None };
        // One pause, however often the connection looks for room meanwhile.
        let pause = self.pause.get_or_insert_with(since);
        pause.until =
            patience.map(|patience| pause.until.unwrap_or_else(|| self.clock.after(patience)));
        self.has_moved = true;
    }

    /// The connection does not wait for others. Its message has as much time left as before.
    pub(super) fn resume(&mut self) {
        let Some(pause) = self.pause.take() else { return };
        self.has_moved = true;
        if let Some((_, at)) = &mut self.message {
            *at = runtime::later(*at, self.clock.since(pause.since));
        }
    }

    /// The connection closes; the deadline replaces an earlier one, and all that is for open
    /// connections.
    pub(super) fn start_close(&mut self, deadline: Deadline, timeout: Duration) {
        (self.open, self.watches_idle) = (None, false);
        self.close = Some((deadline, self.clock.after(timeout)));
        self.has_moved = true;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(None, self.clock.clone());
    }

    pub(super) fn heartbeat(&mut self) -> Option<&mut Heartbeat> {
        self.open.as_mut()?.heartbeat.as_mut()
    }

    /// The timers of an open connection, to be changed.
    fn open_mut(&mut self) -> &mut OpenTimers {
        self.has_moved = true;
        self.open.get_or_insert_with(|| Box::new(OpenTimers::empty(&self.clock)))
    }

    /// Whether anything of an open connection was asked for.
    #[cfg(feature = "tungstenite")]
    pub(super) fn are_asked_for(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_asked_for())
    }

    /// A deadline that has passed. If there is none, `cx` is woken when there may be one.
    ///
    /// The deadlines of a heartbeat are in memory of their own. A connection that parks, which each message has it do,
    /// does not touch them unless they have moved: with 1 000 members and eight speakers, a fifth of a delivery's time.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<Deadline> {
        if !self.has_moved && !self.alarm.as_ref().is_some_and(|alarm| alarm.has_rung()) {
            return None;
        }
        self.has_moved = false;
        loop {
            let (deadline, at) = self.next()?;
            let alarm = self.alarm.get_or_insert_with(|| Box::new(Alarm::new(at, &self.clock, cx)));
            if !alarm.has_gone_off(at) {
                return None;
            }
            if self.clock.now() >= at {
                // The next one may be due, too.
                self.has_moved = true;
                return Some(deadline);
            }
        }
    }

    /// Whether the activity of a connection matters when it parks. While it reads, only to an idle timeout.
    fn needs_activity(&self, is_reading: bool) -> bool {
        self.watches_idle || (!is_reading && self.open.is_some())
    }

    /// Sets the timer anew after the next deadline has moved, so that it does not go off at the old time.
    pub(super) fn postpone(&mut self) {
        self.has_moved = true;
        if let (Some((_, at)), Some(alarm)) = (self.next(), &mut self.alarm) {
            alarm.set(at);
        }
    }

    fn next(&self) -> Option<(Deadline, Instant)> {
        // A message that waits for the budget of its server is not late.
        let message = self.message.filter(|_| self.pause.is_none());
        let message = message.map(|(number, at)| (Deadline::Message(number), at));
        let send = self.send.map(|at| (Deadline::Send, at));
        let room = self.pause.as_ref().and_then(|pause| pause.until).map(|at| (Deadline::Room, at));
        let open = self.open.as_ref().and_then(|open| open.next());
        [message, send, room, self.close, open].into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}

/// Shorter timeouts would close a connection before its handler has it.
const SHORTEST: Duration = Duration::from_millis(10);

/// The part of its lifetime by which a connection may be early.
const LIFETIME_JITTER: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct OpenTimers {
    pub(super) heartbeat: Option<Heartbeat>,
    idle: Option<Box<Idle>>,
    lifetime: Option<Instant>,
    expiry: Option<Box<(Instant, CloseFrame)>>,
    /// Heartbeats that were asked for: that of a server, to begin with, is none.
    heartbeats: u64,
    clock: Clock,
}

/// The idle timeout: the time since data passed last.
#[derive(Debug)]
struct Idle {
    timeout: Duration,
    until: Instant,
    activity: Activity,
}

/// Data that has passed in either direction. If it is the same as before, none has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Activity {
    /// Data frames.
    pub(super) frames: u64,
    /// Bytes of a frame that has not arrived as a whole.
    pub(super) partial: usize,
    /// How often the peer has made room for bytes that waited.
    pub(super) room_made: u64,
}

impl OpenTimers {
    /// What the options put on it; `None` if nothing. `pings` if the connection does so without being asked.
    pub(super) fn new(watch: &Watch, pings: bool, clock: &Clock) -> Option<Box<Self>> {
        let mut open = Self {
            idle: watch.idle_timeout.map(|timeout| Box::new(Idle::new(timeout, clock))),
            lifetime: watch.max_lifetime.map(|lifetime| end_of_lifetime(lifetime, clock)),
            ..Self::empty(clock)
        };
        match watch.pings {
            Pings::Set(Some(options)) => {
                open.start_heartbeat(options);
            }
            Pings::ByServers if pings => {
                open.heartbeat = Some(open.beats(HeartbeatOptions::default()));
            }
            Pings::Set(None) | Pings::ByServers => {}
        }
        open.next().is_some().then(|| Box::new(open))
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
        Heartbeat::new(options, self.clock.now(), thread_cache::number())
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

    /// The close frame for the end of the connection's time.
    pub(super) fn take_expiry(&mut self) -> Option<CloseFrame> {
        self.expiry.take().map(|expiry| expiry.1)
    }

    /// The connection parks: takes note of what has passed, and whether it reads.
    pub(super) fn record_activity(&mut self, activity: Activity, is_reading: bool) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.record_activity(is_reading);
        }
        if let Some(idle) = &mut self.idle {
            // Bytes that are not read yet may be data: this is no idle connection.
            if idle.activity != activity || !is_reading {
                idle.activity = activity;
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

    /// The next deadline, and its time.
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
        Self { timeout, until: clock.after(timeout), activity: Activity::default() }
    }
}

/// Up to a tenth early, so that clients who came together do not come back together.
fn end_of_lifetime(lifetime: Duration, clock: &Clock) -> Instant {
    clock.after(shortened(lifetime, thread_cache::number()).max(SHORTEST))
}

/// Less `random` of 65 536 parts of the jitter.
fn shortened(lifetime: Duration, random: u16) -> Duration {
    lifetime.saturating_sub(lifetime / LIFETIME_JITTER / (1 << 16) * u32::from(random))
}

#[derive(Debug)]
pub(super) struct Alarm {
    timer: Timer,
    /// When it goes off.
    at: Instant,
    /// Whether the timer runs, with our waker.
    is_set: bool,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    connection: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.connection.wake_by_ref();
    }
}

impl Alarm {
    /// An alarm that goes off when the clock shows `at`, and wakes the connection of `cx` then.
    pub(super) fn new(at: Instant, clock: &Clock, cx: &Context<'_>) -> Self {
        let bell =
            Arc::new(Bell { has_rung: AtomicBool::new(false), connection: cx.waker().clone() });
        Self { timer: clock.timer(at), at, is_set: false, bell }
    }

    /// Whether its timer has called.
    fn has_rung(&self) -> bool {
        self.bell.has_rung.load(Ordering::Acquire)
    }

    /// Whether it has gone off. If not, it will until `at`.
    pub(super) fn has_gone_off(&mut self, at: Instant) -> bool {
        // One that goes off too early is cheaper than one that is moved for every message.
        if !self.is_set || self.at > at {
            self.set(at);
        } else if !self.has_rung() {
            return false;
        }
        // Before the poll: a timer that goes off during it rings again.
        self.bell.has_rung.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.bell));
        let cx = &mut Context::from_waker(&waker);
        self.is_set = Pin::new(&mut self.timer).poll(cx).is_pending();
        !self.is_set
    }

    /// Moves it, whether to an earlier time or a later one.
    pub(super) fn set(&mut self, at: Instant) {
        if self.at != at {
            self.timer.set_at(at);
            self.at = at;
        }
    }
}

impl Connection {
    /// Starts a heartbeat in place of the one before, or just ends that; its number.
    pub(super) fn set_heartbeat(&mut self, options: Option<HeartbeatOptions>) -> u64 {
        if !self.is_open() {
            return 0;
        }
        let open = self.timers.open_mut();
        if let Some(options) = options {
            return open.start_heartbeat(options);
        }
        open.stop_heartbeat(None);
        0
    }

    /// Ends the heartbeat of this number, unless another has taken its place.
    pub(super) fn stop_heartbeat(&mut self, number: u64) {
        if let Some(open) = &mut self.timers.open {
            open.stop_heartbeat(Some(number));
        }
    }

    /// Closes the connection at a point in time, in place of the one before, or at none.
    pub(super) fn set_expiry(&mut self, expiry: Option<(Instant, CloseFrame)>) {
        if self.is_open() {
            self.timers.open_mut().set_expiry(expiry);
        }
    }

    /// The connection parks: records its activity since the last call, so that reads and writes need not.
    pub(super) fn record_activity(&mut self) {
        // A connection in line does not read what its peer has answered.
        let is_reading = self.is_reading() && !self.account.is_waiting();
        if !self.timers.needs_activity(is_reading) {
            return;
        }
        let activity = self.activity();
        if let Some(open) = &mut self.timers.open {
            open.record_activity(activity, is_reading);
        }
    }

    fn activity(&self) -> Activity {
        let (received, sent) = (&self.tally, &self.outbox.counts);
        let frames_in = received.frames_in.saturating_sub(received.pings_in + received.pongs_in);
        let frames_out = sent.frames.saturating_sub(sent.pings + sent.pongs);
        Activity {
            frames: frames_in + frames_out,
            partial: self.decoder.buffered(),
            room_made: received.room_made,
        }
    }

    /// Closes the connection, which is asked for nothing any more.
    pub(super) fn close_going_away(&mut self, reason: &str) {
        self.begin_close(Some(CloseFrame::lossy(CloseCode::GOING_AWAY, reason)));
    }

    /// Closes the connection, as its user has asked to.
    pub(super) fn expire(&mut self) {
        let open = self.timers.open.as_mut();
        let frame = open.and_then(|open| open.take_expiry());
        self.begin_close(frame);
    }

    /// Sends a ping, or gives up a peer that has not shown a sign of life since the last.
    pub(super) fn beat(&mut self, cx: &mut Context<'_>) {
        // Under TLS, bytes count before their record is whole: one of 16 KiB may take longer than a timeout.
        let encrypted = self.stream.as_ref().and_then(Stream::encrypted_bytes_in);
        let read = encrypted.unwrap_or(self.tally.wire_bytes_in);
        let signs = Signs { read, room_made: self.tally.room_made };
        let now = self.settings.clock.now();
        // Four bytes tell that the ping is a heartbeat of this connection, four which one.
        let mut token = Token::default();
        let fresh = thread_cache::bytes::<4>();
        for (slot, byte) in token.iter_mut().zip(self.ping_tag.into_iter().chain(fresh)) {
            *slot = byte;
        }
        let Some(heartbeat) = self.timers.heartbeat() else { return };
        match heartbeat.beat(now, signs, token, thread_cache::number()) {
            Beat::Nothing => {}
            Beat::Ping(token) => self.send_ping(token, cx),
            Beat::Fail => {
                self.give_up(cx, Error::Timeout(TimeoutKind::Pong), CloseCode::POLICY_VIOLATION);
            }
        }
    }

    fn send_ping(&mut self, token: Token, cx: &mut Context<'_>) {
        let payload = Payload::copy_from(&token);
        self.push(&mut Some(Frame::from_payload(true, OpCode::Ping, payload)));
        // At once: the handler has no reason to be woken.
        self.write(cx);
    }

    /// A pong has arrived; true if it answers a ping of a heartbeat, be it an earlier one.
    pub(super) fn accept_pong(&mut self, payload: &[u8]) -> bool {
        let asked_at = self.timers.heartbeat().and_then(|heartbeat| heartbeat.answer(payload));
        if let Some(asked_at) = asked_at {
            self.tally.rtt = Some(self.settings.clock.since(asked_at));
            self.timers.postpone();
        }
        payload.len() == size_of::<Token>() && payload.starts_with(&self.ping_tag)
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarm, *};
    use crate::proto::CloseCode;

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
        let is_some = |watch, pings| OpenTimers::new(&watch, pings, &Clock::default()).is_some();
        assert!(!is_some(Watch::default(), false));
        let old = Watch { max_lifetime: Some(Duration::MAX), ..Watch::default() };
        assert!(is_some(old, false));
        let silent = Watch { pings: Pings::Set(None), ..Watch::default() };
        assert!(is_some(Watch::default(), true) && !is_some(silent, true));
    }

    #[test]
    fn the_heartbeat_of_an_idle_connection_costs_little() {
        // One box with all of it; another has its timer.
        assert!(size_of::<OpenTimers>() <= 192, "{}", size_of::<OpenTimers>());
        assert!(size_of::<Alarm>() <= 112, "{}", size_of::<Alarm>());
    }

    #[test]
    fn what_comes_first_is_next() {
        let watch = Watch { idle_timeout: Some(MINUTE), ..Watch::default() };
        let mut open = OpenTimers::new(&watch, false, &Clock::default()).unwrap();
        let next = |open: &OpenTimers| open.next().map(|(deadline, _)| deadline);
        assert_eq!(next(&open), Some(Deadline::Idle));
        open.start_heartbeat(HeartbeatOptions::default());
        assert_eq!(next(&open), Some(Deadline::Heartbeat));
        let expiry = (Instant::now(), CloseFrame::lossy(CloseCode::NORMAL, ""));
        open.set_expiry(Some(expiry));
        assert_eq!(next(&open), Some(Deadline::Expiry));
        open.set_expiry(None);
        assert_eq!(next(&open), Some(Deadline::Heartbeat));
    }

    #[test]
    fn only_the_latest_heartbeat_is_stopped_by_its_number() {
        let mut open = OpenTimers::default();
        let first = open.start_heartbeat(HeartbeatOptions::default());
        let second = open.start_heartbeat(HeartbeatOptions::default());
        open.stop_heartbeat(Some(first));
        assert!(open.heartbeat.is_some());
        open.stop_heartbeat(Some(second));
        assert!(open.heartbeat.is_none());
    }
}
