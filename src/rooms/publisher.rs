//! The tasks between the rooms of a hub and its backplane, and the queue before them. `payload` is what
//! they carry.
//!
//! One task publishes the broadcasts of all rooms, and each room has one that listens to its topic.

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
use crate::runtime::Clock;
use crate::sync::Mutex;
use crate::{foreign, runtime};

/// Messages that may wait to be published.
const MAX_WAITING: usize = 1024;

/// Bytes that may wait to be published.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Messages that are published before others have a turn, however fast the backplane is.
const PER_TURN: usize = 64;

/// Pause before a subscription that ended is asked for again.
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
        runtime::spawn(publish(Arc::clone(&backplane), Publisher(Arc::clone(&line))));
        Self { backplane, outlet: Arc::new(Outlet(line)) }
    }

    /// What lets a new room be heard elsewhere, and hear.
    pub(super) fn link(&self) -> RoomFeed {
        let (alive, ended) = oneshot::channel();
        RoomFeed {
            outlet: Arc::clone(&self.outlet),
            unheard: Mutex::new(Some(ended)),
            _alive: alive,
        }
    }

    /// Lets a room hear what is said elsewhere, if it does not yet. No lock is held: a backplane is the
    /// application's, and may use the hub.
    pub(super) fn subscribe<U: Send + Sync + 'static>(&self, room: &Arc<Inner<U>>) {
        let Some(link) = &room.link else { return };
        let Some(ended) = link.unheard.lock().take() else { return };
        let listener = Listener {
            backplane: Arc::clone(&self.backplane),
            line: Arc::clone(&self.outlet.0),
            topic: Arc::clone(room.name()),
            room: Arc::downgrade(room),
        };
        let subscription = listener.subscribe();
        runtime::spawn(async move {
            select(Box::pin(listener.listen(subscription)), ended).await;
        });
    }
}

/// Between one room and the same room elsewhere.
pub(super) struct RoomFeed {
    outlet: Arc<Outlet>,
    /// Completes when the room is gone. The caller that subscribes takes it.
    unheard: Mutex<Option<oneshot::Receiver<()>>>,
    /// Dropped with the room, which ends its subscription.
    _alive: oneshot::Sender<()>,
}

impl RoomFeed {
    /// Makes a message ready to be published. To be done before the lock of the room is taken: a long
    /// one is copied.
    pub(super) fn prepare(&self, topic: &Arc<str>, message: &PreparedMessage) -> Outgoing<'_> {
        let line = &*self.outlet.0;
        let has_room = line.waiting.lock().has_room_for(message.len());
        let payload = has_room.then(|| encode(line.origin, None, &message.message()));
        Outgoing { line, topic: Arc::clone(topic), payload, is_queued: false }
    }
}

/// A message on its way to those who are in the room elsewhere.
pub(super) struct Outgoing<'a> {
    line: &'a Line,
    topic: Arc<str>,
    /// `None` once it is queued, and if there is no room for it.
    payload: Option<Bytes>,
    is_queued: bool,
}

impl Outgoing<'_> {
    /// Takes its place among those that wait. Under the lock of the room, so that messages are published
    /// in the order in which they are delivered here.
    pub(super) fn queue(&mut self) {
        if let Some(payload) = self.payload.take() {
            let parcel = Parcel { topic: Arc::clone(&self.topic), payload };
            self.is_queued = self.line.waiting.lock().push(parcel);
        }
    }

    /// Wakes the publisher. Call it without a lock: wakers and loggers are the application's.
    pub(super) fn announce(self) {
        if self.is_queued {
            self.line.wake_publisher();
        } else if self.line.keeping_up.fails() {
            let topic = Escaped(&*self.topic);
            tell(|| {
                log::warn!(topic:?; "the backplane is behind: messages are not published, first for {topic:?}");
            });
        }
    }
}

/// What all rooms of a hub share with the tasks that serve them.
struct Line {
    /// By which the hub knows its own messages again.
    origin: u64,
    clock: Clock,
    waiting: Mutex<Waiting>,
    publisher: AtomicWaker,
    /// Is there room for what is to be published?
    keeping_up: Condition,
    /// Does the backplane take it?
    publishing: Condition,
    /// Do subscriptions last?
    hearing: Condition,
    /// Can payloads be read?
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

/// What is to be published.
#[derive(Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    /// Bytes of those that wait, and of the one that is being published.
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

    /// Queues a message; false if there is no room for it.
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

/// The rooms' end of a line. The last of them to go takes the publisher along.
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
    /// The next message to be published; `None` if there is none, and will be none.
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

    /// Tells how it went with a message, if that is news.
    fn note(&self, topic: &str, outcome: Result<io::Result<()>, Panicked>) {
        let (condition, topic) = (&self.0.publishing, Escaped(topic));
        match outcome {
            Ok(Ok(())) => {
                if let Some(lost) = condition.goes_well() {
                    tell(
                        || log::info!(lost; "the backplane takes messages again, {lost} were not published"),
                    );
                }
            }
            Ok(Err(error)) if condition.fails() => {
                let error = Escaped(error);
                tell(
                    || log::warn!(topic:?, error:%; "the backplane takes no messages, first for {topic:?}: {error}"),
                );
            }
            Err(Panicked) if condition.fails() => {
                tell(
                    || log::error!(topic:?; "the backplane panics, first over a message for {topic:?}"),
                );
            }
            Ok(Err(_)) | Err(Panicked) => {}
        }
    }

    /// A message has been published, or is lost.
    fn is_done_with(&self, len: usize) {
        let mut waiting = self.0.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(len);
        let has_caught_up = waiting.parcels.is_empty();
        drop(waiting);
        let lost = if has_caught_up { self.0.keeping_up.goes_well() } else { None };
        if let Some(lost) = lost {
            tell(|| {
                log::info!(lost; "the backplane has caught up, {lost} messages were not published");
            });
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_over = true;
        let parcels = std::mem::take(&mut waiting.parcels);
        drop(waiting);
        // Without the lock, as everything that may be the application's.
        drop(parcels);
    }
}

async fn publish(backplane: Arc<dyn Backplane>, publisher: Publisher) {
    let mut count = 0_usize;
    while let Some(Parcel { topic, payload }) = publisher.next().await {
        let len = payload.len();
        let outcome = outcome(|| backplane.publish(Arc::clone(&topic), payload)).await;
        // The error is the application's as well.
        tell(|| publisher.note(&topic, outcome));
        publisher.is_done_with(len);
        count = count.wrapping_add(1);
        if count % PER_TURN == 0 {
            runtime::yield_now().await;
        }
    }
}

/// Hears for a room what is broadcast in other processes.
struct Listener<U> {
    backplane: Arc<dyn Backplane>,
    line: Arc<Line>,
    topic: Arc<str>,
    room: Weak<Inner<U>>,
}

impl<U> Listener<U> {
    /// Asks for what is published from now on; `None` if the backplane panics.
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
                tell(|| {
                    log::warn!(topic:?; "subscriptions of the backplane end, first for {topic:?}, next try in {PAUSE:?}");
                });
            }
            let clock = &self.line.clock;
            clock.timer(clock.after(PAUSE)).await;
            subscription = self.subscribe();
        }
    }

    /// Passes on what is published, until the subscription or the room ends.
    async fn hear(&self, mut subscription: Subscription) {
        let mut share = DeliveryShare::WHOLE;
        while let Some(payload) = subscription.next().await {
            let Some(room) = self.room.upgrade() else { return };
            if let Some(ended) = self.line.hearing.goes_well() {
                tell(|| {
                    log::info!(ended; "subscriptions of the backplane hear messages again, {ended} had ended");
                });
            }
            let mut reached = 0;
            match self.read(&payload) {
                Ok(Some(message)) => reached = room.deliver(&message),
                Err(unreadable) if self.line.reading.fails() => {
                    let topic = Escaped(&*self.topic);
                    tell(|| {
                        log::warn!(topic:?; "payloads of the backplane are skipped, first for {topic:?}: {unreadable}");
                    });
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

    /// What another hub has said; `None` if this one has.
    fn read(&self, payload: &Bytes) -> Result<Option<PreparedMessage>, Unreadable> {
        let payload = Payload::decode(payload)?;
        let is_echo = payload.origin == self.line.origin;
        let message = if is_echo { None } else { Some(payload.into_message()?.into()) };
        if let Some(skipped) = self.line.reading.goes_well() {
            tell(|| {
                log::info!(skipped; "payloads of the backplane can be read again, {skipped} were skipped");
            });
        }
        Ok(message)
    }
}

/// A stream of the application.
struct Subscription(BoxStream<'static, Bytes>);

impl Subscription {
    /// The next payload; `None` if the stream has ended, or panics.
    async fn next(&mut self) -> Option<Bytes> {
        let Self(stream) = self;
        poll_fn(|cx| foreign::attempt(|| stream.poll_next_unpin(cx)).unwrap_or(Poll::Ready(None)))
            .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let stream = std::mem::replace(&mut self.0, futures::stream::empty().boxed());
        // One that panics has come to its end all the same.
        let _ = foreign::attempt(|| drop(stream));
    }
}

/// What a future of the application comes to, which is dropped then.
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
