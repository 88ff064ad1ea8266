//! The WebSocket connection of a test, whose waits end.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::TestClient;
use super::patience::Caller;
use crate::connection::{CloseInfo, WebSocket};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::proto::{CloseCode, Frame, ProtocolError};

/// Largest number of characters of a message that a failure shows.
const MOST: usize = 1 << 10;

/// A [`WebSocket`] of a test. It dereferences to one.
///
/// A wait that takes longer than the [patience](TestClient::patience) of its client, 5 s by default, fails the test: the
/// message names the wait, the line of the test, and the handlers that have failed. An error of the connection is returned
/// as by a `WebSocket`. The methods that begin with `expect` fail the test also if something else comes.
///
/// The connection has no task, like that of [`Client::connect`](crate::Client::connect). It answers pings and close frames
/// while a call of `recv` waits, and while the client [advances](TestClient::advance) the time or waits for the server to
/// be at rest. A [`Peer`](super::Peer) answers nothing.
///
/// ```
/// use tidewire::testing::TestClient;
/// use tidewire::{RequestContext, Server, WebSocketOptions};
///
/// # async_std::task::block_on(async {
/// let mut server = Server::new();
/// server.get("/ws", |mut ctx: RequestContext| async move {
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     ws.send_json(&serde_json::json!({ "type": "hello", "members": 1 })).await?;
///     while let Some(message) = ws.recv().await? {
///         if message != "ping" {
///             ws.send(message).await?;
///         }
///     }
///     Ok(())
/// });
/// let client = TestClient::new(&server);
/// let mut ws = client.connect("/ws").await?;
/// ws.expect_json(serde_json::json!({ "type": "hello", "members": 1 })).await;
/// ws.send("Hello").await?;
/// ws.expect_text("Hello").await;
/// ws.send("ping").await?;
/// ws.expect_silence().await;
/// # Ok::<(), tidewire::Error>(())
/// # }).unwrap();
/// ```
///
/// # Cancel safety
///
/// That of the same method of [`WebSocket`]. A call that expects something loses the message that it has received.
pub struct TestSocket {
    ws: WebSocket,
    client: TestClient,
    path: String,
}

impl TestSocket {
    pub(super) fn new(ws: WebSocket, client: TestClient, path: String) -> Self {
        Self { ws, client, path }
    }

    /// The connection alone, whose waits have no limit.
    #[must_use]
    pub fn into_inner(self) -> WebSocket {
        self.ws
    }

    /// Sets the longest time that a call waits, in place of the [patience](TestClient::patience) of its client; `None` for
    /// no limit.
    #[must_use]
    pub fn patience(self, patience: impl Into<Option<Duration>>) -> Self {
        Self { client: self.client.patience(patience), ..self }
    }

    /// Receives the next message, as [`WebSocket::recv`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv`].
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[track_caller]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>>> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        async move { client.patiently(caller, format!("no message at {path}"), ws.recv()).await }
    }

    /// Receives the next frame, as [`WebSocket::recv_frame`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv_frame`].
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[track_caller]
    pub fn recv_frame(&mut self) -> impl Future<Output = Result<Option<Frame>>> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        async move { client.patiently(caller, format!("no frame at {path}"), ws.recv_frame()).await }
    }

    /// Receives a message, and reads it as JSON, as [`WebSocket::recv_json`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::recv_json`].
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[track_caller]
    pub fn recv_json<T: DeserializeOwned>(
        &mut self,
    ) -> impl Future<Output = Result<Option<T>>> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        async move {
            let message = format!("no message at {path}");
            let received = client.patiently(caller, message, ws.recv()).await?;
            received.map(|message| message.parse()).transpose()
        }
    }

    /// Sends a message, as [`WebSocket::send`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::send`].
    ///
    /// # Panics
    ///
    /// If the server does not take it in time.
    #[track_caller]
    pub fn send(&mut self, message: impl Into<Message>) -> impl Future<Output = Result<()>> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        let sending = ws.send(message.into());
        async move { client.patiently(caller, unsent(path), sending).await }
    }

    /// Sends a text message. See [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    #[track_caller]
    pub fn send_text(
        &mut self,
        text: impl Into<String>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::text(text))
    }

    /// Sends a binary message. See [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    #[track_caller]
    pub fn send_binary(
        &mut self,
        bytes: impl Into<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::binary(bytes))
    }

    /// Sends a value as JSON, as [`WebSocket::send_json`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::send_json`].
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    #[track_caller]
    pub fn send_json<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> impl Future<Output = Result<()>> + Send + use<'_, T> {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        let sending = Message::json(value).map(|message| ws.send(message));
        async move { client.patiently(caller, unsent(path), sending?).await }
    }

    /// Closes the connection, as [`WebSocket::close`] does.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::close`].
    ///
    /// # Panics
    ///
    /// If the closing handshake does not end in time.
    #[track_caller]
    pub fn close(
        &mut self,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> impl Future<Output = Result<CloseInfo>> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        let code = code.try_into().map_err(Into::into);
        async move {
            let closing = async { ws.close(code.map_err(Error::InvalidClose)?, reason).await };
            client.patiently(caller, format!("no end of the closing of {path}"), closing).await
        }
    }

    /// Waits for the end of the connection, as [`WebSocket::closed`] does.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    #[track_caller]
    pub fn closed(&self) -> impl Future<Output = CloseInfo> + Send {
        let (caller, Self { ws, client, path }) = (Caller::here(), self);
        async move { client.patiently(caller, format!("no end of {path}"), ws.closed()).await }
    }

    /// Checks that the next message is this one, and returns it.
    ///
    /// # Panics
    ///
    /// If another comes, none comes in time, or the connection ends.
    #[track_caller]
    pub fn expect_message(
        &mut self,
        expected: impl Into<Message>,
    ) -> impl Future<Output = Message> + Send {
        let (caller, expected) = (Caller::here(), expected.into());
        async move {
            let message = self.next(caller, &shown(&expected)).await;
            if message != expected {
                self.differs(caller, &shown(&expected), &shown(&message), "");
            }
            message
        }
    }

    /// Checks that the next message is a text, and this one.
    ///
    /// # Panics
    ///
    /// If another comes, none comes in time, or the connection ends.
    #[track_caller]
    pub fn expect_text(&mut self, expected: &str) -> impl Future<Output = ()> + Send {
        self.expect_message(expected).map(drop)
    }

    /// Checks that the next message is JSON, and equal to `expected` as JSON: neither blanks nor the order of fields
    /// count.
    ///
    /// # Panics
    ///
    /// If another comes, none comes in time, or the connection ends.
    #[track_caller]
    pub fn expect_json(&mut self, expected: impl Serialize) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        let expected = serde_json::to_value(expected).unwrap_or_else(|error| caller.fail(error));
        async move {
            let text = cut(&expected.to_string());
            let message = self.next(caller, &text).await;
            match message.parse::<Value>() {
                Ok(found) if found == expected => {}
                Ok(found) => {
                    let place = difference(&expected, &found, "");
                    self.differs(caller, &text, &cut(&found.to_string()), &place);
                }
                Err(_) => self.differs(caller, &text, &shown(&message), ", which is not JSON"),
            }
        }
    }

    /// Checks that no message is there and none comes: waits until the server is at rest, that is, until no handler can go
    /// on, and all that was sent has been received.
    ///
    /// A handler that waits for something outside of the server, such as a database or `tokio::time`, counts as at rest:
    /// what it sends later is no part of the silence. A silence over some time is
    /// [`expect_silence_for`](Self::expect_silence_for).
    ///
    /// # Panics
    ///
    /// If there is a message, the connection has ended, or the server does not come to rest in time.
    #[track_caller]
    pub fn expect_silence(&mut self) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            self.silence(caller).await;
        }
    }

    /// [Advances](TestClient::advance) the time by `time`, and checks that no message was there before and none has come.
    ///
    /// # Panics
    ///
    /// As [`expect_silence`](Self::expect_silence).
    #[track_caller]
    pub fn expect_silence_for(&mut self, time: Duration) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            self.client.advance_for(caller, time).await;
            self.silence(caller).await;
        }
    }

    /// Checks that the connection ends next, with this [code](CloseInfo::reported_code), and returns how it has ended.
    ///
    /// 1005 stands for a close frame without a code, and 1006 for an end without a close frame (RFC 6455 §7.1.5).
    ///
    /// # Panics
    ///
    /// If a message comes, the code is another, or the connection does not end in time.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> impl Future<Output = CloseInfo> + Send {
        let caller = Caller::here();
        async move {
            let expected = format!("a close with {code}");
            let what = format!("{expected} is expected at {}, and nothing came", self.path);
            if let Ok(Some(message)) = self.client.patiently(caller, what, self.ws.recv()).await {
                self.differs(caller, &expected, &shown(&message), "");
            }
            let what = format!("{expected} is expected at {}, which did not end", self.path);
            let info = self.client.patiently(caller, what, self.ws.closed()).await;
            if info.reported_code() != code {
                self.differs(caller, &expected, &format!("a close with {info}"), "");
            }
            info
        }
    }

    async fn next(&mut self, caller: Caller, expected: &str) -> Message {
        let Self { ws, client, path } = self;
        let what = format!("{expected} is expected at {path}, and nothing came");
        match client.patiently(caller, what, ws.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => self.differs(caller, expected, &self.end(), ""),
            Err(error) => self.differs(caller, expected, &format!("{}: {error:#}", self.end()), ""),
        }
    }

    /// Waits until the server is at rest, and fails the test if something has come.
    async fn silence(&mut self, caller: Caller) {
        loop {
            self.client.at_rest(caller).await;
            let before = self.client.traffic();
            self.is_silent(caller);
            if self.client.traffic() == before {
                return;
            }
            // A part of a message that is larger than what is read ahead: the rest may come now.
        }
    }

    /// The socket has read ahead what it may.
    fn is_silent(&mut self, caller: Caller) {
        let nothing = "no message";
        // A call may yield to others, and has nothing to wait for.
        for _ in 0..3 {
            match self.ws.recv().now_or_never() {
                None => {}
                Some(Ok(Some(message))) => self.differs(caller, nothing, &shown(&message), ""),
                Some(Ok(None)) => self.differs(caller, nothing, &self.end(), ""),
                Some(Err(error)) => {
                    self.differs(caller, nothing, &format!("{}: {error:#}", self.end()), "");
                }
            }
        }
    }

    fn end(&self) -> String {
        let end = self.ws.close_info();
        end.map_or_else(|| "the end".to_owned(), |info| format!("a close with {info}"))
    }

    /// Fails the test: what came is not what was expected.
    fn differs(&self, caller: Caller, expected: &str, found: &str, more: &str) -> ! {
        let report = self.client.report();
        caller.fail(format!(
            "what came at {} is not what was expected\n  expected: {expected}\n  found:    {found}{more}\n{report}",
            self.path
        ))
    }
}

fn unsent(path: &str) -> String {
    format!("the server did not take a message at {path}")
}

/// `Text("Hello")`, cut if it is long.
fn shown(message: &Message) -> String {
    match message.as_text() {
        Some(text) => format!("Text({:?})", cut(text)),
        None => cut(&format!("{message:?}")),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// The first place where two values differ, for the end of a line.
fn difference(expected: &Value, found: &Value, place: &str) -> String {
    let inside = match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let names = expected.keys().chain(found.keys());
            let values =
                names.map(|name| (format!("{place}.{name}"), expected.get(name), found.get(name)));
            values.into_iter().find(|(_, expected, found)| expected != found)
        }
        (Value::Array(expected), Value::Array(found)) => {
            let indices = 0..expected.len().max(found.len());
            let values =
                indices.map(|at| (format!("{place}[{at}]"), expected.get(at), found.get(at)));
            values.into_iter().find(|(_, expected, found)| expected != found)
        }
        _ => None,
    };
    match inside {
        Some((place, Some(expected), Some(found))) => difference(expected, found, &place),
        Some((place, None, _)) => format!("\n  {place} should not be there"),
        Some((place, _, None)) => format!("\n  {place} is missing"),
        None if place.is_empty() => String::new(),
        None => format!(
            "\n  at {place}: {} instead of {}",
            cut(&found.to_string()),
            cut(&expected.to_string())
        ),
    }
}

impl Deref for TestSocket {
    type Target = WebSocket;

    fn deref(&self) -> &WebSocket {
        &self.ws
    }
}

impl DerefMut for TestSocket {
    fn deref_mut(&mut self) -> &mut WebSocket {
        &mut self.ws
    }
}

impl From<TestSocket> for WebSocket {
    fn from(socket: TestSocket) -> Self {
        socket.into_inner()
    }
}

impl fmt::Debug for TestSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSocket")
            .field("path", &self.path)
            .field("ws", &self.ws)
            .finish_non_exhaustive()
    }
}
