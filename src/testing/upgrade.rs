//! Opening handshakes with a server in memory, made by [`Client`].

use super::TestClient;
use super::client::Fate;
use super::line::{End, Line};
use super::patience::Caller;
use super::peer::Peer;
use super::request::check_path;
use super::response::TestResponse;
use super::socket::TestSocket;
use crate::client::Client;
use crate::connection::WebSocket;
use crate::error::{ConnectError, Error, Result};
use crate::options::{DeflateOptions, WebSocketOptions};
use crate::stream::Stream;

/// An opening handshake that has not been sent.
#[derive(Debug)]
#[must_use = "an opening handshake is sent by `connect`, `refused` or `peer`"]
pub struct TestUpgrade {
    test: TestClient,
    /// The line of the test that has begun the handshake.
    caller: Caller,
    client: Client,
    path: String,
    has_cookies: bool,
}

impl TestUpgrade {
    #[track_caller]
    pub(super) fn new(test: TestClient, path: &str) -> Self {
        let client =
            Client::new(format!("ws://localhost{path}")).handshake_timeout(test.patience.0);
        Self { test, caller: Caller::here(), client, path: path.to_owned(), has_cookies: false }
    }

    fn with(self, change: impl FnOnce(Client) -> Client) -> Self {
        Self { client: change(self.client), ..self }
    }

    /// Adds a header line, like [`Client::header`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.has_cookies |= name.eq_ignore_ascii_case("cookie");
        self.with(|client| client.header(name, value))
    }

    /// Sets the `Origin` header, in which a browser names the site of its page (RFC 6455 §10.2).
    pub fn origin(self, origin: impl Into<String>) -> Self {
        self.with(|client| client.origin(origin))
    }

    /// Offers subprotocols, in the order of preference (RFC 6455 §1.9). Default: none.
    pub fn subprotocols<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.with(|client| client.subprotocols(names))
    }

    /// Offers to compress messages (RFC 7692). Default: no offer.
    pub fn deflate(self, options: DeflateOptions) -> Self {
        self.with(|client| client.deflate(options))
    }

    /// Sets the options of the client's side, like [`Client::options`].
    pub fn options(self, options: WebSocketOptions) -> Self {
        self.with(|client| client.options(options))
    }

    /// Opens the connection.
    ///
    /// The connection has no task, like that of [`Client::connect`]: pings are answered while a call of
    /// [`recv`](TestSocket::recv) waits.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if the server refuses, with its answer. [`Error::Io`] if the server has been shut down,
    /// if no executor runs it (see [`TestClient::open`]), or if the path does not begin with `/`.
    ///
    /// # Panics
    ///
    /// If a handler has failed before: see [`TestClient`](TestClient#handlers-that-fail).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn connect(self) -> Result<TestSocket> {
        let (client, end, _, fate) = self.dial()?;
        let opened = client.open_over(Stream::boxed(end)).await;
        let (shared, response) = opened.map_err(|error| self.failed(error, fate))?;
        self.test.keep_cookies(&self.path, response.headers());
        self.test.attend(&shared);
        Ok(TestSocket::new(WebSocket::new(shared), self.test, self.path))
    }

    /// Makes the opening handshake, and leaves the rest to the test.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn peer(self) -> Result<Peer> {
        let (client, end, line, fate) = self.dial()?;
        let greeted = client.greet(Stream::boxed(end)).await;
        let (stream, unread, response) = greeted.map_err(|error| self.failed(error, fate))?;
        self.test.keep_cookies(&self.path, response.headers());
        let response = TestResponse::of_handshake(format!("GET {}", self.path), &response);
        Ok(Peer::new(stream, line, self.test.patience).upgraded(&unread, response))
    }

    /// Opens a connection for the handshake, with the client that makes it.
    fn dial(&self) -> Result<(Client, End, Line, Fate)> {
        check_path(&self.path)?;
        let mut client = self.client.clone().inherit_clock(&self.test.clock());
        if let Some(cookies) = self.test.cookies_for(&self.path).filter(|_| !self.has_cookies) {
            client = client.header("Cookie", cookies);
        }
        let (end, line, fate) = self.test.dial(self.caller)?;
        Ok((client, end, line, fate))
    }

    /// Keeps the cookies of a refusal, and explains an error.
    fn failed(&self, error: Error, fate: Fate) -> Error {
        if let Error::Connect(error) = &error {
            if let ConnectError::Refused(response) = &**error {
                self.test.keep_cookies(&self.path, response.headers());
            }
        }
        self.test.explain(error, fate)
    }

    /// Makes the opening handshake, and returns the response of a server that refuses it, with at most 1 KiB of
    /// its body.
    ///
    /// # Panics
    ///
    /// If the server upgrades, or does not answer.
    #[track_caller]
    pub fn refused(self) -> impl Future<Output = TestResponse> + Send {
        let caller = Caller::here();
        async move {
            let request = format!("GET {}", self.path);
            match self.connect().await {
                Err(Error::Connect(error)) => match &*error {
                    ConnectError::Refused(response) => {
                        TestResponse::of_handshake(request, response)
                    }
                    other => caller.fail(format!("{request} should be refused: {other:#}")),
                },
                Err(other) => caller.fail(format!("{request} should be refused: {other:#}")),
                Ok(_) => caller.fail(format!("{request} was upgraded, and should be refused")),
            }
        }
    }
}
