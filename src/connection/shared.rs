//! `Shared`: the connection under its lock, who is woken after it, and who waits for it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;

use super::backlog::SendTicket;
use super::budget::{Account, MessageBudget, Owed};
use super::compression::Deflation;
use super::handler_buffer::{self, HandlerBuffer};
use super::recv::Inflation;
use super::state::{Connection, MESSAGES_PER_TURN, Parked};
use super::stats::{CloseInfo, ConnectionId, Stats};
use crate::changes;
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::escaped::Escaped;
use crate::foreign::{attempt, tell};
use crate::options::Settings;
use crate::proto::{CloseCode, CloseFrame, Frame, ProtocolError, Role};
use crate::stream::Stream;
use crate::sync::{Mutex, MutexGuard};

/// A place among those that wait for progress.
pub(super) type Listener = Option<changes::Listener>;

/// What the opening handshake has settled.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflation: Option<Arc<Deflation>>,
    /// What the connections of the server may hold of messages in progress, if that is bounded.
    pub(crate) budget: Option<Arc<MessageBudget>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    connection: Mutex<Connection>,
    pub(super) signals: Arc<Signals>,
    /// Whether another task has closed the connection, or begun a message in fragments, since the
    /// turn of the handler began. It then takes the lock to send.
    is_shut: AtomicBool,
    connection_id: ConnectionId,
    /// The waker that stream and timer are polled with, in whichever task.
    pub(super) io_waker: Waker,
    opened: Opened,
}

/// The connection while its lock is held, by [`Shared::with`] alone.
struct Access<'a, 'b> {
    connection: MutexGuard<'a, Connection>,
    wakes: &'b mut Wakes<'a>,
    /// Whether this thread polls the connection's handler.
    is_turn: bool,
}

/// What a step under the lock owes to others, and must not do itself: wakers and loggers are foreign code.
/// [`Shared::with`] drops it when the lock is free, which does all of it.
pub(super) struct Wakes<'a> {
    shared: &'a Shared,
    /// Whether what is owed is left for the next step.
    is_postponed: bool,
    driver: Driver,
    recv: bool,
    waiters: bool,
    rare: Option<Box<Rare>>,
}

/// What few steps leave behind: boxed, so that the others do not ask for each of it.
#[derive(Default)]
struct Rare {
    failure: Option<Box<(Error, CloseCode)>>,
    /// What is owed to the other connections of the server.
    owed: Option<(Arc<MessageBudget>, Owed)>,
}

/// The one that writes, reads ahead and closes, if it is to be woken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Driver {
    Asleep,
    /// The connection's task. Without one, those who wait in a call know themselves.
    Task,
    /// The task; without one, all who wait in a call.
    TaskOrCallers,
}

impl<'a> Wakes<'a> {
    #[inline]
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            is_postponed: false,
            driver: Driver::Asleep,
            recv: false,
            waiters: false,
            rare: None,
        }
    }

    /// Wakes no one after this step, for the caller holds another lock. If this returns true, somebody is owed a
    /// wake-up: another step, when the other lock is free, is enough.
    #[cfg(feature = "rooms")]
    pub(super) fn postpone(&mut self, connection: &mut Connection) -> bool {
        self.is_postponed = true;
        connection.has_news &= connection.has_listeners;
        connection.is_owing()
    }

    /// Takes over what the step owes to others: nearly always nothing, which costs a few comparisons.
    #[inline]
    fn collect(&mut self, connection: &mut Connection) {
        if connection.is_owing() {
            self.collect_owed(connection);
        }
        connection.has_news = false;
    }

    #[cold]
    fn collect_owed(&mut self, connection: &mut Connection) {
        if connection.parked != Parked::Nobody && connection.can_recv() {
            match std::mem::replace(&mut connection.parked, Parked::Nobody) {
                Parked::InTask => self.driver = Driver::Task,
                Parked::Elsewhere | Parked::Nobody => self.recv = true,
            }
        }
        self.waiters = connection.has_news && std::mem::take(&mut connection.has_listeners);
        // During the handler's turn the task is awake, and sees to all of it when the handler parks.
        if !connection.is_in_turn() {
            if connection.has_task && std::mem::take(&mut connection.is_task_owed) {
                connection.is_write_scheduled = true;
                self.driver = Driver::Task;
            }
            if std::mem::take(&mut connection.is_look_owed) {
                self.driver = Driver::TaskOrCallers;
            }
        }
        let rare =
            Rare { failure: connection.unlogged.take(), owed: connection.account.take_owed() };
        self.rare = Some(rare).filter(|it| it.failure.is_some() || it.owed.is_some()).map(Box::new);
    }

    #[cold]
    fn fire(&mut self) {
        let signals = &self.shared.signals;
        match self.driver {
            Driver::Asleep => {}
            Driver::Task => _ = signals.wake_task(),
            Driver::TaskOrCallers => signals.wake_driver(),
        }
        if self.recv {
            signals.wake_recv();
        }
        if self.waiters {
            signals.wake_waiters();
        }
        let Rare { failure, owed } = self.rare.take().map(|rare| *rare).unwrap_or_default();
        if let Some((error, code)) = failure.map(|failure| *failure) {
            let error = Escaped(error);
            tell(|| log::debug!(code = u16::from(code), error:%; "connection failed: {error}"));
        }
        if let Some((budget, owed)) = owed {
            budget.settle(owed);
        }
    }
}

impl Drop for Wakes<'_> {
    #[inline]
    fn drop(&mut self) {
        let is_due = self.driver != Driver::Asleep || self.recv || self.waiters;
        if is_due || self.rare.is_some() {
            self.fire();
        }
    }
}

impl Drop for Access<'_, '_> {
    fn drop(&mut self) {
        let shared = self.wakes.shared;
        if self.is_turn {
            handler_buffer::set_room(shared.id(), self.connection.room());
        }
        let is_shut = !self.connection.can_buffer();
        if shared.is_shut.load(Ordering::Relaxed) != is_shut {
            shared.is_shut.store(is_shut, Ordering::Release);
        }
        if !self.wakes.is_postponed {
            self.wakes.collect(&mut self.connection);
        }
    }
}

impl Shared {
    pub(crate) fn new(
        stream: Stream,
        unread: Bytes,
        role: Role,
        settings: Settings,
        opened: Opened,
    ) -> Arc<Self> {
        let signals = Arc::new(Signals::default());
        let io_waker = Waker::from(Arc::clone(&signals));
        let account = Account::new(opened.budget.clone());
        let connection =
            Connection::new(stream, unread, role, settings, opened.deflation.clone(), account);
        Arc::new(Self {
            connection: Mutex::new(connection),
            signals,
            is_shut: AtomicBool::new(false),
            connection_id: ConnectionId::next(),
            io_waker,
            opened,
        })
    }

    /// Runs a step of the connection under its lock, and then wakes those who are owed that, also if the step
    /// unwinds. Frames that this thread keeps in the handler's buffer are in the outbox first.
    #[inline]
    pub(super) fn with<R>(&self, step: impl FnOnce(&mut Connection, &mut Wakes<'_>) -> R) -> R {
        // Dropped last: the lock is free when foreign code runs.
        let mut wakes = Wakes::new(self);
        let mut access = self.enter(&mut wakes);
        step(&mut access.connection, access.wakes)
    }

    /// [`with`](Self::with) at the end of a handler's poll, whose buffer is `interrupted`'s again.
    pub(super) fn with_handler_parked<R>(
        &self,
        interrupted: Option<Box<HandlerBuffer>>,
        step: impl FnOnce(&mut Connection, &mut Wakes<'_>) -> R,
    ) -> R {
        let mut wakes = Wakes::new(self);
        let mut access = self.enter(&mut wakes);
        access.is_turn = false;
        access.connection.end_turn();
        handler_buffer::end(interrupted);
        step(&mut access.connection, access.wakes)
    }

    #[inline]
    fn enter<'a, 'b>(&'a self, wakes: &'b mut Wakes<'a>) -> Access<'a, 'b> {
        let mut connection = self.connection.lock();
        let is_turn = handler_buffer::drain(self.id(), &mut connection);
        connection.enter(is_turn);
        Access { connection, wakes, is_turn }
    }

    /// Queues the frame without taking the lock, if this is the turn of the connection's handler.
    #[inline]
    pub(super) fn buffer(&self, frame: &Frame) -> bool {
        !self.is_shut.load(Ordering::Acquire) && handler_buffer::push(self.id(), frame)
    }

    /// Registers the caller in `recv`, who is not in the connection's task. Returns the waker before, to be
    /// dropped without the lock like all foreign code.
    pub(super) fn register_recv(&self, waker: &Waker) -> Option<Waker> {
        let waker = waker.clone();
        self.signals.recv.lock().replace(waker)
    }

    /// Different from that of every other connection that is alive.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// What the connections of the server may hold of messages in progress, if that is bounded.
    pub(super) fn budget(&self) -> Option<&Arc<MessageBudget>> {
        self.opened.budget.as_ref()
    }

    /// How messages are compressed, if they are.
    pub(super) fn deflation(&self) -> Option<&Arc<Deflation>> {
        self.opened.deflation.as_ref()
    }

    /// The other direction of [`deflation`](Self::deflation).
    pub(super) fn inflation(&self) -> Option<Inflation> {
        let deflation = self.deflation()?;
        let (role, max) =
            self.with(|connection, _| (connection.role(), connection.max_message_size()));
        Some(Inflation::new(deflation.parameters(), role, max))
    }

    /// The context that stream and timer are polled with.
    pub(super) fn io_context(&self) -> Context<'_> {
        Context::from_waker(&self.io_waker)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.with(|connection, _| connection.is_open())
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        self.with(|connection, _| connection.close_info())
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.opened.peer_addr
    }

    pub(crate) fn stats(&self) -> Stats {
        self.with(|connection, _| connection.stats())
    }

    /// Bytes that were sent and that the stream has not taken.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.with(|connection, _| connection.waiting_len())
    }

    pub(super) fn subprotocol(&self) -> Option<&str> {
        self.opened.subprotocol.as_deref()
    }

    /// Changes what is to be done when, and has the task that drives the connection look at it.
    pub(super) fn reschedule<T>(&self, change: impl FnOnce(&mut Connection) -> T) -> T {
        self.with(|connection, _| {
            connection.owe_look();
            change(connection)
        })
    }

    #[cfg(feature = "rooms")]
    /// Wakes the connection's task, to write or to close.
    pub(super) fn wake_task(&self) {
        self.signals.wake_task();
    }

    /// May something be queued now by somebody at `ticket`? Writes what is in the way, if the stream takes
    /// it. Who has to wait has a place then.
    pub(super) fn has_room(
        &self,
        connection: &mut Connection,
        ticket: &mut Option<SendTicket>,
    ) -> Result<bool> {
        if let Some(error) = connection.send_error() {
            return Err(error);
        }
        if !connection.has_room(*ticket) {
            connection.hold_ticket(ticket);
            let before = connection.outbox.written();
            connection.write(&mut self.io_context());
            // A peer that reads as fast as this can be written must not keep the thread. One that reads
            // nothing does not, and those who wait for it have to come to rest.
            if connection.outbox.written() > before {
                connection.budget = connection.budget.saturating_sub(MESSAGES_PER_TURN / 4);
            }
        }
        Ok(connection.has_room(*ticket) && connection.budget > 0)
    }

    /// The `WebSocket` is dropped: its connection ends.
    pub(super) fn abandon(&self) {
        self.with(|connection, _| {
            (connection.is_abandoned, connection.is_task_owed) = (true, true);
            connection.forget_received();
            if !connection.has_task {
                let failed = std::thread::panicking();
                let outcome = if failed { CloseCode::INTERNAL_ERROR } else { CloseCode::NORMAL };
                connection.abandon(&mut self.io_context(), outcome);
            }
        });
    }
}

/// The tasks that wait for the connection.
///
/// Wakers are foreign code: none runs under a lock of ours, and one that panics keeps no other from being
/// woken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection's own task, if it has one: it passes on what concerns the others.
    task: Mutex<Option<Waker>>,
    /// The task in `recv`. No `AtomicWaker`: that may call the waker where it is registered, under the lock.
    recv: Mutex<Option<Waker>>,
    /// All other waiters: senders that wait for room, `flush`, `close`, `closed`.
    pub(super) progress: Changes,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_driver();
    }
}

impl Signals {
    /// Wakes the task that writes, reads ahead and closes; without one, all who wait in a call.
    pub(super) fn wake_driver(&self) {
        if !self.wake_task() {
            self.wake_recv();
            self.wake_waiters();
        }
    }

    /// Wakes the connection's task; false if it has none.
    pub(super) fn wake_task(&self) -> bool {
        // Cloned, so that the lock is free when it runs.
        let task = self.task().clone();
        let has_task = task.is_some();
        if let Some(task) = task {
            guarded(|| task.wake());
        }
        has_task
    }

    pub(super) fn wake_recv(&self) {
        let recv = self.recv.lock().take();
        if let Some(recv) = recv {
            guarded(|| recv.wake());
        }
    }

    pub(super) fn wake_waiters(&self) {
        self.progress.tell();
    }

    /// Replaces the waker of the connection's task, and returns the one before.
    pub(super) fn set_task(&self, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut *self.task(), waker)
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock()
    }
}

/// Runs foreign code that must not end ours.
pub(super) fn guarded<R>(foreign: impl FnOnce() -> R) {
    let _ = attempt(|| drop(foreign()));
}

impl Shared {
    /// Waits until the stream has taken all that was queued before.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (mut listener, mut mark) = (None, None);
        std::future::poll_fn(|cx| self.poll_flush(cx, &mut listener, &mut mark)).await
    }

    /// Waits until the stream has taken all that was sent when this was polled first: at each poll
    /// there may be more, by others. `mark` is how much that is, once it is known.
    pub(super) fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mark: &mut Option<u64>,
    ) -> Poll<Result<()>> {
        let result = ready!(self.poll_wait(cx, listener, |connection| {
            if mark.is_none() {
                *mark = connection.mark();
            }
            connection.write(&mut self.io_context());
            connection.is_written((*mark)?)
        }));
        *mark = None;
        Poll::Ready(result)
    }

    pub(super) async fn flush_to(&self, mark: u64) -> Result<()> {
        let mut listener = None;
        std::future::poll_fn(|cx| self.poll_written_to(cx, &mut listener, mark)).await
    }

    pub(super) fn poll_written_to(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mark: u64,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |connection| {
            connection.write(&mut self.io_context());
            connection.is_written(mark)
        })
    }

    /// Sends a close frame and waits for the end of the closing handshake.
    pub(crate) async fn close(
        &self,
        code: Result<CloseCode, ProtocolError>,
        reason: &str,
    ) -> Result<CloseInfo> {
        let code = code.map_err(Error::InvalidClose)?;
        let frame = CloseFrame::new(code, reason).map_err(Error::InvalidClose)?;
        let (mut frame, mut listener) = (Some(frame), None);
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| {
                if let Some(frame) = frame.take() {
                    connection.begin_close(Some(frame));
                }
                if connection.is_settled() { connection.close_info().map(Ok) } else { None }
            })
        })
        .await
    }

    /// Begins the closing handshake, unless it has begun, and leaves it to the connection's task.
    #[cfg(feature = "server")]
    pub(crate) fn begin_close(&self, frame: CloseFrame) {
        self.with(|connection, _| connection.begin_close(Some(frame)));
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self) -> CloseInfo {
        let mut listener = None;
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| connection.close_info())
        })
        .await
    }

    pub(super) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        ticket: &mut Option<SendTicket>,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |connection| match self.has_room(connection, ticket) {
            Ok(has_room) => has_room.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })
    }

    pub(super) fn poll_closed(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
    ) -> Poll<Result<()>> {
        self.poll_wait(cx, listener, |connection| {
            connection.begin_close(Some(CloseFrame::lossy(CloseCode::NORMAL, "")));
            connection.is_settled().then_some(Ok(()))
        })
    }

    /// Waits until `check` finds what it looks for. A connection without a task of its own is
    /// served from here.
    pub(super) fn poll_wait<T>(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mut check: impl FnMut(&mut Connection) -> Option<T>,
    ) -> Poll<T> {
        loop {
            let step = self.with(|connection, _| {
                if let Some(found) = check(connection) {
                    return Wait::Over(found);
                }
                if connection.budget == 0 {
                    connection.budget = MESSAGES_PER_TURN;
                    return Wait::Yield;
                }
                // Listening begins under the lock, so nothing that is done under it is missed, and
                // before the last look at the stream, so that no event of it is.
                listener.get_or_insert_with(|| self.signals.progress.listen());
                connection.has_listeners = true;
                if connection.has_task || connection.service(&mut self.io_context()) {
                    Wait::Listen
                } else {
                    Wait::Yield
                }
            });
            match step {
                Wait::Over(found) => {
                    // Without the lock: it may hold a waker, which is foreign code.
                    *listener = None;
                    return Poll::Ready(found);
                }
                Wait::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Wait::Listen => {}
            }
            let Some(listening) = listener else { continue };
            ready!(Pin::new(listening).poll(cx));
            *listener = None;
        }
    }
}

/// How a wait goes on after a look at the connection.
enum Wait<T> {
    Over(T),
    /// Other tasks have their turn first.
    Yield,
    Listen,
}
