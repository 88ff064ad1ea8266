//! `Shared`: the connection under its lock, who is woken after it, and who waits for it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::backlog::SendTicket;
use super::close::close_frame;
use super::compression::Deflation;
use super::handler_buffer::{self, HandlerBuffer};
use super::recv::Inflation;
use super::state::{Connection, MESSAGES_PER_TURN};
use super::stats::{CloseInfo, ConnectionId, ConnectionStats};
use super::wakes::{Signals, Wakes};
use crate::budget::{Account, MessageBudget};
use crate::changes;
use crate::error::Result;
use crate::options::Settings;
use crate::proto::{CloseCode, CloseFrame, Frame, ProtocolError, Role};
use crate::reject::Subject;
#[cfg(feature = "rooms")]
use crate::runtime::Home;
use crate::stream::Stream;
use crate::sync::{Mutex, MutexGuard};

/// A place among those that wait for progress.
pub(super) type Listener = Option<changes::Listener>;

/// The results of the opening handshake.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Opened {
    /// First: a broadcast asks for it, and the count of the `Arc` is in the same line of the cache.
    pub(crate) deflation: Option<Arc<Deflation>>,
    /// The budget of the server for messages in progress, if it has one.
    pub(crate) budget: Option<Arc<MessageBudget>>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) peer_addr: Option<SocketAddr>,
    /// The path of the request, without its query, for log records. Only servers know it.
    pub(crate) path: Option<Box<str>>,
    /// The number that the connection has already, if it had another protocol before.
    pub(crate) id: Option<ConnectionId>,
}

impl Opened {
    /// What is left for records, of a connection whose stream has not come.
    #[cfg(feature = "server")]
    pub(crate) fn lost(self) -> Self {
        let Self { peer_addr, path, id, .. } = self;
        Self { peer_addr, path, id, ..Self::default() }
    }

    /// What records tell of the connection.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            method: self.path.is_some().then_some("GET"),
            path: self.path.as_deref(),
            peer: self.peer_addr,
            connection: self.id.map(u64::from),
        }
    }
}

/// The connection that a handler belongs to, for log records.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    Open(&'a Shared),
    /// Its stream has never come.
    #[cfg(feature = "server")]
    Lost(&'a Opened),
    Unknown,
}

impl<'a> Whose<'a> {
    pub(super) fn subject(self) -> Subject<'a> {
        match self {
            Self::Open(shared) => shared.subject(),
            #[cfg(feature = "server")]
            Self::Lost(opened) => opened.subject(),
            Self::Unknown => Subject::default(),
        }
    }

    /// Whether errors of the connection may be what its handler fails with.
    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Open(shared) => !shared.is_open(),
            #[cfg(feature = "server")]
            Self::Lost(_) => true,
            Self::Unknown => true,
        }
    }
}

/// The fields stand in the order in which a broadcast comes to them, as those of [`Connection`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    opened: Opened,
    /// Whether another task has closed the connection, or begun a message in fragments, since the
    /// turn of the handler began. It then takes the lock to send.
    is_shut: AtomicBool,
    connection: Mutex<Connection>,
    pub(super) signals: Arc<Signals>,
    connection_id: ConnectionId,
    /// Where the connection's task runs.
    #[cfg(feature = "rooms")]
    pub(super) home: Home,
    /// The waker that stream and timer are polled with, in whichever task.
    pub(super) io_waker: Waker,
}

/// The connection while its lock is held, by [`Shared::with`] alone.
struct Access<'a, 'b> {
    connection: MutexGuard<'a, Connection>,
    wakes: &'b mut Wakes<'a>,
    /// Whether this thread polls the connection's handler.
    is_turn: bool,
}

impl Drop for Access<'_, '_> {
    fn drop(&mut self) {
        let shared = self.wakes.shared;
        let can_buffer = self.connection.can_buffer();
        if self.is_turn {
            handler_buffer::set_room(shared.id(), self.connection.room_if(can_buffer));
        }
        // The handler asks this flag before each send. It is written only when it changes, to keep its cache line shared.
        let is_shut = !can_buffer;
        if shared.is_shut.load(Ordering::Relaxed) != is_shut {
            shared.is_shut.store(is_shut, Ordering::Release);
        }
        self.wakes.collect(&mut self.connection);
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
            connection_id: opened.id.unwrap_or_else(ConnectionId::next),
            #[cfg(feature = "rooms")]
            home: Home::here(),
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
        // The buffer is drained. The thread's next frames are another handler's.
        access.is_turn = false;
        access.connection.end_poll();
        handler_buffer::end(interrupted);
        step(&mut access.connection, access.wakes)
    }

    #[inline]
    fn enter<'a, 'b>(&'a self, wakes: &'b mut Wakes<'a>) -> Access<'a, 'b> {
        let mut connection = self.connection.lock();
        // First of all, so that frames of this handler keep their place before whatever the step does.
        let is_turn = handler_buffer::drain(self.id(), &mut connection);
        connection.enter(is_turn);
        Access { connection, wakes, is_turn }
    }

    /// Queues the frame without taking the lock, if this is the turn of the connection's handler.
    #[inline]
    pub(super) fn buffer(&self, frame: &Frame) -> bool {
        !self.is_shut.load(Ordering::Acquire) && handler_buffer::push(self.id(), frame)
    }

    /// Loads what a delivery needs first into the processor's cache, without waiting for it: several of these in a row
    /// take little more time than one.
    #[cfg(feature = "rooms")]
    pub(crate) fn prefetch(&self) {
        std::hint::black_box(self.is_shut.load(Ordering::Relaxed));
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

    /// What records tell of the connection.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { connection: Some(self.connection_id.into()), ..self.opened.subject() }
    }

    /// The budget of the server for messages in progress, if it has one.
    pub(super) fn budget(&self) -> Option<&Arc<MessageBudget>> {
        self.opened.budget.as_ref()
    }

    /// The compression of messages, if it was agreed on.
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

    /// The context that stream and timer are polled with, in a step under the lock.
    pub(super) fn io_context(&self) -> Context<'_> {
        self.signals.begin_polling();
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

    pub(crate) fn stats(&self) -> ConnectionStats {
        self.with(|connection, _| connection.stats())
    }

    /// Bytes that were sent and that the stream has not taken.
    #[cfg(feature = "accept")]
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

    /// Whether a send with this ticket may queue now. Writes the bytes that are in the way, if the stream takes
    /// them. A send that has to wait has a ticket then.
    pub(super) fn has_room(
        &self,
        connection: &mut Connection,
        ticket: &mut Option<SendTicket>,
    ) -> Result<bool> {
        if let Some(error) = connection.send_error() {
            return Err(error);
        }
        if !connection.has_room(*ticket) {
            // From here on, broadcasts that come later stay behind this send.
            connection.hold_ticket(ticket);
            let before = connection.outbox.written();
            connection.write(&mut self.io_context());
            // A peer that reads as fast as this can be written must not keep the thread: the sender yields now and then.
            // A peer that reads nothing does not, and callers that wait for it have to come to rest.
            if connection.outbox.written() > before {
                connection.budget = connection.budget.saturating_sub(MESSAGES_PER_TURN / 4);
            }
        }
        Ok(connection.has_room(*ticket))
    }

    /// Does for a connection without a task what a caller does who waits: writes, reads ahead, answers, goes on closing.
    #[cfg(feature = "testing")]
    pub(crate) fn attend(&self) {
        self.with(|connection, _| {
            if !connection.has_task() {
                connection.drive(&mut self.io_context());
            }
        });
    }

    /// The `WebSocket` is dropped: its connection ends.
    pub(super) fn abandon(&self) {
        self.with(|connection, _| {
            connection.lose_receiver();
            connection.owe_task();
            // A task closes in order. Without one, this is the last call.
            if !connection.has_task() {
                let failed = std::thread::panicking();
                let outcome = if failed { CloseCode::INTERNAL_ERROR } else { CloseCode::NORMAL };
                connection.abandon(&mut self.io_context(), outcome);
            }
        });
    }
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
            // Frames of the handler's buffer are not counted yet while another task flushes: it asks again.
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
        let (mut frame, mut listener) = (Some(close_frame(code, reason)?), None);
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| {
                // By the first poll only: a caller that polls again waits for the same closing.
                if let Some(frame) = frame.take() {
                    connection.begin_close(Some(frame));
                }
                if connection.is_settled() { connection.close_info().map(Ok) } else { None }
            })
        })
        .await
    }

    /// Begins the closing handshake, unless it has begun, and leaves it to the connection's task, or without one to those
    /// who wait in a call.
    pub(crate) fn start_close(&self, frame: CloseFrame) {
        self.reschedule(|connection| connection.begin_close(Some(frame)));
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self) -> CloseInfo {
        let mut listener = None;
        std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| connection.close_info())
        })
        .await
    }

    /// Waits until the stream is dropped. It drives nothing, and no step wakes it before.
    #[cfg(feature = "rooms")]
    pub(crate) async fn gone(&self) {
        let mut listener = None;
        std::future::poll_fn(|cx| {
            loop {
                let is_gone = self.with(|connection, _| {
                    // Under the lock, so that the end is not missed.
                    listener.get_or_insert_with(|| self.signals.progress.listen());
                    connection.is_gone()
                });
                if is_gone {
                    return Poll::Ready(());
                }
                if let Some(listening) = &mut listener {
                    ready!(Pin::new(listening).poll(cx));
                    listener = None;
                }
            }
        })
        .await;
    }

    pub(super) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        ticket: &mut Option<SendTicket>,
    ) -> Poll<Result<()>> {
        self.poll_wait_in_turn(cx, listener, |connection| match self.has_room(connection, ticket) {
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

    /// [`poll_wait`](Self::poll_wait) of a sender, which yields once the turn has no messages left.
    pub(super) fn poll_wait_in_turn<T>(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Listener,
        mut check: impl FnMut(&mut Connection) -> Option<T>,
    ) -> Poll<T> {
        self.poll_wait(
            cx,
            listener,
            |connection| {
                if connection.budget > 0 { check(connection) } else { None }
            },
        )
    }

    /// Lets other tasks go on: the messages of this turn are used up. The caller returns pending.
    #[cold]
    pub(super) fn yield_turn(&self, cx: &Context<'_>) {
        self.with(|connection, _| connection.budget = MESSAGES_PER_TURN);
        cx.waker().wake_by_ref();
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
                // `check` has done the work of a whole turn.
                if connection.budget == 0 {
                    connection.budget = MESSAGES_PER_TURN;
                    return Wait::Yield;
                }
                // Listening begins under the lock, so nothing that is done under it is missed, and
                // before the last look at the stream, so that no event of it is.
                listener.get_or_insert_with(|| self.signals.progress.listen());
                connection.has_listeners = true;
                if connection.has_task() || connection.drive(&mut self.io_context()) {
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
            // Told between the look and here: it looks again.
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
