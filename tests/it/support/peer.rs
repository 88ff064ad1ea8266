//! The other side of a connection under test: it says exactly which bytes leave, and sees exactly
//! which arrive.

use std::future::Future;
use std::time::Duration;

use async_std::task::{self, JoinHandle};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use tidewire::frame::Role;
use tidewire::{Message, Result, WebSocket, WebSocketOptions};

use super::frames::{Seen, hex, shown, take_frame};
use super::pipe::{End, Knobs, pipe};

/// Longest wait for anything in these tests.
pub(crate) const WITHIN: Duration = Duration::from_secs(5);

/// Runs a test, which must not take longer than [`WITHIN`].
pub(crate) fn within<T>(test: impl Future<Output = T>) -> T {
    task::block_on(async_std::future::timeout(WITHIN, test)).expect("the test ends within 5 s")
}

/// What drives the connection under test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Drive {
    /// `WebSocket::run`: a task of its own.
    Task,
    /// `WebSocket::from_stream`: the calls of its user.
    Caller,
}

impl Drive {
    pub(crate) const BOTH: [Self; 2] = [Self::Task, Self::Caller];
}

/// Runs `handler` on a connection over `stream`, in the background.
pub(crate) fn drive<F, Fut>(
    drive: Drive,
    stream: End,
    role: Role,
    options: &WebSocketOptions,
    handler: F,
) -> JoinHandle<()>
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    match drive {
        Drive::Task => task::spawn(WebSocket::run(stream, [].as_slice(), role, options, handler)),
        Drive::Caller => {
            let handler = handler(WebSocket::from_stream(stream, [].as_slice(), role, options));
            task::spawn(async move {
                let _ = handler.await;
            })
        }
    }
}

/// A peer of `handler`, which runs in a task of its own at the server's side.
pub(crate) fn serve<F, Fut>(options: &WebSocketOptions, handler: F) -> Peer
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    serve_over(Knobs::default(), options, handler)
}

/// As [`serve`], over a stream with these knobs.
pub(crate) fn serve_over<F, Fut>(knobs: Knobs, options: &WebSocketOptions, handler: F) -> Peer
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (stream, end) = pipe(knobs);
    drive(Drive::Task, stream, Role::Server, options, handler);
    Peer { end }
}

/// Sends back what it receives, to the end.
pub(crate) async fn echo(mut ws: WebSocket) -> Result<()> {
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

/// All messages, and what came after the last.
pub(crate) async fn collect(ws: &mut WebSocket) -> (Vec<Message>, Result<()>) {
    let mut messages = Vec::new();
    loop {
        match ws.recv().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, Ok(())),
            Err(error) => return (messages, Err(error)),
        }
    }
}

/// A peer that speaks bytes.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) end: End,
}

impl Peer {
    /// Sends bytes in one write.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.end.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads as many bytes as are expected, and compares.
    pub(crate) async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let read = self.read(expected.len()).await;
        assert!(read == expected, "{} instead of {}", shown(&read), shown(expected));
    }

    pub(crate) async fn expect_hex(&mut self, expected: &str) {
        self.expect(hex(expected)).await;
    }

    /// The other side ends the stream, with nothing before.
    pub(crate) async fn expect_end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{} instead of the end", shown(&rest));
    }

    /// A close frame with this code, and the end of the stream.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        let frame = self.frame().await;
        assert_eq!(frame.close_code(), Some(code), "{frame:?}");
        self.expect_end().await;
    }

    pub(crate) async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut read = vec![0; len];
        self.end.read_exact(&mut read).await.unwrap();
        read
    }

    /// Everything until the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.end.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// The next frame of a server.
    pub(crate) async fn frame(&mut self) -> Seen {
        self.next_frame(false).await
    }

    /// The next frame of a client.
    pub(crate) async fn masked_frame(&mut self) -> Seen {
        self.next_frame(true).await
    }

    async fn next_frame(&mut self, is_masked: bool) -> Seen {
        let mut bytes = Vec::new();
        loop {
            if let Some(seen) = take_frame(&mut &*bytes, is_masked) {
                return seen;
            }
            bytes.extend(self.read(1).await);
        }
    }
}
