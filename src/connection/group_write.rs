//! Writing for many: what a broadcast has queued goes out without a wake-up for the task of each member.

use std::sync::Arc;
use std::thread;
use std::vec::IntoIter;

use super::shared::Shared;
use crate::runtime;
use crate::runtime::Home;

/// Connections that a task writes for in one turn.
const GROUP: usize = 64;

/// Below this many, waking the task of each connection is cheaper than spawning one.
const FEWEST: usize = 3;

/// Bytes after which such a task lets others go on, once the connection at hand is written: some 0.3 ms of
/// copying for the kernel.
const BYTES_PER_TURN: u64 = 1 << 20;

/// Connections that have something to write, once [`start`](Self::start) is called.
#[must_use = "the connections are not written before `start`"]
pub(crate) struct GroupWrites {
    connections: Vec<Arc<Shared>>,
    /// Connections that owe a wake-up.
    wakers: Vec<Arc<Shared>>,
}

impl GroupWrites {
    /// For a message to so many connections, at most.
    pub(crate) fn among(connections: usize) -> Self {
        Self { connections: Vec::with_capacity(connections), wakers: Vec::new() }
    }

    /// Makes room for a message to so many connections, at most.
    pub(crate) fn reserve(&mut self, connections: usize) {
        self.connections.reserve(connections);
    }

    /// Adds a connection, whose task does not know yet.
    pub(super) fn add(&mut self, shared: &Arc<Shared>) {
        self.connections.push(Arc::clone(shared));
    }

    /// Adds a connection that owes a wake-up.
    pub(super) fn add_waker(&mut self, shared: &Arc<Shared>) {
        self.wakers.push(Arc::clone(shared));
    }

    /// Starts the writes. No lock may be held: wakers and the spawner are the application's.
    pub(crate) fn start(mut self) {
        let connections = std::mem::take(&mut self.connections);
        let wakers = std::mem::take(&mut self.wakers);
        // Members for whom the broadcast is no write, but a reason to wake a task.
        for shared in wakers {
            shared.wake_for_broadcast();
        }
        if connections.len() < FEWEST {
            return Group(connections.into_iter()).wake_tasks();
        }
        // One task for each worker: that is the thread that wakes its members in any case.
        for (home, connections) in by_home(connections) {
            let group = Group(connections.into_iter());
            if home.is_worker() {
                home.spawn(group.write());
            } else {
                home.spawn(group.write_in_groups());
            }
        }
    }
}

/// The connections of each worker, and those that live on none.
fn by_home(connections: Vec<Arc<Shared>>) -> Vec<(Home, Vec<Arc<Shared>>)> {
    let mut homes: Vec<(Home, Vec<Arc<Shared>>)> = Vec::new();
    for shared in connections {
        match homes.iter_mut().find(|(home, _)| home.is(&shared.home)) {
            Some((_, members)) => members.push(shared),
            None => homes.push((shared.home.clone(), vec![shared])),
        }
    }
    homes
}

/// A panic has unwound past [`start`](GroupWrites::start), as that of a payload's destructor does. The tasks of the
/// connections do not know that there is something to write.
impl Drop for GroupWrites {
    fn drop(&mut self) {
        for shared in self.wakers.drain(..) {
            shared.wake_for_broadcast();
        }
        for shared in self.connections.drain(..) {
            shared.wake_task();
        }
    }
}

/// Connections to write for. If an executor drops the future, or a stream panics, the tasks of the rest are woken, and
/// write.
struct Group(IntoIter<Arc<Shared>>);

impl Group {
    /// Writes for all of them, after those who speak at the same time were heard: then one write takes what all of
    /// them said.
    async fn write_in_groups(mut self) {
        // The reactor's thread reports the speakers, and their tasks stand in the executor's queue before this one.
        thread::yield_now();
        runtime::yield_now().await;
        // A task of its own for each group, so that several threads may write.
        while self.0.len() > GROUP {
            let group = Self(self.0.by_ref().take(GROUP).collect::<Vec<_>>().into_iter());
            runtime::spawn(group.write());
        }
        self.write().await;
    }

    async fn write(mut self) {
        let (mut written, mut connections) = (0, 0);
        while let Some(shared) = self.0.as_slice().first() {
            written += shared.write_for_task();
            connections += 1;
            // After the write: a connection whose stream panics stays in the group, and its task is woken and ends with it.
            self.0.next();
            if written >= BYTES_PER_TURN || connections >= GROUP {
                (written, connections) = (0, 0);
                runtime::yield_now().await;
            }
        }
    }
}

impl Group {
    /// Wakes the tasks of the connections that are left. They write themselves.
    fn wake_tasks(&mut self) {
        self.0.by_ref().for_each(|shared| shared.wake_task());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.wake_tasks();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use bytes::Bytes;
    use futures::FutureExt;
    use futures::io::{AsyncRead, AsyncWrite};

    use super::*;
    use crate::connection::backlog::{Bounds, SlowConsumer};
    use crate::connection::broadcast::PreparedMessage;
    use crate::connection::shared::Opened;
    use crate::connection::state::{Driver, Work};
    use crate::foreign::attempt;
    use crate::options::Settings;
    use crate::proto::Role;
    use crate::stream::Stream;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A stream that takes nothing.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// A stream that takes everything.
    struct Greedy;

    impl AsyncRead for Greedy {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Greedy {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Connections whose tasks have been polled with this waker.
    fn connections(count: usize, waker: &Waker) -> Vec<Arc<Shared>> {
        connections_over(|| Stream::boxed(Stuck), count, waker)
    }

    fn connections_over(
        stream: impl Fn() -> Stream,
        count: usize,
        waker: &Waker,
    ) -> Vec<Arc<Shared>> {
        let connection = |_| {
            let stream = stream();
            let (settings, opened) = (Settings::default(), Opened::default());
            let shared = Shared::new(stream, Bytes::new(), Role::Server, settings, opened);
            shared.with(|connection, _| connection.driver = Driver::Task(None));
            shared.set_task(waker);
            shared
        };
        (0..count).map(connection).collect()
    }

    #[test]
    fn others_have_their_turn_while_much_is_written() {
        let message = PreparedMessage::new(vec![7; 300 << 10]);
        let policy = SlowConsumer::DropNewest;
        let bounds = Bounds { max_messages: 1, max_bytes: 100, policy };
        let connections = connections_over(|| Stream::boxed(Greedy), 10, Waker::noop());
        let mut writers = GroupWrites::among(10);
        for connection in &connections {
            connection.deliver(0, &message, &bounds, &mut writers);
        }
        let group = Group(std::mem::take(&mut writers.connections).into_iter());
        let (mut writing, mut turns) = (Box::pin(group.write()), 1);
        while writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            turns += 1;
        }
        // Four of them are more than a mebibyte.
        assert_eq!(turns, 3);
        let written =
            |connection: &Arc<Shared>| connection.with(|connection, _| connection.bytes_written());
        assert!(connections.iter().all(|connection| written(connection) > 300 << 10));
    }

    #[test]
    fn connections_that_nobody_has_written_for_are_woken() {
        let woken = Arc::new(Count::default());
        let connections = connections(FEWEST, &Waker::from(Arc::clone(&woken)));
        // As an executor does that is ending.
        drop(Group(connections.clone().into_iter()));
        assert_eq!(woken.0.load(Ordering::Relaxed), FEWEST);
        // For one there is no task.
        let mut writers = GroupWrites::among(1);
        writers.add(&connections[0]);
        writers.start();
        assert_eq!(woken.0.load(Ordering::Relaxed), FEWEST + 1);
        // A panic unwinds past the start.
        let mut writers = GroupWrites::among(1);
        writers.add(&connections[0]);
        drop(writers);
        assert_eq!(woken.0.load(Ordering::Relaxed), FEWEST + 2);
    }

    #[test]
    fn tasks_are_woken_for_what_only_they_do() {
        let message = PreparedMessage::new("a broadcast");
        let policy = SlowConsumer::DropNewest;
        let bounds = Bounds { max_messages: 1, max_bytes: 100, policy };
        let woken = |meanwhile: fn(&Shared)| {
            let woken = Arc::new(Count::default());
            let connections = connections(1, &Waker::from(Arc::clone(&woken)));
            let mut writers = GroupWrites::among(1);
            connections[0].deliver(0, &message, &bounds, &mut writers);
            meanwhile(&connections[0]);
            let group = || Group(connections.clone().into_iter());
            assert_eq!(std::mem::take(&mut writers.connections).len(), 1);
            assert!(group().write().now_or_never().is_some());
            let first = woken.0.load(Ordering::Relaxed);
            connections[0].with(|connection, _| connection.work = Work::Told);
            assert!(group().write().now_or_never().is_some());
            (first, woken.0.load(Ordering::Relaxed))
        };
        // A clock begins to run, and the task is told once, by either writer.
        assert_eq!(woken(|_| {}), (1, 1));
        assert_eq!(
            woken(|shared| shared.with(|connection, _| connection.write(&mut shared.io_context()))),
            (1, 1)
        );
        // A closing handshake goes on, and beginning it wakes the task, too.
        assert_eq!(
            woken(|shared| shared.with(|connection, _| connection.begin_close(None))),
            (2, 3)
        );
        // Its turn has come anyhow.
        assert_eq!(woken(|shared| shared.with(|connection, _| connection.begin_poll())), (0, 0));
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_keeps_no_connection_from_closing() {
        struct Bomb;

        impl AsRef<[u8]> for Bomb {
            fn as_ref(&self) -> &[u8] {
                b"a payload of the application, which is shared and not copied"
            }
        }

        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }

        let policy = SlowConsumer::DropNewest;
        let bounds = Bounds { max_messages: 1, max_bytes: 100, policy };
        let connection = connections(1, Waker::noop()).remove(0);
        let mut writers = GroupWrites::among(2);
        // Behind this one there is no room, so the next one waits.
        connection.deliver(0, &PreparedMessage::new(vec![7; 300 << 10]), &bounds, &mut writers);
        let waiting = PreparedMessage::new(Bytes::from_owner(Bomb));
        connection.deliver(0, &waiting, &bounds, &mut writers);
        drop(waiting);
        let close = || connection.with(|connection, _| connection.begin_close(None));
        attempt(close).unwrap_err();
        close();
        assert!(connection.with(|connection, _| !connection.state.can_send()), "the close frame");
        writers.start();
    }
}
