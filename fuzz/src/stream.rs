//! The test kit's stream in memory, at the pace of an input, with a peer that follows a script.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::io::{AsyncRead, AsyncWrite};

use self::kit::{End, Flow, Pace, Way};

#[expect(dead_code, reason = "what a line of the test kit does to its connections")]
#[path = "../../src/testing/pipe.rs"]
pub(crate) mod kit;

/// A stream as a connection takes it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// How many bytes each call moves: one number after the other, and again from the start. Zero is a
/// call that has to wait.
#[derive(Clone, Debug, Default)]
pub struct Splits {
    sizes: Vec<u8>,
    next: usize,
}

/// Calls after which a stream moves all it can: long inputs would take seconds.
const MOST_CALLS: usize = 4096;

impl Splits {
    pub fn new(sizes: &[u8]) -> Self {
        // Waiting for ever is not what is tried.
        let sizes = if sizes.iter().all(|size| *size == 0) { Vec::new() } else { sizes.to_vec() };
        Self { sizes, next: 0 }
    }
}

impl Pace for Splits {
    fn most(&mut self, _: Way) -> Option<usize> {
        if self.sizes.is_empty() || self.next > MOST_CALLS {
            return Some(usize::MAX);
        }
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        match size {
            0 => None,
            255 => Some(usize::MAX),
            size => Some(usize::from(size)),
        }
    }

    fn moved(&mut self, _: Way, _: usize) {}
}

/// What a peer says once its input is at its end.
#[derive(Debug)]
pub enum Last {
    /// It ends the stream.
    End,
    /// Nothing more.
    Silence,
    /// Once this was written to it, that, and then it ends the stream.
    Answer { to: Vec<u8>, with: Vec<u8> },
}

/// A stream on which a peer has said `input`, and what will be written to that peer.
pub fn script(input: &[u8], splits: Splits, last: Last) -> (impl Stream + use<>, Written) {
    let free = || Flow::new(usize::MAX);
    let (near, far) = kit::pipe(splits, Splits::default(), &free(), &free());
    let mut peer = Peer { end: far, written: Vec::new(), last };
    peer.say(input);
    if matches!(peer.last, Last::End) {
        peer.end();
    }
    let listener = Arc::new(Listener(Mutex::new(peer)));
    Arc::clone(&listener).wake();
    (near, Written(listener))
}

/// What was written to the peer of a [`script`].
#[derive(Clone, Debug)]
pub struct Written(Arc<Listener>);

impl Written {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().written.clone()
    }
}

#[derive(Debug)]
struct Peer {
    end: End<Splits>,
    written: Vec<u8>,
    last: Last,
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        // There is room for all of it, and it is lost if nobody reads any more.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.end).poll_write(&mut cx, bytes);
    }

    fn end(&mut self) {
        let _ = Pin::new(&mut self.end).poll_close(&mut Context::from_waker(Waker::noop()));
    }

    /// Reads all there is, and answers if that is due.
    fn go_on(&mut self, waker: &Waker) {
        let (before, mut buf) = (self.written.len(), [0; 4096]);
        let mut cx = Context::from_waker(waker);
        while let Poll::Ready(Ok(len @ 1..)) = Pin::new(&mut self.end).poll_read(&mut cx, &mut buf)
        {
            self.written.extend(&buf[..len]);
        }
        if let Last::Answer { to, with } = &self.last {
            // It may have come in pieces.
            let new = &self.written[(before + 1).saturating_sub(to.len())..];
            if new.windows(to.len()).any(|window| window == to) {
                let with = with.clone();
                self.last = Last::End;
                self.say(&with);
                self.end();
            }
        }
    }
}

/// A peer that goes on when something is written to it.
#[derive(Debug)]
struct Listener(Mutex<Peer>);

impl Wake for Listener {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        self.0.lock().unwrap().go_on(&waker);
    }
}
