//! Between the rooms of a hub and its backplane: who carries what. What travels is `payload`.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::select;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::backplane::Backplane;
use super::lock;
use super::payload::{Payload, Unreadable, encode};
use super::room::Inner;
use crate::escaped::Escaped;
use crate::runtime::{self, Timer};
use crate::ws::{Message, PreparedMessage};

/// Messages that may wait to be published, and one more for each room.
const MAX_WAITING: usize = 1024;

/// Bytes that may wait to be published.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Pause before a subscription that ended is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection of a hub to its backplane.
pub(super) struct Bridge {
    backplane: Arc<dyn Backplane>,
    outgoing: Outgoing,
}

impl Bridge {
    pub(super) fn new(backplane: impl Backplane) -> Self {
        let backplane: Arc<dyn Backplane> = Arc::new(backplane);
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        runtime::spawn(publish(Arc::clone(&backplane), waiting, Arc::clone(&bytes)));
        let outgoing = Outgoing { hub: fastrand::u64(..), queue, bytes, is_behind: false };
        Self { backplane, outgoing }
    }

    /// What lets a new room be heard elsewhere.
    pub(super) fn link(&self) -> Link {
        Link { outgoing: Mutex::new(self.outgoing.clone()), subscription: OnceLock::new() }
    }

    /// Lets a room hear what is said elsewhere. Nobody has it before.
    pub(super) fn subscribe<U: Send + Sync + 'static>(&self, room: &Arc<Inner<U>>) {
        let Some(link) = &room.link else { return };
        link.subscription.get_or_init(|| {
            let stream = self.backplane.subscribe(Arc::clone(room.name()));
            let listener = Listener {
                backplane: Arc::clone(&self.backplane),
                hub: self.outgoing.hub,
                topic: Arc::clone(room.name()),
                room: Arc::downgrade(room),
            };
            let (subscription, ended) = oneshot::channel();
            runtime::spawn(async move {
                select(Box::pin(listener.listen(stream)), ended).await;
            });
            subscription
        });
    }
}

/// Between one room and the same room elsewhere.
pub(super) struct Link {
    outgoing: Mutex<Outgoing>,
    /// Dropped with the room, which ends its subscription.
    subscription: OnceLock<oneshot::Sender<()>>,
}

impl Link {
    /// Publishes a message, in the order in which it is delivered here.
    pub(super) fn publish<T>(
        &self,
        topic: &Arc<str>,
        message: &PreparedMessage,
        deliver: impl FnOnce() -> T,
    ) -> T {
        let mut outgoing = lock(&self.outgoing);
        let delivered = deliver();
        let falls_behind = outgoing.publish(topic, &message.message());
        drop(outgoing);
        if falls_behind {
            let topic = Escaped(topic);
            log::warn!(topic:?; "the backplane is behind, messages for {topic:?} are not published");
        }
        delivered
    }
}

/// Where broadcasts wait to be published.
#[derive(Clone)]
struct Outgoing {
    hub: u64,
    queue: mpsc::Sender<(Arc<str>, Bytes)>,
    /// Bytes in the queues of all rooms.
    bytes: Arc<AtomicUsize>,
    is_behind: bool,
}

impl Outgoing {
    /// Queues a message for its topic; true if there is no place for it, and was for the one before.
    fn publish(&mut self, topic: &Arc<str>, message: &Message) -> bool {
        let is_behind = !self.try_publish(topic, message);
        let was_behind = std::mem::replace(&mut self.is_behind, is_behind);
        is_behind && !was_behind
    }

    fn try_publish(&mut self, topic: &Arc<str>, message: &Message) -> bool {
        if self.bytes.load(Ordering::Relaxed).saturating_add(message.len()) > MAX_WAITING_BYTES {
            return false;
        }
        let payload = encode(self.hub, None, message);
        let len = payload.len();
        // Counted first: it may be published at once.
        self.bytes.fetch_add(len, Ordering::Relaxed);
        let is_queued = self.queue.try_send((Arc::clone(topic), payload)).is_ok();
        if !is_queued {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
        }
        is_queued
    }
}

async fn publish(
    backplane: Arc<dyn Backplane>,
    mut waiting: mpsc::Receiver<(Arc<str>, Bytes)>,
    bytes: Arc<AtomicUsize>,
) {
    while let Some((topic, payload)) = waiting.next().await {
        let len = payload.len();
        let publishing = async { backplane.publish(Arc::clone(&topic), payload).await };
        // What panics has not left anything of ours half done.
        let outcome = AssertUnwindSafe(publishing).catch_unwind().await;
        let topic = Escaped(&topic);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = Escaped(error);
                log::warn!(topic:?, error:%; "a message for {topic:?} is not published: {error}");
            }
            Err(_) => {
                log::error!(topic:?; "the backplane panicked, a message for {topic:?} is not published");
            }
        }
        bytes.fetch_sub(len, Ordering::Relaxed);
    }
}

/// Who hears for a room what is said in other processes.
struct Listener<U> {
    backplane: Arc<dyn Backplane>,
    hub: u64,
    topic: Arc<str>,
    room: Weak<Inner<U>>,
}

impl<U> Listener<U> {
    async fn listen(self, mut stream: BoxStream<'static, Bytes>) {
        loop {
            // A stream that panics has ended, too.
            while let Ok(Some(payload)) = AssertUnwindSafe(stream.next()).catch_unwind().await {
                let Some(room) = self.room.upgrade() else { return };
                match self.read(&payload) {
                    Ok(Some(message)) => drop(room.deliver(&message, None)),
                    Ok(None) => {}
                    Err(unreadable) => {
                        let topic = Escaped(&self.topic);
                        log::warn!(topic:?; "a payload for {topic:?} is skipped: {unreadable}");
                    }
                }
            }
            let topic = Escaped(&self.topic);
            log::warn!(topic:?; "the subscription of {topic:?} has ended, next try in {PAUSE:?}");
            Timer::at(runtime::after(PAUSE)).await;
            stream = self.backplane.subscribe(Arc::clone(&self.topic));
        }
    }

    /// What another hub has said; `None` if this one has.
    fn read(&self, payload: &Bytes) -> Result<Option<PreparedMessage>, Unreadable> {
        let payload = Payload::decode(payload)?;
        let is_echo = payload.origin == self.hub;
        if is_echo { Ok(None) } else { Ok(Some(payload.into_message()?.into())) }
    }
}
