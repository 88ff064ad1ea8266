//! `Connection`: what a connection consists of, and the poll of its task.
//!
//! All of it happens under the connection's lock and never waits: what cannot go on leaves the connection's
//! waker with the stream or the timer.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::backlog::{Backlog, SendTicket};
use super::budget::Account;
use super::compression::Deflation;
use super::inbox::Inbox;
use super::read::Limiter;
use super::stats::{Initiator, Stats, Tally};
use super::thread_cache;
use super::timers::{OpenTimers, Timers};
use super::write::Outbox;
use crate::error::{Error, Result};
use crate::options::Settings;
#[cfg(feature = "tungstenite")]
use crate::proto::Limits;
use crate::proto::{
    CloseCode, CloseFrame, Decoder, Payload, ProtocolError, Role, State, WireBatch,
};
use crate::stream::Stream;

/// Reads per turn, so that a peer who never stops cannot keep the thread.
pub(super) const READS_PER_TURN: usize = 16;

/// Messages per turn, for the same reason.
pub(super) const MESSAGES_PER_TURN: usize = 64;

/// How far the connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Open,
    /// A close frame is queued: wait for it to be written, and for the peer's.
    Closing,
    /// Our half of the stream is ended: read to the end of the other, so that what the peer still
    /// sends cannot turn our close frame into a reset.
    Lingering {
        has_ended: bool,
    },
    /// The stream is dropped.
    Gone,
}

/// The peer's close frame or violation, held until the messages before it have been received, so that replies to
/// them go out first.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A close frame, to be answered with this.
    Close(Option<CloseFrame>),
    /// A violation of the protocol.
    Failure(ProtocolError),
}

/// Who waits in `recv`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parked {
    Nobody,
    /// The handler, in the connection's own task: it reads for itself.
    InTask,
    /// Somebody the connection's task has to wake.
    Elsewhere,
}

/// What the connection is read by; the first call decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Undecided,
    Messages,
    Frames,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Connection {
    pub(super) stream: Option<Stream>,
    pub(super) decoder: Decoder,
    /// Bytes that were read and not decoded yet.
    pub(super) unread: Bytes,
    /// Short messages before everything in the inbox.
    pub(super) run: WireBatch,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Broadcasts that wait for the outbox: while there are any, it has no room for anything else.
    pub(super) backlog: Option<Box<Backlog>>,
    /// The place of the next that has to wait.
    pub(super) backlog_end: SendTicket,
    /// What other tasks send during a turn of the handler: it follows what the handler has sent
    /// before, which is not here yet.
    pub(super) during_poll: Option<Box<Outbox>>,
    /// How messages are compressed, if they are, and until the stream is gone.
    pub(super) deflation: Option<Arc<Deflation>>,
    /// Is it the handler's turn?
    pub(super) is_in_turn: bool,
    /// Is this another task's access during the turn?
    pub(super) is_during_poll: bool,
    /// Does such a task wait for the end of the turn?
    pub(super) is_turn_awaited: bool,
    /// The payload of the latest ping, when the outbox was too full for its pong.
    pub(super) pong: Option<Box<Payload>>,
    pub(super) state: State,
    pub(super) phase: Phase,
    /// What arrived behind messages that nobody has received yet.
    pub(super) deferred: Option<Box<Deferred>>,
    /// Is the caller in `recv`, so that the rest of a message is taken whatever is queued?
    pub(super) is_wanted: bool,
    /// Does all that still comes after our close frame go unread?
    pub(super) is_discarding: bool,
    /// May the last batch that was handed over still hold messages?
    pub(super) is_handed_over: bool,
    /// Bytes that the caller took and has not come to.
    pub(super) in_batch: usize,
    /// Whether the caller decompresses a message.
    pub(super) is_inflating: bool,
    /// Whether the last read left bytes in the stream, as far as one can know.
    pub(super) is_peer_ahead: bool,
    /// The share of the server's budget.
    pub(super) account: Account,
    pub(super) end: Option<Result<()>>,
    pub(super) initiator: Initiator,
    pub(super) settings: Settings,
    pub(super) timers: Timers,
    /// What the pings of heartbeats begin with, so that their pongs are known.
    pub(super) ping_tag: [u8; 4],
    /// How fast the peer may send, if that is limited.
    pub(super) limiter: Option<Box<Limiter>>,
    pub(super) tally: Tally,
    pub(super) role: Role,
    pub(super) mode: Mode,
    pub(super) parked: Parked,
    /// Messages that may still pass in this turn.
    pub(super) budget: usize,
    /// Has the connection a task that reads, writes and closes for it?
    pub(super) has_task: bool,
    /// The waker of that task, to tell whether a caller runs in it: `Signals` has the one that is called.
    pub(super) task_waker: Option<Waker>,
    /// Has that task been woken to write?
    pub(super) is_write_scheduled: bool,
    /// Whether the connection's task has something to do that it has not been woken for.
    pub(super) is_task_owed: bool,
    /// Whether the task, or without one those who wait in a call, are to look at the connection again.
    pub(super) is_look_owed: bool,
    /// A failure that is not in the log yet: a logger is foreign code, and may use this connection.
    pub(super) unlogged: Option<Box<(Error, CloseCode)>>,
    /// Whether the stream has refused bytes, and taken none since.
    pub(super) is_refused: bool,
    /// Is the `WebSocket` dropped?
    pub(super) is_abandoned: bool,
    /// Has something happened that senders, or those who wait for the end, wait for?
    pub(super) has_news: bool,
    /// Does anybody wait for news?
    pub(super) has_listeners: bool,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        unread: Bytes,
        role: Role,
        mut settings: Settings,
        deflation: Option<Arc<Deflation>>,
        account: Account,
    ) -> Self {
        let watch = settings.watch.take().map(|watch| *watch).unwrap_or_default();
        let clock = &settings.clock;
        let pings = settings.has_task && role == Role::Server;
        let timers = Timers::new(OpenTimers::new(&watch, pings, clock), clock.clone());
        let limiter = watch.rate_limit.map(|limit| Box::new(Limiter::new(limit, clock.now())));
        let tally = Tally::new(clock.now());
        Self {
            stream: Some(stream),
            decoder: Decoder::new(role, settings.limits, deflation.is_some()),
            unread,
            run: WireBatch::default(),
            inbox: Inbox::default(),
            outbox: Outbox::new(role),
            backlog: None,
            backlog_end: SendTicket::default(),
            during_poll: None,
            is_in_turn: false,
            deflation,
            is_during_poll: false,
            is_turn_awaited: false,
            pong: None,
            state: State::default(),
            phase: Phase::Open,
            deferred: None,
            is_wanted: false,
            is_discarding: false,
            is_handed_over: false,
            in_batch: 0,
            is_inflating: false,
            is_peer_ahead: false,
            account,
            end: None,
            initiator: Initiator::Local,
            settings,
            timers,
            ping_tag: thread_cache::bytes(),
            limiter,
            tally,
            role,
            mode: Mode::Undecided,
            parked: Parked::Nobody,
            budget: MESSAGES_PER_TURN,
            has_task: false,
            task_waker: None,
            is_write_scheduled: false,
            is_task_owed: false,
            is_look_owed: false,
            unlogged: None,
            is_refused: false,
            is_abandoned: false,
            has_news: false,
            has_listeners: false,
        }
    }

    /// Writes, reads ahead and closes as far as possible without waiting; false if there is more to do
    /// once others had their turn.
    pub(super) fn service(&mut self, cx: &mut Context<'_>) -> bool {
        let was_gone = self.is_gone();
        self.is_look_owed = false;
        let has_parked = self.go_on(cx);
        // All is done, or waits for the stream or the timer, which have our waker. The task alone ends.
        self.is_task_owed = !was_gone && self.is_gone();
        self.is_look_owed |= !has_parked;
        has_parked
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.inbox.release();
        self.give_way();
        for _ in 0..READS_PER_TURN {
            self.write(cx);
            let has_progressed = match self.phase {
                Phase::Open => self.can_read_ahead() && self.read_ahead(cx).is_ready(),
                Phase::Closing => self.continue_closing(cx),
                Phase::Lingering { .. } => self.linger(cx),
                Phase::Gone => {
                    self.count_held(cx.waker());
                    return true;
                }
            };
            if !has_progressed {
                self.check_deadlines(cx);
                return true;
            }
        }
        // A peer who never stops has no more time than others.
        self.check_deadlines(cx);
        false
    }

    /// The connection's task polls its handler.
    pub(super) fn begin_turn(&mut self) {
        self.is_in_turn = true;
        self.budget = MESSAGES_PER_TURN;
        if self.parked == Parked::InTask {
            self.parked = Parked::Nobody;
        }
    }

    /// Whether others are to be told of this step. During the handler's turn the task is awake.
    #[inline]
    pub(super) fn is_owing(&self) -> bool {
        let is_task_owed = self.has_task && self.is_task_owed;
        let is_driver_owed = !self.is_in_turn && (is_task_owed || self.is_look_owed);
        let is_recv_owed = self.parked != Parked::Nobody && self.can_recv();
        let are_waiters_owed = self.has_news && self.has_listeners;
        let is_rare_owed = self.unlogged.is_some() || self.account.owes();
        is_driver_owed || are_waiters_owed || is_recv_owed || is_rare_owed
    }

    /// The connection's task, or without one those who wait in a call, have to look at it.
    pub(super) fn owe_look(&mut self) {
        self.is_look_owed = true;
    }

    /// The handler has parked.
    pub(super) fn end_turn(&mut self) {
        self.is_in_turn = false;
        self.has_news |= std::mem::take(&mut self.is_turn_awaited);
    }

    /// The lock is taken, by the handler in its turn, whose messages are here now, or by another
    /// task.
    pub(super) fn enter(&mut self, is_turn: bool) {
        self.is_during_poll = self.is_in_turn && !is_turn;
        if let Some(mut during_poll) = self.during_poll.take_if(|_| is_turn) {
            self.outbox.append(&mut during_poll);
        }
    }

    /// Takes over the duty to write for the connection's task. If this returns true the caller has it, and the
    /// task is not woken.
    #[cfg(feature = "rooms")]
    pub(super) fn claim_write(&mut self) -> bool {
        let is_claimed =
            self.has_task && !self.is_in_turn && std::mem::take(&mut self.is_task_owed);
        self.is_write_scheduled |= is_claimed;
        is_claimed
    }

    /// Whether `cx` is that of the connection's task.
    pub(super) fn is_in_task(&self, cx: &Context<'_>) -> bool {
        self.task_waker.as_ref().is_some_and(|task| task.will_wake(cx.waker()))
    }

    /// Whether the handler is polled at the moment, by the connection's task.
    pub(super) fn is_in_turn(&self) -> bool {
        self.is_in_turn
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn max_message_size(&self) -> usize {
        self.settings.limits.max_message_size
    }

    #[cfg(feature = "tungstenite")]
    pub(super) fn limits(&self) -> Limits {
        self.settings.limits
    }

    /// What passed so far.
    pub(super) fn stats(&self) -> Stats {
        self.tally.stats(&self.outbox.counts)
    }
}

pub(super) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
