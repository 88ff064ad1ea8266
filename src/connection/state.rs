//! `Connection`: the parts of a connection, its states, and `drive`, the work of its driver.
//!
//! All of it happens under the connection's lock and never waits. A step that cannot go on leaves the connection's
//! waker with the stream or the timer.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::backlog::{Backlog, SendTicket};
use super::close::Lifecycle;
use super::compression::Deflation;
use super::inbox::Inbox;
use super::read::Limiter;
use super::stats::{ConnectionStats, Initiator, Tally};
use super::thread_cache;
use super::timers::{OpenTimers, Timers};
use super::write::Outbox;
use crate::budget::Account;
use crate::error::Error;
use crate::options::Settings;
#[cfg(feature = "tungstenite")]
use crate::proto::Limits;
use crate::proto::{CloseCode, Decoder, Payload, Role, State, WireBatch};
use crate::stream::Stream;

/// Reads per turn, so that a peer who never stops cannot keep the thread.
pub(super) const READS_PER_TURN: usize = 16;

/// Messages per turn, for the same reason.
pub(super) const MESSAGES_PER_TURN: usize = 64;

/// The way in which the caller reads the connection. The first call of `recv` or `recv_frame` decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Messages,
    Frames,
}

/// The owner of the `WebSocket`, as the connection sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Receiver {
    /// It is not in `recv`.
    Away,
    /// It waits in `recv`, in the connection's own task. It reads for itself.
    InTask,
    /// It waits in `recv`, in another task, which has to be woken.
    Elsewhere,
    /// The `WebSocket` is dropped. All that still arrives goes unread.
    Dropped,
}

impl Receiver {
    pub(super) fn waiting(is_in_task: bool) -> Self {
        if is_in_task { Self::InTask } else { Self::Elsewhere }
    }

    /// Whether it waits in `recv`.
    pub(super) fn is_waiting(self) -> bool {
        matches!(self, Self::InTask | Self::Elsewhere)
    }

    /// It is woken, or has returned from `recv`.
    pub(super) fn stop_waiting(&mut self) {
        if self.is_waiting() {
            *self = Self::Away;
        }
    }
}

/// The messages that the receiver took at once, outside the lock. The sizes are bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// It has received all of them.
    Received,
    /// It may still hold messages.
    Held(usize),
    /// It decompresses one that is too long for what each connection may hold.
    Inflating(usize),
}

impl Taken {
    /// Bytes that the receiver holds.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Received => 0,
            Self::Held(len) | Self::Inflating(len) => len,
        }
    }
}

/// The poll of the handler by the connection's task.
#[derive(Debug)]
pub(super) enum HandlerPoll {
    /// The handler waits, or there is none.
    Parked,
    /// The handler runs.
    Running {
        /// Whether another task has the lock, and not the handler.
        is_other: bool,
        /// Frames that other tasks send meanwhile. They follow those that the handler has sent before, which are
        /// still in its buffer.
        during_poll: Option<Box<Outbox>>,
        /// Whether another task waits for the end of the poll.
        is_awaited: bool,
    },
}

/// The side that reads, writes and closes: it calls [`Connection::drive`].
#[derive(Debug)]
pub(super) enum Driver {
    /// The connection has no task: each caller that waits does it.
    Callers,
    /// The connection's own task, with its waker once it was polled. A copy of the one in `Signals`, which is called:
    /// a lock of that for each question whether a caller runs in this task costs 6 % of an echo's instructions.
    Task(Option<Waker>),
}

/// Whether the driver knows of the work that there is for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Work {
    /// There is none that it does not know of.
    Known,
    /// It was told, and has not come yet. Or a group writes in its place.
    Told,
    /// The connection's task has to be told. A caller without a task has done it.
    Owed,
    /// The connection's task has to be told; without one, all callers that wait.
    OwedToAll,
}

/// The fields stand in the order in which a broadcast comes to them. With thousands of members each line of the
/// processor's cache is a miss, and the compiler's order, which is by size, takes more of them.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Connection {
    // Those who work on it, and those who wait for it.
    pub(super) driver: Driver,
    pub(super) handler: HandlerPoll,
    pub(super) work: Work,
    pub(super) receiver: Receiver,
    /// Whether something has happened that `send`, `flush`, `close` or `closed` may wait for.
    pub(super) has_news: bool,
    /// Whether any of these waits.
    pub(super) has_listeners: bool,
    pub(super) role: Role,
    // These three are here because they have one byte each.
    pub(super) initiator: Initiator,
    /// `None` before the first call of `recv` or `recv_frame`.
    pub(super) mode: Option<Mode>,
    /// Whether the last read left bytes in the stream, as far as one can know.
    pub(super) is_peer_ahead: bool,

    // Closing.
    pub(super) lifecycle: Lifecycle,
    /// The close frames of both sides, and the message that is sent in fragments.
    pub(super) state: State,
    /// A failure that is not in the log yet: a logger is foreign code, and may use this connection.
    pub(super) unlogged: Option<Box<(Error, CloseCode)>>,

    // Writing.
    /// The compression of messages, if it was agreed on, until the stream is gone.
    pub(super) deflation: Option<Arc<Deflation>>,
    /// Broadcasts that wait for the outbox. While there are any, the outbox has no room for anything else.
    pub(super) backlog: Option<Box<Backlog>>,
    pub(super) settings: Settings,
    pub(super) outbox: Outbox,
    /// The payload of the latest ping, when the outbox was too full for its pong.
    pub(super) pong: Option<Box<Payload>>,

    // Reading. From here on, a broadcast touches nothing.
    /// The share of the server's budget.
    pub(super) account: Account,
    /// Short messages before everything in the inbox.
    pub(super) run: WireBatch,
    pub(super) inbox: Inbox,
    pub(super) taken: Taken,

    pub(super) stream: Option<Stream>,
    /// Bytes that were read and not decoded yet.
    pub(super) unread: Bytes,
    pub(super) decoder: Decoder,
    /// The limit on the peer's rate, if there is one.
    pub(super) limiter: Option<Box<Limiter>>,
    /// Messages that may still pass in this turn.
    pub(super) budget: usize,
    /// The ticket of the next send, or broadcast, that has to wait.
    pub(super) backlog_end: SendTicket,
    pub(super) timers: Timers,
    pub(super) tally: Tally,
    /// The first bytes of each ping of a heartbeat, by which its pong is known.
    pub(super) ping_tag: [u8; 4],
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
        // Few connections have these: they are boxed, or in the timers.
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
            mode: None,
            receiver: Receiver::Away,
            taken: Taken::Received,
            is_peer_ahead: false,
            limiter,
            account,
            outbox: Outbox::new(role),
            pong: None,
            backlog: None,
            backlog_end: SendTicket::default(),
            deflation,
            lifecycle: Lifecycle::Open,
            state: State::default(),
            initiator: Initiator::Local,
            unlogged: None,
            driver: Driver::Callers,
            work: Work::Known,
            handler: HandlerPoll::Parked,
            budget: MESSAGES_PER_TURN,
            timers,
            ping_tag: thread_cache::bytes(),
            has_news: false,
            has_listeners: false,
            role,
            settings,
            tally,
        }
    }

    /// Drives the connection: writes, reads ahead, goes on closing and meets deadlines, as far as that is possible
    /// without waiting. Returns false if there is more to do once others had their turn.
    ///
    /// The connection's task calls this, or each waiting caller of a connection without one.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let was_gone = self.is_gone();
        // All work that was owed is done here.
        self.work = Work::Known;
        let has_parked = self.make_progress(cx);
        // The rest waits for the stream or the timer, which have our waker. The task alone ends.
        if !has_parked {
            self.owe_look();
        } else if self.work != Work::OwedToAll {
            let has_ended = !was_gone && self.is_gone();
            self.work = if has_ended { Work::Owed } else { Work::Known };
        }
        has_parked
    }

    fn make_progress(&mut self, cx: &mut Context<'_>) -> bool {
        // 1. Memory: the inbox gives its own back, and the connection ends if it holds most of the server's.
        self.inbox.release();
        self.give_way();
        for _ in 0..READS_PER_TURN {
            // 2. Write all that is queued, in one go.
            self.write(cx);
            // 3. Read ahead, or go on with the closing handshake.
            let has_progressed = match self.lifecycle {
                Lifecycle::Open => self.can_read_ahead() && self.read_ahead(cx).is_ready(),
                Lifecycle::Draining(_) => false,
                Lifecycle::Closing { .. } => self.continue_closing(cx),
                Lifecycle::Lingering { .. } => self.linger(cx),
                Lifecycle::Gone { .. } => {
                    self.count_held(cx.waker());
                    return true;
                }
            };
            if !has_progressed {
                // 4. Meet the deadlines that are due, and set the timer for the next.
                self.check_deadlines(cx);
                return true;
            }
        }
        // A peer that never stops has no more time than others.
        self.check_deadlines(cx);
        false
    }

    /// Loads what an echo needs of the connection, which is spread over some twenty lines of the processor's cache. With
    /// a thousand connections each of them is a miss. Here they are waited for at once, and not one after the other.
    #[inline]
    fn prefetch(&self) {
        std::hint::black_box((
            self.state.can_send(),
            self.settings.send_buffer_size,
            self.outbox.len(),
            self.outbox.counts.frames,
            self.run.len(),
            self.inbox.bytes(),
            self.stream.is_some(),
            self.unread.len(),
            self.limiter.is_some(),
            self.timers.is_set(),
            self.tally.wire_bytes_out,
            self.tally.messages_in,
        ));
    }

    /// The connection's task polls its handler.
    pub(super) fn begin_poll(&mut self) {
        self.prefetch();
        self.handler =
            HandlerPoll::Running { is_other: false, during_poll: None, is_awaited: false };
        self.budget = MESSAGES_PER_TURN;
        if self.receiver == Receiver::InTask {
            self.receiver = Receiver::Away;
        }
    }

    /// The handler has parked.
    pub(super) fn end_poll(&mut self) {
        let poll = std::mem::replace(&mut self.handler, HandlerPoll::Parked);
        // Nearly always `enter` has taken them. A thread that ends has lost its handler's buffer, and finds them here.
        let HandlerPoll::Running { during_poll, is_awaited, .. } = poll else { return };
        if let Some(mut during_poll) = during_poll {
            self.outbox.append(&mut during_poll);
        }
        self.has_news |= is_awaited;
    }

    /// The lock is taken: by the thread that polls the handler, whose frames are in the outbox now, or by another.
    #[inline]
    pub(super) fn enter(&mut self, is_handler: bool) {
        if let HandlerPoll::Running { is_other, during_poll, .. } = &mut self.handler {
            *is_other = !is_handler;
            if let Some(mut during_poll) = during_poll.take_if(|_| is_handler) {
                self.outbox.append(&mut during_poll);
            }
        }
    }

    /// Whether the handler is polled at the moment, by the connection's task.
    pub(super) fn is_polled(&self) -> bool {
        matches!(self.handler, HandlerPoll::Running { .. })
    }

    /// Whether another task has the lock while the handler is polled.
    #[cfg(feature = "rooms")]
    pub(super) fn is_during_poll(&self) -> bool {
        matches!(self.handler, HandlerPoll::Running { is_other: true, .. })
    }

    /// Whether others are to be told of this step. While the handler is polled, the task is awake.
    #[inline]
    pub(super) fn is_owing(&self) -> bool {
        let is_recv_owed = self.receiver.is_waiting() && self.can_recv();
        let is_rare_owed = self.unlogged.is_some() || self.account.owes();
        self.is_owing_driver_or_waiters() || is_recv_owed || is_rare_owed
    }

    /// [`is_owing`](Self::is_owing) after a broadcast was delivered: unless that has closed the connection, it has
    /// given `recv` nothing and taken nothing of the budget. A look at those would miss the cache.
    #[cfg(feature = "rooms")]
    pub(super) fn is_owing_for_broadcast(&self) -> bool {
        let is_owing = self.is_owing_driver_or_waiters();
        is_owing || (!self.lifecycle.is_before_close() && self.is_owing())
    }

    #[inline]
    fn is_owing_driver_or_waiters(&self) -> bool {
        let is_driver_owed = match self.work {
            Work::Known | Work::Told => false,
            Work::Owed => self.has_task() && !self.is_polled(),
            Work::OwedToAll => !self.is_polled(),
        };
        is_driver_owed || (self.has_news && self.has_listeners)
    }

    /// The connection's task has something to do. Without a task, the caller does it.
    pub(super) fn owe_task(&mut self) {
        if self.work != Work::OwedToAll {
            self.work = Work::Owed;
        }
    }

    /// The connection's task, or without one those who wait in a call, have to look at the connection.
    pub(super) fn owe_look(&mut self) {
        self.work = Work::OwedToAll;
    }

    /// Takes over the duty to write for the connection's task. If this returns true the caller has it, and the
    /// task is not woken.
    #[cfg(feature = "rooms")]
    pub(super) fn claim_write(&mut self) -> bool {
        let is_claimed = self.has_task() && !self.is_polled() && self.work == Work::Owed;
        if is_claimed {
            self.work = Work::Told;
        }
        is_claimed
    }

    /// Whether the connection has a task that reads, writes and closes for it.
    pub(super) fn has_task(&self) -> bool {
        matches!(self.driver, Driver::Task(_))
    }

    /// Whether `cx` is that of the connection's task.
    pub(super) fn is_in_task(&self, cx: &Context<'_>) -> bool {
        matches!(&self.driver, Driver::Task(Some(waker)) if waker.will_wake(cx.waker()))
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

    /// Counters of all that has passed so far.
    pub(super) fn stats(&self) -> ConnectionStats {
        self.tally.stats(&self.outbox.counts)
    }
}

pub(super) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
