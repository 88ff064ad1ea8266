//! What connects the rooms of several processes.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};

use super::tail::{Read, Reader, Tail};
use crate::sync::Mutex;

/// Messages on a topic of a [`LocalBackplane`] that a slow subscriber may be behind.
const KEPT: usize = 1024;

/// A message broker, as far as rooms need one: bytes published on a topic reach those who subscribe.
///
/// # What the hub promises
///
/// Each room is one topic, of the same name. Payloads are opaque. The hub publishes the broadcasts of
/// a process one after another and waits for each [`publish`](Self::publish) before the next; up to
/// 1 024 messages and 16 MiB wait, and what comes then is left out. A hub knows its own messages again, so
/// it does not matter whether the broker returns them. Members in this process never wait for the broker,
/// and no lock of the hub is held while one of these methods runs: they may use the hub.
///
/// Broadcasts travel, to everybody who is elsewhere in the room, and with them whether they are
/// [to be compressed](crate::Message::uncompressed). What is sent to one member does not, and who is a
/// member is known to its own hub only.
///
/// # Order
///
/// Members in this process are sent a broadcast at once, and the broker gets it after that. So each
/// process has one order for all its members, and what one process broadcasts in a room has the same
/// order everywhere; but two processes that broadcast at the same time may each have its own message first.
///
/// # What an implementation promises
///
/// Messages of one publisher on one topic arrive in the order in which they were published, each at
/// most once; some may be lost. It reconnects by itself: a stream of
/// [`subscribe`](Self::subscribe) that ends, or panics, is asked for again after a second, and what is
/// published meanwhile is missed.
///
/// # What is logged
///
/// A backplane that takes no messages, is behind or ends its subscriptions, and payloads that cannot be
/// read, are told once at level warn when it begins, and once at level info when it has been over for
/// ten seconds, with the number of messages that it cost. Names of rooms are escaped there.
///
/// All who can publish on a topic can speak in its room: payloads are taken as they come, apart from
/// their form.
///
/// ```
/// # mod broker {
/// #     use bytes::Bytes;
/// #     use futures::stream::{self, Stream};
/// #     use std::io::Result;
/// #     #[derive(Clone)]
/// #     pub struct Client;
/// #     impl Client {
/// #         pub async fn publish(&self, _: &str, _: Bytes) -> Result<()> { Ok(()) }
/// #         pub async fn subscribe(&self, _: &str) -> Result<impl Stream<Item = Bytes> + use<>> {
/// #             Ok(stream::empty())
/// #         }
/// #     }
/// # }
/// use std::io;
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use futures::future::{BoxFuture, ready};
/// use futures::stream::{self, BoxStream};
/// use futures::{FutureExt, StreamExt};
/// use tidewire::{Backplane, Hub};
///
/// struct Broker(broker::Client);
///
/// impl Backplane for Broker {
///     fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>> {
///         let client = self.0.clone();
///         async move { client.publish(&topic, payload).await }.boxed()
///     }
///
///     fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes> {
///         let client = self.0.clone();
///         // Ends when the broker is lost, or was not reached: the hub asks again.
///         stream::once(async move { client.subscribe(&topic).await })
///             .filter_map(|subscribed| ready(subscribed.ok()))
///             .flatten()
///             .boxed()
///     }
/// }
///
/// let hub: Hub = Hub::with_backplane(Broker(broker::Client));
/// ```
pub trait Backplane: Send + Sync + 'static {
    /// Publishes a payload; the future ends when the broker has it. It is never dropped before.
    ///
    /// # Errors
    ///
    /// The message is lost then; the hub logs the error and goes on.
    fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>>;

    /// What is published on a topic from now on, by whomever.
    fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes>;
}

/// A backplane within one process: for several hubs, and for tests.
///
/// Clones are the same backplane.
///
/// ```
/// use tidewire::{Hub, LocalBackplane};
///
/// let backplane = LocalBackplane::new();
/// let one: Hub = Hub::with_backplane(backplane.clone());
/// let other: Hub = Hub::with_backplane(backplane);
/// ```
#[derive(Clone, Default)]
pub struct LocalBackplane(Arc<Mutex<Topics>>);

/// What was published of late, by topic.
type Topics = HashMap<Arc<str>, Arc<Tail<Bytes>>>;

impl LocalBackplane {
    /// A backplane on which nothing is published yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backplane for LocalBackplane {
    fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>> {
        let subscribers = self.0.lock().get(&topic).cloned();
        if let Some(subscribers) = subscribers {
            // What a slow subscriber misses comes back, and is dropped without the lock.
            drop(subscribers.tell(payload));
        }
        async { Ok(()) }.boxed()
    }

    fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes> {
        let mut topics = self.0.lock();
        let subscribers = topics.entry(Arc::clone(&topic));
        let reader = subscribers.or_insert_with(|| Arc::new(Tail::new(KEPT))).reader();
        drop(topics);
        Subscription { reader, _leave: Leave { backplane: self.clone(), topic } }.boxed()
    }
}

/// A subscription of one topic.
struct Subscription {
    reader: Reader<Bytes>,
    /// Behind the reader, which is gone first.
    _leave: Leave,
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match ready!(self.reader.poll_read(cx)) {
                Some(Read::Next(payload)) => return Poll::Ready(Some(payload)),
                Some(Read::Missed(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// The last of those who leave a topic takes it along.
struct Leave {
    backplane: LocalBackplane,
    topic: Arc<str>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut topics = self.backplane.0.lock();
        let is_last = topics.get(&self.topic).is_some_and(|topic| topic.readers() == 0);
        let topic = if is_last { topics.remove(&self.topic) } else { None };
        drop(topics);
        drop(topic);
    }
}

impl fmt::Debug for LocalBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackplane").field("topics", &self.0.lock().len()).finish()
    }
}
