//! Calls of a `Sender`, each of which may be a task.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tidewire::websocket::{HeartbeatOptions, PreparedMessage};
use tidewire::{Message, Sender};

use super::book::{Book, Kind};
use super::choices::Choices;

/// A call of a [`Sender`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Send(usize),
    SendPrepared(usize),
    Ping,
    Pong,
    Flush,
    Close,
    Closed,
    Heartbeat,
}

impl Call {
    pub(super) fn new(choices: &mut Choices<'_>) -> Self {
        match choices.below(16) {
            0..=3 => Self::Send(len(choices)),
            4 => Self::SendPrepared(len(choices)),
            5 => Self::Ping,
            6 => Self::Pong,
            7..=9 => Self::Flush,
            10 => Self::Close,
            11..=14 => Self::Closed,
            _ => Self::Heartbeat,
        }
    }

    pub(super) fn begin(self, sender: Sender, book: Arc<Book>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.run(&sender, &book).await })
    }

    async fn run(self, sender: &Sender, book: &Book) {
        match self {
            Self::Send(len) => {
                let sent = book.call(Kind::Send, sender.send(message(len))).await;
                book.with(|entries| entries.sent += usize::from(sent.is_ok()));
            }
            Self::SendPrepared(len) => {
                let prepared = PreparedMessage::from(message(len));
                let sent = book.call(Kind::Send, sender.send_prepared(&prepared)).await;
                book.with(|entries| entries.sent += usize::from(sent.is_ok()));
            }
            Self::Ping => {
                let sent = book.call(Kind::SendFrame, sender.ping("ours")).await;
                book.with(|entries| entries.pings += usize::from(sent.is_ok()));
            }
            Self::Pong => _ = book.call(Kind::SendFrame, sender.pong("unasked")).await,
            Self::Flush => _ = book.call(Kind::Flush, sender.flush()).await,
            Self::Close => _ = book.call(Kind::Close, sender.close(1000, "")).await,
            Self::Closed => _ = book.call(Kind::Closed, sender.closed()).await,
            Self::Heartbeat => {
                _ = book.call(Kind::Heartbeat, sender.run_heartbeat(heartbeat())).await;
            }
        }
    }
}

/// A ping each second, and two for its answer.
pub(super) fn heartbeat() -> HeartbeatOptions {
    let options = HeartbeatOptions::default().jitter(0);
    options.interval(Duration::from_secs(1)).timeout(Duration::from_secs(2))
}

pub(super) fn message(len: usize) -> Message {
    // Numbers that do not repeat do not compress too well.
    Message::binary((0..len).map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0]).collect::<Vec<_>>())
}

/// How long a message is: most are short.
pub(super) fn len(choices: &mut Choices<'_>) -> usize {
    match choices.byte() {
        0xf0.. => 70_000,
        0xd0.. => 2_000,
        len => usize::from(len & 0x3f),
    }
}
