//! The tasks between the rooms of a hub and its backplane, and the queue of messages to be published.
//!
//! One task publishes the broadcasts of all rooms. Each room has a task that listens to its topic. Both
//! carry the bytes of `payload`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, select};
use futures::stream::BoxStream;
use futures::task::AtomicWaker;

use super::backplane::Backplane;
use super::condition::Condition;
use super::payload::{Payload, Unreadable, encode};
use super::room::Inner;
use crate::connection::{DeliveryShare, PreparedMessage, random_bytes};
use crate::escaped::Escaped;
use crate::foreign::{Panicked, tell};
use crate::records::record;
use crate::runtime::Clock;
use crate::sync::Mutex;
use crate::{foreign, runtime};

/// Messages that may wait to be published.
const MAX_WAITING: usize = 1024;

/// Bytes that may wait to be published.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Messages that are published before other tasks have a turn, even if the backplane never makes us wait.
const PER_TURN: usize = 64;

/// Pause before the hub subscribes again after a subscription has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection of a hub to its backplane.
pub(super) struct Bridge {
    backplane: Arc<dyn Backplane>,
    outlet: Arc<Outlet>,
}

impl Bridge {
    pub(super) fn new(backplane: impl Backplane) -> Self {
        let backplane: Arc<dyn Backplane> = Arc::new(backplane);
        let line = Arc::new(Line::new());
        runtime::spawn_on_executor(publish(Arc::clone(&backplane), Publisher(Arc::clone(&line))));
        Self { backplane, outlet: Arc::new(Outlet(line)) }
    }

    /// Creates the link of a new room to the same room in other processes.
    pub(super) fn link(&self) -> RoomFeed {
        let (alive, ended) = oneshot::channel();
        RoomFeed {
            outlet: Arc::clone(&self.outlet),
            unheard: Mutex::new(Some(ended)),
            _alive: alive,
        }
    }

    /// Subscribes a room to the broadcasts of other processes, unless it is subscribed. Call it without a
    /// lock: a backplane is code of the application, and may use the hub.
    pub(super) fn subscribe<U, S>(&self, room: &Arc<Inner<U, S>>)
    where
        U: Send + Sync + 'static,
        S: Send + 'static,
    {
        let Some(link) = &room.link else { return };
        let Some(ended) = link.unheard.lock().take() else { return };
        let listener = Listener {
            backplane: Arc::clone(&self.backplane),
            line: Arc::clone(&self.outlet.0),
            topic: Arc::clone(room.name()),
            room: Arc::downgrade(room),
        };
        let subscription = listener.subscribe();
        runtime::spawn_on_executor(async move {
            select(Box::pin(listener.listen(subscription)), ended).await;
        });
    }
}

/// The link between a room and the same room in other processes.
pub(super) struct RoomFeed {
    outlet: Arc<Outlet>,
    /// Completes when the room is gone. The first caller that subscribes the room takes it.
    unheard: Mutex<Option<oneshot::Receiver<()>>>,
    /// Dropped with the room, which ends its subscription.
    _alive: oneshot::Sender<()>,
}

impl RoomFeed {
    /// Prepares a message to be published. Call it before taking the lock of the room, since it copies the
    /// message.
    pub(super) fn prepare(&self, topic: &Arc<str>, message: &PreparedMessage) -> Outgoing<'_> {
        let line = &*self.outlet.0;
        let has_room = line.waiting.lock().has_room_for(message.len());
        let payload = has_room.then(|| encode(line.origin, None, &message.message()));
        Outgoing { line, topic: Arc::clone(topic), payload, is_queued: false }
    }
}

/// A message on its way to the members of the room in other processes.
pub(super) struct Outgoing<'a> {
    line: &'a Line,
    topic: Arc<str>,
    /// `None` once it is queued, or if the queue has no room for it.
    payload: Option<Bytes>,
    is_queued: bool,
}

impl Outgoing<'_> {
    /// Appends the message to the queue. Call it under the lock of the room, so that messages are published
    /// in the order in which they are delivered here.
    pub(super) fn queue(&mut self) {
        if let Some(payload) = self.payload.take() {
            let parcel = Parcel { topic: Arc::clone(&self.topic), payload };
            self.is_queued = self.line.waiting.lock().push(parcel);
        }
    }

    /// Wakes the publisher. Call it without a lock: wakers and loggers are code of the application.
    pub(super) fn announce(self) {
        if self.is_queued {
            self.line.wake_publisher();
        } else if self.line.keeping_up.fails() {
            let topic = Escaped(&*self.topic);
            record!(warn, "the backplane is behind: messages are not published", topic = topic);
        }
    }
}

/// The state that all rooms of a hub share with the tasks that serve them.
struct Line {
    /// The random number by which the hub recognizes its own messages.
    origin: u64,
    clock: Clock,
    waiting: Mutex<Waiting>,
    publisher: AtomicWaker,
    /// Whether the queue has room for all messages.
    keeping_up: Condition,
    /// Whether the backplane takes messages.
    publishing: Condition,
    /// Whether subscriptions last.
    hearing: Condition,
    /// Whether payloads can be read.
    reading: Condition,
}

impl Line {
    fn new() -> Self {
        Self {
            origin: u64::from_ne_bytes(random_bytes()),
            clock: Clock::default(),
            waiting: Mutex::default(),
            publisher: AtomicWaker::new(),
            keeping_up: Condition::default(),
            publishing: Condition::default(),
            hearing: Condition::default(),
            reading: Condition::default(),
        }
    }

    fn wake_publisher(&self) {
        let _ = foreign::attempt(|| self.publisher.wake());
    }
}

/// The queue of messages to be published.
#[derive(Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    /// Bytes of the waiting messages, and of the one that is being published.
    bytes: usize,
    /// Whether one end of the line is gone: all rooms, or the publisher.
    is_over: bool,
}

struct Parcel {
    topic: Arc<str>,
    payload: Bytes,
}

impl Waiting {
    fn has_room_for(&self, len: usize) -> bool {
        let bytes = self.bytes.saturating_add(len);
        !self.is_over && self.parcels.len() < MAX_WAITING && bytes <= MAX_WAITING_BYTES
    }

    /// Queues a message; false if the queue has no room for it.
    fn push(&mut self, parcel: Parcel) -> bool {
        let len = parcel.payload.len();
        if !self.has_room_for(len) {
            return false;
        }
        self.bytes = self.bytes.saturating_add(len);
        self.parcels.push_back(parcel);
        true
    }
}

/// The rooms' end of a line. When the last room drops it, the publisher ends.
struct Outlet(Arc<Line>);

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.waiting.lock().is_over = true;
        self.0.wake_publisher();
    }
}

/// The backplane's end of a line.
struct Publisher(Arc<Line>);

impl Publisher {
    /// Waits for the next message to be published; `None` if there will be none.
    async fn next(&self) -> Option<Parcel> {
        let Self(line) = self;
        let take = || {
            let mut waiting = line.waiting.lock();
            let parcel = waiting.parcels.pop_front();
            if parcel.is_some() || waiting.is_over { Poll::Ready(parcel) } else { Poll::Pending }
        };
        poll_fn(|cx| {
            let taken = take();
            if taken.is_ready() {
                return taken;
            }
            line.publisher.register(cx.waker());
            take()
        })
        .await
    }

    /// Logs the outcome of a publication, if it differs from those before.
    fn note(&self, topic: &str, outcome: Result<io::Result<()>, Panicked>) {
        let (condition, topic) = (&self.0.publishing, Escaped(topic));
        match outcome {
            Ok(Ok(())) => {
                if let Some(lost) = condition.goes_well() {
                    record!(info, "the backplane takes messages again", lost = lost);
                }
            }
            Ok(Err(error)) if condition.fails() => {
                let error = Escaped(error);
                record!(warn, "the backplane takes no messages", topic = topic, error = error);
            }
            Err(Panicked) if condition.fails() => {
                record!(error, "the backplane panics over a message", topic = topic);
            }
            Ok(Err(_)) | Err(Panicked) => {}
        }
    }

    /// Frees the place of a message that has been published or lost.
    fn is_done_with(&self, len: usize) {
        let mut waiting = self.0.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(len);
        let has_caught_up = waiting.parcels.is_empty();
        drop(waiting);
        let lost = if has_caught_up { self.0.keeping_up.goes_well() } else { None };
        if let Some(lost) = lost {
            record!(info, "the backplane has caught up", lost = lost);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_over = true;
        let parcels = std::mem::take(&mut waiting.parcels);
        drop(waiting);
        // Without the lock, since a payload may hold memory of the application, with a destructor of its own.
        drop(parcels);
    }
}

async fn publish(backplane: Arc<dyn Backplane>, publisher: Publisher) {
    let mut count = 0_usize;
    while let Some(Parcel { topic, payload }) = publisher.next().await {
        let len = payload.len();
        let outcome = outcome(|| backplane.publish(Arc::clone(&topic), payload)).await;
        // The error is a value of the application, too: `tell` contains its panics.
        tell(|| publisher.note(&topic, outcome));
        publisher.is_done_with(len);
        count = count.wrapping_add(1);
        if count % PER_TURN == 0 {
            runtime::yield_now().await;
        }
    }
}

/// The task that receives, for one room, the broadcasts of other processes.
struct Listener<U, S> {
    backplane: Arc<dyn Backplane>,
    line: Arc<Line>,
    topic: Arc<str>,
    room: Weak<Inner<U, S>>,
}

impl<U, S> Listener<U, S> {
    /// Subscribes to the topic; `None` if the backplane panics.
    fn subscribe(&self) -> Option<Subscription> {
        let subscribe = || self.backplane.subscribe(Arc::clone(&self.topic));
        foreign::attempt(subscribe).ok().map(Subscription)
    }

    async fn listen(self, mut subscription: Option<Subscription>) {
        loop {
            if let Some(subscription) = subscription {
                self.hear(subscription).await;
            }
            if self.room.strong_count() == 0 {
                return;
            }
            if self.line.hearing.fails() {
                let topic = Escaped(&*self.topic);
                record!(
                    warn,
                    "subscriptions of the backplane end",
                    next_try_in = PAUSE,
                    topic = topic
                );
            }
            let clock = &self.line.clock;
            clock.timer(clock.after(PAUSE)).await;
            subscription = self.subscribe();
        }
    }

    /// Delivers the payloads of a subscription to the room, until one of the two ends.
    async fn hear(&self, mut subscription: Subscription) {
        let mut share = DeliveryShare::WHOLE;
        while let Some(payload) = subscription.next().await {
            let Some(room) = self.room.upgrade() else { return };
            if let Some(ended) = self.line.hearing.goes_well() {
                record!(
                    info,
                    "subscriptions of the backplane receive messages again",
                    ended = ended
                );
            }
            let mut reached = 0;
            match self.read(&payload) {
                Ok(Some(message)) => reached = room.deliver(&message),
                Err(unreadable) if self.line.reading.fails() => {
                    record!(
                        warn,
                        "payloads of the backplane are skipped",
                        topic = Escaped(&*self.topic),
                        error = Escaped(unreadable)
                    );
                }
                Ok(None) | Err(_) => {}
            }
            drop(room);
            share.take(1 + reached, payload.len());
            if share.is_spent() {
                share = DeliveryShare::WHOLE;
                runtime::yield_now().await;
            }
        }
    }

    /// Reads a payload of another hub; `None` if this hub has published it.
    fn read(&self, payload: &Bytes) -> Result<Option<PreparedMessage>, Unreadable> {
        let payload = Payload::decode(payload)?;
        let is_echo = payload.origin == self.line.origin;
        let message = if is_echo { None } else { Some(payload.into_message()?.into()) };
        if let Some(skipped) = self.line.reading.goes_well() {
            record!(info, "payloads of the backplane can be read again", skipped = skipped);
        }
        Ok(message)
    }
}

/// The stream of a subscription, which is code of the application. A panic in it counts as its end.
struct Subscription(BoxStream<'static, Bytes>);

impl Subscription {
    /// Waits for the next payload; `None` if the stream has ended or panics.
    async fn next(&mut self) -> Option<Bytes> {
        let Self(stream) = self;
        poll_fn(|cx| foreign::attempt(|| stream.poll_next_unpin(cx)).unwrap_or(Poll::Ready(None)))
            .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let stream = std::mem::replace(&mut self.0, futures::stream::empty().boxed());
        // A stream that panics here has ended, too.
        let _ = foreign::attempt(|| drop(stream));
    }
}

/// Runs a future of the application, and drops it. A panic in any step is the outcome.
async fn outcome<T>(make: impl FnOnce() -> BoxFuture<'static, T>) -> Result<T, Panicked> {
    let mut future = foreign::attempt(make)?;
    let outcome = poll_fn(|cx| match foreign::attempt(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await;
    let _ = foreign::attempt(|| drop(future));
    outcome
}
