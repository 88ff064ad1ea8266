//! Backplanes, which connect the rooms of several processes.

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

/// Messages of a topic that a [`LocalBackplane`] keeps for a slow subscriber.
const KEPT: usize = 1024;

/// A message broker, as far as rooms need one: it brings the bytes published on a topic to all
/// subscribers of the topic.
///
/// # Promises of the hub
///
/// Each room is one topic, of the same name. Payloads are opaque. The hub publishes the broadcasts of
/// a process one after another, and waits for each [`publish`](Self::publish) before the next. Up to
/// 1 024 messages and 16 MiB wait; further messages are not published. A hub recognizes its own
/// messages, so the broker may return them or not. Members in this process never wait for the broker.
/// No lock of the hub is held while one of these methods runs, so they may use the hub.
///
/// A broadcast goes to all members of the room in other processes, with the information whether it
/// [may be compressed](crate::Message::uncompressed). A message to one member is not published. Each hub
/// knows its own members only.
///
/// # Order
///
/// A broadcast goes to the members in this process at once, and to the broker after that. So all members
/// in one process see the same order, and the broadcasts of one process in a room have the same order
/// everywhere. But if two processes broadcast at the same time, each may see its own message first.
///
/// # Promises of an implementation
///
/// Messages of one publisher on one topic arrive in the order in which they were published, each at
/// most once; some may be lost. The implementation reconnects by itself. If a stream of
/// [`subscribe`](Self::subscribe) ends or panics, the hub subscribes again after a second. Messages
/// published meanwhile are lost.
///
/// # Logging
///
/// Four conditions are logged: the backplane takes no messages, it is behind, it ends subscriptions, or
/// its payloads cannot be read. Each is logged at level warn when it begins, and at level info when it
/// has been over for ten seconds, with the number of messages that it cost. Names of rooms are escaped
/// there.
///
/// # Security
///
/// Each program that can publish on a topic can speak in its room: the hub checks only the form of a
/// payload.
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
/// use tidewire::Hub;
/// use tidewire::rooms::Backplane;
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
///         // Ends when the broker is lost, or was not reached: the hub subscribes again.
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
    /// Publishes a payload. The future ends when the broker has it; the hub never drops it before.
    ///
    /// # Errors
    ///
    /// An error means that the message is lost. The hub logs the error and goes on.
    fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>>;

    /// Subscribes to a topic: returns the payloads that are published on it from now on, by any publisher.
    fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes>;
}

/// A backplane within one process, for several hubs or for tests.
///
/// Clones are handles of the same backplane.
///
/// ```
/// use tidewire::Hub;
/// use tidewire::rooms::LocalBackplane;
///
/// let backplane = LocalBackplane::new();
/// let one: Hub = Hub::with_backplane(backplane.clone());
/// let other: Hub = Hub::with_backplane(backplane);
/// ```
#[derive(Clone, Default)]
pub struct LocalBackplane(Arc<Mutex<Topics>>);

/// The latest payloads of each topic.
type Topics = HashMap<Arc<str>, Arc<Tail<Bytes>>>;

impl LocalBackplane {
    /// Creates a backplane without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backplane for LocalBackplane {
    fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>> {
        let subscribers = self.0.lock().get(&topic).cloned();
        if let Some(subscribers) = subscribers {
            // `tell` returns the payload that a slow subscriber misses. It is dropped without the lock.
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
    /// Dropped after the reader.
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

/// Removes the topic when its last subscription ends.
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
