//! Opening handshakes with a server in memory, made by [`Client`].

use super::TestClient;
use super::patience::Caller;
use super::peer::Peer;
use super::request::check_path;
use super::response::TestResponse;
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
    client: Client,
    path: String,
}

impl TestUpgrade {
    pub(super) fn new(test: TestClient, path: &str) -> Self {
        let client =
            Client::new(format!("ws://localhost{path}")).handshake_timeout(test.patience.0);
        Self { test, client, path: path.to_owned() }
    }

    fn with(self, change: impl FnOnce(Client) -> Client) -> Self {
        Self { client: change(self.client), ..self }
    }

    /// Adds a header line, like [`Client::header`].
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
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
    /// [`recv`](WebSocket::recv) waits.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if the server refuses, with its answer. [`Error::Io`] if the server has been shut down,
    /// if no executor runs it (see [`TestClient::open`]), or if the path does not begin with `/`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn connect(self) -> Result<WebSocket> {
        check_path(&self.path)?;
        let (end, _, fate) = self.test.dial()?;
        let opened = self.client.connect_over(end).await;
        opened.map_err(|error| self.test.explain(error, fate))
    }

    /// Makes the opening handshake, and leaves the rest to the test.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn peer(self) -> Result<Peer> {
        check_path(&self.path)?;
        let (end, line, fate) = self.test.dial()?;
        let greeted = self.client.greet(Stream::boxed(end)).await;
        let (stream, unread, response) = greeted.map_err(|error| self.test.explain(error, fate))?;
        let response = TestResponse::of_handshake(format!("GET {}", self.path), &response);
        Ok(Peer::new(stream, line, self.test.patience).upgraded(&unread, response))
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
