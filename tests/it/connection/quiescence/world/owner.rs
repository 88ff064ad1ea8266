//! The task that has the `WebSocket` of a connection: it does what the world orders.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use tidewire::frame::{Frame, OpCode};
use tidewire::{Message, Room, WebSocket};

use super::book::{Book, Kind};
use super::calls::{heartbeat, len, message};
use super::choices::Choices;
use super::executor::Executor;

/// What the owner of a `WebSocket` is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Recv,
    RecvFrame,
    Next,
    Send(usize),
    SendCompressed(usize),
    /// One frame of a message, of so many bytes, and whether it is the last.
    SendFrame(usize, bool),
    Ping,
    Flush,
    Close,
    Closed,
    Feed(usize),
    Ready,
    SinkFlush,
    SinkClose,
    /// Starts a heartbeat, or stops it.
    Heartbeat(bool),
    /// Has the connection expire after some seconds, or not at all.
    Expire(Option<u8>),
    /// Broadcasts a message, on this thread or on another.
    Broadcast(usize, bool),
    /// Has other tasks polled meanwhile, up to so many, on another thread.
    Meanwhile(usize),
    /// Waits until the task is polled the next time.
    Yield,
    /// Returns, with success or not.
    Leave(bool),
}

impl Order {
    pub(super) fn new(choices: &mut Choices<'_>) -> Self {
        match choices.below(40) {
            0..=8 => Self::Recv,
            9 | 10 => Self::RecvFrame,
            11 => Self::Next,
            12..=15 => Self::Send(len(choices)),
            16 => Self::SendCompressed(len(choices)),
            17 | 18 => Self::SendFrame(len(choices), choices.one_in(2)),
            19 => Self::Ping,
            20 | 21 => Self::Flush,
            22 => Self::Close,
            23 | 24 => Self::Closed,
            25 | 26 => Self::Feed(len(choices)),
            27 => Self::Ready,
            28 | 29 => Self::SinkFlush,
            30 => Self::SinkClose,
            31 => Self::Heartbeat(!choices.one_in(3)),
            32 => Self::Expire(choices.pick([Some(0), Some(1), Some(6), None])),
            33 | 34 => Self::Broadcast(len(choices), choices.one_in(2)),
            35 | 36 => Self::Meanwhile(1 + choices.below(4)),
            37 | 38 => Self::Yield,
            _ => Self::Leave(choices.one_in(2)),
        }
    }
}

/// Where the world leaves its orders.
#[derive(Default)]
pub(super) struct Desk(Mutex<Tray>);

#[derive(Default)]
struct Tray {
    orders: VecDeque<Order>,
    /// Whether the order under way is to be given up.
    is_cancelled: bool,
    /// Whether an order is under way.
    is_busy: bool,
    /// Calls of senders that the owner's task polls along.
    companions: Vec<BoxFuture<'static, ()>>,
    /// Whether the owner has left, and its companions with it.
    is_left: bool,
    owner: Option<Waker>,
}

impl Desk {
    fn change(&self, change: impl FnOnce(&mut Tray)) {
        let mut tray = self.0.lock().unwrap();
        change(&mut tray);
        let owner = tray.owner.take();
        drop(tray);
        owner.into_iter().for_each(Waker::wake);
    }

    pub(super) fn order(&self, order: Order) {
        self.change(|tray| tray.orders.push_back(order));
    }

    /// Gives up all orders.
    pub(super) fn cancel(&self) {
        self.change(|tray| {
            tray.orders.clear();
            tray.is_cancelled = tray.is_busy;
        });
    }

    pub(super) fn accompany(&self, call: BoxFuture<'static, ()>) {
        self.change(|tray| {
            if !tray.is_left {
                tray.companions.push(call);
            }
        });
    }

    /// Drops the calls that the owner polls along.
    pub(super) fn part(&self) {
        let companions = std::mem::take(&mut self.0.lock().unwrap().companions);
        drop(companions);
    }

    pub(super) fn is_busy(&self) -> bool {
        let tray = self.0.lock().unwrap();
        tray.is_busy || !tray.orders.is_empty()
    }

    /// The next order.
    async fn next(&self) -> Order {
        std::future::poll_fn(|cx| {
            let mut tray = self.0.lock().unwrap();
            tray.is_busy = false;
            let Some(order) = tray.orders.pop_front() else {
                tray.owner = Some(cx.waker().clone());
                return Poll::Pending;
            };
            (tray.is_busy, tray.is_cancelled) = (true, false);
            Poll::Ready(order)
        })
        .await
    }

    /// Carries an order out, unless it is given up.
    async fn unless_cancelled(&self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            let mut tray = self.0.lock().unwrap();
            if std::mem::take(&mut tray.is_cancelled) {
                return Poll::Ready(());
            }
            tray.owner = Some(cx.waker().clone());
            drop(tray);
            future.as_mut().poll(cx)
        })
        .await;
    }

    /// Polls the calls that go along.
    fn poll_companions(&self, cx: &mut Context<'_>) {
        let mut companions = std::mem::take(&mut self.0.lock().unwrap().companions);
        companions.retain_mut(|call| call.as_mut().poll(cx).is_pending());
        let mut tray = self.0.lock().unwrap();
        companions.append(&mut tray.companions);
        tray.companions = companions;
        tray.owner.get_or_insert_with(|| cx.waker().clone());
    }
}

/// All that an owner needs.
pub(super) struct Owner {
    pub(super) desk: Arc<Desk>,
    pub(super) book: Arc<Book>,
    pub(super) room: Room,
    /// Weak, since the executor has the owner.
    pub(super) executor: Weak<Executor>,
    pub(super) now: Box<dyn Fn() -> Instant + Send + Sync>,
}

impl Owner {
    /// Does as ordered until it is ordered to leave.
    pub(super) async fn run(self, ws: WebSocket) -> Result<(), &'static str> {
        let desk = Leave(Arc::clone(&self.desk));
        let mut own = pin!(self.own(ws));
        std::future::poll_fn(|cx| {
            let polled = own.as_mut().poll(cx);
            desk.0.poll_companions(cx);
            polled
        })
        .await
    }

    async fn own(self, mut ws: WebSocket) -> Result<(), &'static str> {
        loop {
            match self.desk.next().await {
                Order::Leave(true) => return Ok(()),
                Order::Leave(false) => return Err("as ordered"),
                order => self.desk.unless_cancelled(self.carry_out(order, &mut ws)).await,
            }
        }
    }

    async fn carry_out(&self, order: Order, ws: &mut WebSocket) {
        let book = &*self.book;
        match order {
            Order::Recv => book.received(&book.call(Kind::Recv, ws.recv()).await),
            Order::RecvFrame => {
                book.received_frame(&book.call(Kind::RecvFrame, ws.recv_frame()).await);
            }
            Order::Next => book.received(&book.call(Kind::Recv, ws.next()).await.transpose()),
            Order::Send(len) => self.send(ws, message(len)).await,
            Order::SendCompressed(len) => self.send(ws, message(len).compressed()).await,
            Order::SendFrame(len, fin) => self.send_frame(ws, len, fin).await,
            Order::Ping => {
                let sent = book.call(Kind::SendFrame, ws.ping("ours")).await;
                book.with(|entries| entries.pings += usize::from(sent.is_ok()));
            }
            Order::Flush => _ = book.call(Kind::Flush, ws.flush()).await,
            Order::Close => _ = book.call(Kind::Close, ws.close(4000, "enough")).await,
            Order::Closed => _ = book.call(Kind::Closed, ws.closed()).await,
            Order::Feed(len) => {
                let fed = book.call(Kind::Ready, ws.feed(message(len))).await;
                book.with(|entries| entries.fed += usize::from(fed.is_ok()));
            }
            Order::Ready => {
                let ready = std::future::poll_fn(|cx| SinkExt::<Message>::poll_ready_unpin(ws, cx));
                _ = book.call(Kind::Ready, ready).await;
            }
            Order::SinkFlush => {
                let flushed = book.call(Kind::Flush, SinkExt::<Message>::flush(ws)).await;
                book.with(|entries| {
                    let fed = std::mem::take(&mut entries.fed);
                    entries.sent += if flushed.is_ok() { fed } else { 0 };
                });
            }
            Order::SinkClose => {
                _ = book.call(Kind::Close, SinkExt::<Message>::close(ws)).await;
            }
            Order::Heartbeat(is_on) => ws.set_heartbeat(is_on.then(heartbeat)),
            Order::Expire(None) => ws.cancel_expiry(),
            Order::Expire(Some(seconds)) => {
                let at = (self.now)() + Duration::from_secs(seconds.into());
                ws.expire_at(at, 4001, "expired").expect("a code that may be sent");
            }
            Order::Broadcast(len, false) => _ = self.room.broadcast(message(len)),
            Order::Broadcast(len, true) => {
                let broadcast = || self.room.broadcast(message(len));
                std::thread::scope(|scope| scope.spawn(broadcast).join()).expect("no panic");
            }
            Order::Meanwhile(most) => {
                if let Some(executor) = self.executor.upgrade() {
                    executor.poll_elsewhere(most);
                }
            }
            Order::Yield => yield_now().await,
            Order::Leave(_) => {}
        }
    }

    async fn send(&self, ws: &mut WebSocket, message: Message) {
        let sent = self.book.call(Kind::Send, ws.send(message)).await;
        self.book.with(|entries| entries.sent += usize::from(sent.is_ok()));
    }

    /// Sends a frame of a message, the first if there is none under way.
    async fn send_frame(&self, ws: &mut WebSocket, len: usize, fin: bool) {
        for opcode in [OpCode::Continuation, OpCode::Binary] {
            let payload = message(len).as_bytes().to_vec();
            let frame = Frame::new(fin, opcode, payload);
            let sent = self.book.call(Kind::SendFrame, ws.send_frame(frame)).await;
            if sent.is_ok() {
                return self.book.with(|entries| entries.sent += usize::from(fin));
            }
        }
    }
}

/// Leaves the desk when the owner returns or is dropped.
struct Leave(Arc<Desk>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().is_left = true;
        self.0.part();
    }
}

async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
