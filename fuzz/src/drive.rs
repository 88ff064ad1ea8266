//! Futures, polled when they have been woken, and connections driven to their end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tidewire::frame::{ProtocolError, Role};
use tidewire::{Error, Message, Result, WebSocket, WebSocketOptions};

use crate::oracle::{self, End, Limits};
use crate::stream::{Last, Splits, Written, script};

/// More polls than any input of a fuzzer takes.
const MOST_POLLS: usize = 1 << 16;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a future that waits for nothing but streams in memory.
///
/// # Panics
///
/// If it waits and nothing has woken it, or does not come to an end.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    for _ in 0..MOST_POLLS {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => assert!(flag.0.swap(false, Ordering::SeqCst), "nobody was woken"),
        }
    }
    panic!("no end after {MOST_POLLS} polls")
}

/// The options that set these limits, and no timers.
pub fn options(limits: &Limits) -> WebSocketOptions {
    WebSocketOptions::default()
        .max_message_size(limits.message)
        .max_frame_size(limits.frame)
        .max_fragments(limits.fragments)
        .message_timeout(None)
        .send_timeout(None)
}

/// A connection over these bytes, and what it will write.
pub fn connect(
    input: &[u8],
    splits: Splits,
    role: Role,
    options: &WebSocketOptions,
) -> (WebSocket, Written) {
    let (stream, written) = script(input, splits, Last::End);
    (WebSocket::from_stream(stream, bytes::Bytes::new(), role, options), written)
}

/// All messages, and what came after the last.
pub async fn collect(ws: &mut WebSocket) -> (Vec<oracle::Message>, Result<()>) {
    let mut messages = Vec::new();
    loop {
        match ws.recv().await {
            Ok(Some(message)) => messages.push(heard(&message)),
            Ok(None) => return (messages, Ok(())),
            Err(error) => return (messages, Err(error)),
        }
    }
}

pub fn heard(message: &Message) -> oracle::Message {
    let (is_text, payload) = (message.is_text(), message.as_bytes().to_vec());
    assert_eq!(is_text, message.as_text().is_some(), "text that is none");
    oracle::Message { is_text, payload }
}

/// Does the connection end as it should? It may refuse a header of which the rest is missing.
pub fn check_end(end: &Result<()>, expected: End) {
    let is_right = match (end, expected) {
        (Ok(()), End::Close(_)) => true,
        (Err(Error::Io(_)), End::Cut | End::CutHeader) => true,
        (Err(Error::Protocol(error)), End::Violation(code)) => code_of(*error) == code,
        (Err(Error::Protocol(error)), End::CutHeader) => code_of(*error) == 1002,
        _ => false,
    };
    assert!(is_right, "{end:?} instead of {expected:?}");
}

pub fn code_of(error: ProtocolError) -> u16 {
    error.close_code().into()
}
