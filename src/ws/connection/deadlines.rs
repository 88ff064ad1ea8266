//! What happens to one connection at points in time, and one coarse timer for all of it.
//!
//! A timer costs system calls, so there is none while nothing is due: it is made when a connection
//! parks with a message, a write or a close unfinished, or with something on its [`Agenda`], and
//! left alone when that ends.

use std::task::Context;
use std::time::{Duration, Instant};

use super::agenda::Agenda;
use super::alarm::Alarm;
use super::heartbeat::Heartbeat;
use crate::runtime::{self, Clock};

/// What must not take longer than it may, or is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deadline {
    /// The rest of the message numbered so.
    Message(u64),
    /// The messages before a close frame, to be received.
    Deferred,
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
pub(super) struct Deadlines {
    message: Option<(u64, Instant)>,
    send: Option<Instant>,
    pause: Option<Pause>,
    close: Option<(Deadline, Instant)>,
    /// Of an open connection, if it has any.
    pub(super) agenda: Option<Box<Agenda>>,
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

impl Deadlines {
    pub(super) fn new(agenda: Option<Box<Agenda>>, clock: Clock) -> Self {
        Self { agenda, clock, ..Self::default() }
    }

    /// A message is under way; the clock of the one numbered `number` starts if it does not run.
    pub(super) fn start_message(&mut self, number: u64, timeout: Duration) {
        if self.message.is_none_or(|(running, _)| running != number) {
            self.message = Some((number, self.clock.after(timeout)));
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
        }
        starts
    }

    pub(super) fn stop_send(&mut self) {
        self.send = None;
    }

    /// The connection waits for others, with so much patience; a clock that runs already goes on.
    pub(super) fn pause(&mut self, patience: Option<Duration>) {
        let since = || Pause { since: self.clock.now(), until: None };
        let pause = self.pause.get_or_insert_with(since);
        pause.until =
            patience.map(|patience| pause.until.unwrap_or_else(|| self.clock.after(patience)));
    }

    /// The connection does not wait for others. Its message has as much time left as before.
    pub(super) fn resume(&mut self) {
        let Some(pause) = self.pause.take() else { return };
        if let Some((_, at)) = &mut self.message {
            *at = runtime::later(*at, self.clock.since(pause.since));
        }
    }

    /// The connection closes; the deadline replaces an earlier one, and all that is for open
    /// connections.
    pub(super) fn start_close(&mut self, deadline: Deadline, timeout: Duration) {
        self.agenda = None;
        self.close = Some((deadline, self.clock.after(timeout)));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(None, self.clock.clone());
    }

    pub(super) fn heartbeat(&mut self) -> Option<&mut Heartbeat> {
        self.agenda.as_mut()?.heartbeat.as_mut()
    }

    /// What is too late; if nothing is, `cx` is woken when something may be.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<Deadline> {
        loop {
            let (deadline, at) = self.next()?;
            let alarm = self.alarm.get_or_insert_with(|| Box::new(Alarm::new(at, &self.clock, cx)));
            if !alarm.has_gone_off(at) {
                return None;
            }
            if self.clock.now() >= at {
                return Some(deadline);
            }
        }
    }

    /// What was next is not: spares the connection a wake-up for nothing.
    pub(super) fn postpone(&mut self) {
        if let (Some((_, at)), Some(alarm)) = (self.next(), &mut self.alarm) {
            alarm.set(at);
        }
    }

    fn next(&self) -> Option<(Deadline, Instant)> {
        let message = self.message.filter(|_| self.pause.is_none());
        let message = message.map(|(number, at)| (Deadline::Message(number), at));
        let send = self.send.map(|at| (Deadline::Send, at));
        let room = self.pause.as_ref().and_then(|pause| pause.until).map(|at| (Deadline::Room, at));
        let agenda = self.agenda.as_ref().and_then(|agenda| agenda.next());
        [message, send, room, self.close, agenda].into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}
