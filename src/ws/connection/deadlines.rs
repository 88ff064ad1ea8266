//! The limits on time of one connection, and one coarse timer for all of them.
//!
//! A timer costs system calls, so there is none while nothing is late: it is made when a
//! connection parks with a message, a write or a close unfinished, and left alone when that ends.

use std::task::Context;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use crate::runtime;

/// What must not take longer than it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deadline {
    /// The rest of the message numbered so.
    Message(u64),
    /// The messages before a close frame, to be received.
    Deferred,
    /// The next byte that the peer takes.
    Send,
    /// The peer's close frame.
    Close,
    /// The end of the stream, after the closing handshake.
    Linger,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    message: Option<(u64, Instant)>,
    send: Option<Instant>,
    close: Option<(Deadline, Instant)>,
    alarm: Option<Box<Alarm>>,
}

impl Deadlines {
    /// A message is under way; the clock of the one numbered `number` starts if it does not run.
    pub(super) fn start_message(&mut self, number: u64, timeout: Duration) {
        if self.message.is_none_or(|(running, _)| running != number) {
            self.message = Some((number, runtime::after(timeout)));
        }
    }

    pub(super) fn stop_message(&mut self) {
        self.message = None;
    }

    /// The peer takes nothing; the clock starts if it does not run.
    pub(super) fn start_send(&mut self, timeout: Duration) {
        self.send.get_or_insert_with(|| runtime::after(timeout));
    }

    pub(super) fn stop_send(&mut self) {
        self.send = None;
    }

    /// The connection closes; the deadline replaces an earlier one.
    pub(super) fn start_close(&mut self, deadline: Deadline, timeout: Duration) {
        self.close = Some((deadline, runtime::after(timeout)));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What is too late; if nothing is, `cx` is woken when something may be.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<Deadline> {
        loop {
            let (deadline, at) = self.next()?;
            let alarm = self.alarm.get_or_insert_with(|| Box::new(Alarm::new(at, cx)));
            if !alarm.has_gone_off(at) {
                return None;
            }
            if Instant::now() >= at {
                return Some(deadline);
            }
        }
    }

    fn next(&self) -> Option<(Deadline, Instant)> {
        let message = self.message.map(|(number, at)| (Deadline::Message(number), at));
        let send = self.send.map(|at| (Deadline::Send, at));
        [message, send, self.close].into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}
