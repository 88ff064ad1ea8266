//! What the tasks of a connection have called, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use tidewire::frame::Frame;
use tidewire::{Error, Message, Result};

/// A call that may have to wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Recv,
    RecvFrame,
    Send,
    SendFrame,
    Flush,
    /// `poll_ready` of the `Sink`.
    Ready,
    Close,
    Closed,
    Heartbeat,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recv => "recv",
            Self::RecvFrame => "recv_frame",
            Self::Send => "send",
            Self::SendFrame => "send_frame",
            Self::Flush => "flush",
            Self::Ready => "ready",
            Self::Close => "close",
            Self::Closed => "closed",
            Self::Heartbeat => "run_heartbeat",
        })
    }
}

#[derive(Default)]
pub(super) struct Book(Mutex<Entries>);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are noted one by one")]
pub(super) struct Entries {
    /// Calls that wait, by number.
    pub(super) open: BTreeMap<u64, Kind>,
    begun: u64,
    /// Calls that had to wait, and have ended.
    pub(super) ended: Vec<Kind>,
    /// Messages received.
    pub(super) received: usize,
    /// Whether the latest call of `recv` had to wait: all messages before have been received.
    pub(super) has_asked: bool,
    /// Whether the latest call was one of `recv`, and not of `recv_frame`.
    pub(super) reads_messages: bool,
    /// Whether `recv` was called between the fragments that `recv_frame` took.
    pub(super) is_mixed: bool,
    /// Whether `recv` has returned the end.
    pub(super) has_ended: bool,
    /// Messages that have been sent, as far as the caller knows.
    pub(super) sent: usize,
    pub(super) pings: usize,
    /// Messages that the `Sink` took since its latest flush.
    pub(super) fed: usize,
}

/// A call, from its first poll until it ends or is dropped.
struct Entry<'a> {
    book: &'a Book,
    number: u64,
    kind: Kind,
}

impl Book {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Entries) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Waits for a call, and enters it.
    pub(super) async fn call<T>(&self, kind: Kind, future: impl Future<Output = T>) -> T {
        let entry = self.enter(kind);
        let (mut future, mut has_waited) = (std::pin::pin!(future), false);
        let output = std::future::poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() && matches!(kind, Kind::Recv | Kind::RecvFrame) {
                self.with(|entries| entries.has_asked = true);
            }
            has_waited |= polled.is_pending();
            polled
        })
        .await;
        if has_waited {
            self.with(|entries| entries.ended.push(entry.kind));
        }
        output
    }

    fn enter(&self, kind: Kind) -> Entry<'_> {
        let number = self.with(|entries| {
            entries.begun += 1;
            entries.open.insert(entries.begun, kind);
            if matches!(kind, Kind::Recv | Kind::RecvFrame) {
                entries.reads_messages = kind == Kind::Recv;
            }
            entries.begun
        });
        Entry { book: self, number, kind }
    }

    /// Notes what `recv` has returned.
    pub(super) fn received(&self, result: &Result<Option<Message>>) {
        self.with(|entries| match result {
            Ok(Some(_)) => entries.receive(true),
            Err(Error::MessageBegun) => entries.is_mixed = true,
            // As a stream, a connection ends after the first error, whatever that is.
            Ok(None) | Err(_) => entries.has_ended |= !entries.is_mixed,
        });
    }

    /// Notes what `recv_frame` has returned.
    pub(super) fn received_frame(&self, result: &Result<Option<Frame>>) {
        self.with(|entries| match result {
            Ok(Some(frame)) => entries.receive(frame.opcode().is_data() && frame.fin()),
            Ok(None) | Err(_) => entries.has_ended = true,
        });
    }

    pub(super) fn is_waiting_for(&self, kinds: &[Kind]) -> bool {
        self.with(|entries| entries.open.values().any(|kind| kinds.contains(kind)))
    }
}

impl Entries {
    fn receive(&mut self, is_whole: bool) {
        self.received += usize::from(is_whole);
        self.has_asked = false;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.book.with(|entries| entries.open.remove(&self.number));
    }
}
