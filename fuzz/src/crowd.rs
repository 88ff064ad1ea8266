//! Many tasks and their streams, of which the caller says who goes on, and when.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};

use crate::stream::kit::{self, End, Flow};
use crate::stream::{Splits, Stream};

/// A future, and whether it has been woken.
pub struct Task<T> {
    future: Option<BoxFuture<'static, T>>,
    flag: Arc<Flag>,
    pub output: Option<T>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<T> Task<T> {
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        Self { future: Some(Box::pin(future)), flag, output: None }
    }

    /// Polls the future if it has been woken; false if there was nothing to do.
    pub fn go_on(&mut self) -> bool {
        let Some(future) = &mut self.future else { return false };
        if !self.flag.0.swap(false, Ordering::SeqCst) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.future = None;
            self.output = Some(output);
        }
        true
    }
}

static SPAWNED: Mutex<Vec<BoxFuture<'static, ()>>> = Mutex::new(Vec::new());

/// What the crate has spawned since this was last called, none of it polled, as tasks.
pub fn spawned() -> Vec<Task<()>> {
    spawned_futures().into_iter().map(Task::new).collect()
}

/// The same as futures.
pub fn spawned_futures() -> Vec<BoxFuture<'static, ()>> {
    static SETS: Once = Once::new();
    SETS.call_once(|| {
        tidewire::executor::set_spawner(|future| SPAWNED.lock().unwrap().push(future)).unwrap();
    });
    std::mem::take(&mut *SPAWNED.lock().unwrap())
}

/// A stream with so much room, and the peer at its other end.
pub fn pipe(room: usize) -> (impl Stream, Peer) {
    let (to_peer, to_us) = (Flow::new(room), Flow::new(usize::MAX));
    let (stream, end) = kit::pipe(Splits::default(), Splits::default(), &to_peer, &to_us);
    (stream, Peer(Mutex::new(Side { end, arrived: Vec::new(), is_gone: false })))
}

pub struct Peer(Mutex<Side>);

struct Side {
    end: End<Splits>,
    arrived: Vec<u8>,
    is_gone: bool,
}

impl Peer {
    /// Reads so many bytes, if there are as many; false if there are none.
    pub fn read(&self, most: usize) -> bool {
        let Side { end, arrived, .. } = &mut *self.side();
        let (before, mut buf) = (arrived.len(), [0; 4096]);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let rest = most - (arrived.len() - before);
            let buf = &mut buf[..rest.min(4096)];
            match Pin::new(&mut *end).poll_read(&mut cx, buf) {
                Poll::Ready(Ok(len @ 1..)) => arrived.extend(&buf[..len]),
                _ => return arrived.len() > before,
            }
        }
    }

    pub fn say(&self, bytes: &[u8]) {
        // It is lost if nobody reads any more.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.side().end).poll_write(&mut cx, bytes);
    }

    /// Resets the connection.
    pub fn go(&self) {
        let mut side = self.side();
        side.is_gone = true;
        side.end.wire().reset();
    }

    pub fn is_gone(&self) -> bool {
        self.side().is_gone
    }

    /// All that was read.
    pub fn arrived(&self) -> Vec<u8> {
        self.side().arrived.clone()
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.0.lock().unwrap()
    }
}
