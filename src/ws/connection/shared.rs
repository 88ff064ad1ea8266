//! What the handles of one connection share: the connection itself under a lock, and the turn of its
//! handler. Who is woken is `signals`, and who waits `waiting`.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use event_listener::EventListener;

use super::backlog::Place;
use super::connection_id::ConnectionId;
use super::core::{Core, MESSAGES_PER_TURN, Parked};

use super::deflation::Deflation;
use super::inflation::Inflation;
use super::signals::Signals;
use super::stats::{CloseInfo, Stats};
use super::turn;
use crate::error::Result;
use crate::stream::Stream;
use crate::ws::options::Settings;
use crate::ws::proto::{CloseCode, Frame, Role};

/// A place among those that wait for progress.
pub(super) type Listener = Option<EventListener>;

/// What the opening handshake has settled.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflation: Option<Arc<Deflation>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    pub(super) signals: Arc<Signals>,
    /// Whether another task has closed the connection, or begun a message in fragments, since the
    /// turn of the handler began. It then takes the lock to send.
    is_shut: AtomicBool,
    connection_id: ConnectionId,
    /// The waker that stream and timer are polled with, whoever polls them.
    pub(super) io_waker: Waker,
    opened: Opened,
}

/// The connection, for as long as its lock is held.
pub(super) struct CoreGuard<'a> {
    core: MutexGuard<'a, Core>,
    shared: &'a Shared,
    /// Is this the turn of the connection's handler?
    is_turn: bool,
}

impl CoreGuard<'_> {
    /// Is this the turn of the connection's handler, after which the task writes?
    pub(super) fn is_turn(&self) -> bool {
        self.is_turn
    }

    /// Does nobody see to it yet that what is queued is written by, or for, the connection's task? Then
    /// whoever asks has to.
    pub(super) fn claim_write(&mut self) -> bool {
        let is_claimed = self.has_task && !self.is_write_scheduled && !self.is_turn;
        self.is_write_scheduled |= is_claimed;
        is_claimed
    }
}

impl Deref for CoreGuard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        if self.is_turn {
            turn::set_room(self.shared.id(), self.core.room());
        }
        let is_shut = !self.core.can_stage();
        if self.shared.is_shut.load(Ordering::Relaxed) != is_shut {
            self.shared.is_shut.store(is_shut, Ordering::Release);
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
        let core = Core::new(stream, unread, role, settings, opened.deflation.clone());
        Arc::new(Self {
            core: Mutex::new(core),
            signals,
            is_shut: AtomicBool::new(false),
            connection_id: ConnectionId::next(),
            io_waker,
            opened,
        })
    }

    /// Takes the lock, and along with it what this thread has staged for the connection.
    pub(super) fn lock(&self) -> CoreGuard<'_> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let is_turn = turn::unstage(self.id(), &mut core);
        core.enter(is_turn);
        CoreGuard { core, shared: self, is_turn }
    }

    /// Queues the frame without taking the lock, if this is the turn of the connection's handler.
    #[inline]
    pub(super) fn stage(&self, frame: &Frame) -> bool {
        !self.is_shut.load(Ordering::Acquire) && turn::stage(self.id(), frame)
    }

    /// Different from that of every other connection that is alive.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// How messages are compressed, if they are.
    pub(super) fn deflation(&self) -> Option<&Arc<Deflation>> {
        self.opened.deflation.as_ref()
    }

    /// The other direction of [`deflation`](Self::deflation).
    pub(super) fn inflation(&self) -> Option<Inflation> {
        let deflation = self.deflation()?;
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Inflation::new(deflation.parameters(), core.role(), core.max_message_size()))
    }

    /// The context that stream and timer are polled with.
    pub(super) fn io_context(&self) -> Context<'_> {
        Context::from_waker(&self.io_waker)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    pub(crate) fn close_info(&self) -> Option<CloseInfo> {
        self.lock().close_info()
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.opened.peer_addr
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().stats()
    }

    /// Bytes that were sent and that the stream has not taken.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().waiting_len()
    }

    pub(super) fn subprotocol(&self) -> Option<&str> {
        self.opened.subprotocol.as_deref()
    }

    /// Polls the connection's handler as its task: what it sends is staged until it parks. Returns
    /// the connection with all of it.
    pub(super) fn poll_turn(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>),
    ) -> CoreGuard<'_> {
        let mut core = self.lock();
        if core.begin_turn(cx.waker()) {
            self.signals.set_task(cx.waker());
        }
        let (role, room) = (core.role(), core.room());
        drop(core);
        let interrupted = turn::begin(self.id(), role, room);
        poll(cx);
        let mut core = self.lock();
        core.is_turn = false;
        core.end_turn();
        turn::end(interrupted);
        core
    }

    pub(super) fn register_recv(&self, waker: &Waker) {
        self.signals.recv.register(waker);
    }

    /// Releases the lock and wakes those for whom something has changed.
    pub(super) fn unlock(&self, mut core: CoreGuard<'_>) {
        let has_ended = core.recv_end().is_some();
        let is_in_task = core.parked == Parked::InTask;
        let wake_recv = has_ended || core.has_item();
        if wake_recv {
            core.parked = Parked::Nobody;
        }
        let notify = std::mem::take(&mut core.has_news) && std::mem::take(&mut core.has_listeners);
        drop(core);
        if wake_recv && is_in_task {
            self.signals.wake_task();
        } else if wake_recv {
            self.signals.recv.wake();
        }
        if notify {
            self.signals.progress.notify(usize::MAX);
        }
    }

    /// The connection's task is dropped: without a closing handshake, the connection ends.
    pub(super) fn lose_task(&self) {
        let mut core = self.lock();
        core.lose_task();
        self.unlock(core);
        self.signals.clear_task();
    }

    /// Changes what is to be done when, and has whoever drives the connection look at it.
    pub(super) fn reschedule<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let (result, is_turn) = (change(&mut core), core.is_turn());
        drop(core);
        if !is_turn {
            self.io_waker.wake_by_ref();
        }
        result
    }

    /// Wakes the connection's task, to write or to close.
    pub(super) fn wake_task(&self) {
        self.signals.wake_task();
    }

    /// May something be queued now by somebody at `place`? Writes what is in the way, if the stream takes
    /// it. Who has to wait has a place then.
    pub(super) fn has_room(&self, core: &mut Core, place: &mut Option<Place>) -> Result<bool> {
        if let Some(error) = core.send_error() {
            return Err(error);
        }
        if !core.has_room(*place) {
            core.hold_place(place);
            core.write(&mut self.io_context());
            // A peer that reads as fast as this can be written must not keep the thread.
            core.budget = core.budget.saturating_sub(MESSAGES_PER_TURN / 4);
        }
        Ok(core.has_room(*place) && core.budget > 0)
    }

    /// Sees to it that what was queued in another task is written by the connection's.
    pub(super) fn schedule_write(&self, core: &mut CoreGuard<'_>) {
        if core.claim_write() {
            self.wake_task();
        }
    }

    /// The `WebSocket` is dropped: its connection ends.
    pub(super) fn abandon(&self) {
        let mut core = self.lock();
        core.is_abandoned = true;
        if !core.has_task {
            let failed = std::thread::panicking();
            let outcome = if failed { CloseCode::INTERNAL_ERROR } else { CloseCode::NORMAL };
            core.abandon(&mut self.io_context(), outcome);
        }
        self.unlock(core);
        self.wake_task();
    }
}
