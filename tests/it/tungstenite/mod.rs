//! Connections that go to async-tungstenite and come from there, and values that do.
//!
//! | file | shows |
//! | --- | --- |
//! | `convert` | messages, close frames and close codes |
//! | `into` | connections of ours that go on in async-tungstenite |
//! | `from` | connections of async-tungstenite that go on here, and those that come back |

mod convert;
mod from;
mod into;

use async_tungstenite::tungstenite::Message;
use async_tungstenite::{WebSocketStream, tungstenite};
use futures::io::{AsyncRead, AsyncWrite};
use futures::{Sink, SinkExt, StreamExt};
use tidewire::frame::Role;

use crate::support::frames::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, masked, plain};

/// A frame as one side sends it.
type Encode = fn(u8, &[u8]) -> Vec<u8>;

/// How the peer of the side `role` sends a frame.
fn encode_for(role: Role) -> Encode {
    match role {
        Role::Server => |head, payload| masked(head, payload),
        Role::Client => |head, payload| plain(head, payload),
    }
}

/// Messages of all kinds, and how they look on the wire: with fragments, a ping between them, and
/// lengths of each format.
fn conversation(encode: Encode) -> (Vec<u8>, Vec<Message>) {
    let long = vec![7; 300];
    let wire = [
        encode(TEXT, b"one"),
        encode(TEXT & !FIN, "Hé".as_bytes()),
        encode(PING, b"between"),
        encode(CONTINUATION & !FIN, "llö".as_bytes()),
        encode(CONTINUATION, b"!"),
        encode(BINARY, &long),
        encode(PONG, b"unasked"),
        encode(TEXT, b""),
        encode(BINARY, b"last"),
    ];
    let messages = vec![
        Message::text("one"),
        Message::text("Héllö!"),
        Message::binary(long),
        Message::text(""),
        Message::binary(b"last".as_slice()),
    ];
    (wire.concat(), messages)
}

/// The next `count` messages, without control frames.
async fn take<S>(stream: &mut WebSocketStream<S>, count: usize) -> Vec<Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = stream.next().await.unwrap().unwrap();
        if message.is_text() || message.is_binary() {
            messages.push(message);
        }
    }
    messages
}

/// Sends back what it receives, to the end.
async fn echo<S>(mut stream: WebSocketStream<S>) -> Result<(), tungstenite::Error>
where
    WebSocketStream<S>: Sink<Message, Error = tungstenite::Error>
        + StreamExt<Item = Result<Message, tungstenite::Error>>
        + Unpin,
{
    while let Some(message) = stream.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            SinkExt::send(&mut stream, message).await?;
        }
    }
    Ok(())
}
