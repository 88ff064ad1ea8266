//! HTTP requests to a server in memory, written by hyper.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::{Either, poll_fn, select};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use serde::Serialize;
use smol_hyper::rt::FuturesIo;

use super::TestClient;
use super::line::End;
use super::patience::Caller;
use super::response::TestResponse;
use crate::error::{Error, Result};
use crate::http::io_error;

/// An HTTP request that has not been sent.
#[derive(Debug)]
#[must_use = "a request is sent by `send`"]
pub struct TestRequest {
    client: TestClient,
    /// The line of the test that has begun the request.
    caller: Caller,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Result<Bytes>,
}

impl TestRequest {
    #[track_caller]
    pub(super) fn new(client: TestClient, method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        let caller = Caller::here();
        Self { client, caller, method, path, headers: Vec::new(), body: Ok(Bytes::new()) }
    }

    /// Adds a header line. One named `Host` replaces `localhost`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body. Default: none.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Ok(body.into());
        self
    }

    /// Sets the body to `value` as JSON, with its `Content-Type`.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).map(Bytes::from);
        self.body = body.map_err(|error| Error::Serialize(Arc::new(error)));
        self.header("Content-Type", "application/json")
    }

    /// Sends the request over a connection of its own, and waits for the whole response.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if HTTP does not allow the request, if the connection ends before the response is complete,
    /// if the response takes longer than the [patience](TestClient::patience) of the client, or if no executor
    /// runs the server (see [`TestClient::open`]). [`Error::Serialize`] if the body cannot be written as JSON.
    ///
    /// # Panics
    ///
    /// If a handler has failed before: see [`TestClient`](TestClient#handlers-that-fail).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn send(mut self) -> Result<TestResponse> {
        let named = format!("{} {}", self.method, self.path);
        let (client, path) = (self.client.clone(), self.path.clone());
        let has_own = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        if let Some(cookies) = client.cookies_for(&path).filter(|_| !has_own) {
            self = self.header("Cookie", cookies);
        }
        let caller = self.caller;
        let request = self.into_http()?;
        let (end, _, fate) = client.dial(caller)?;
        let waiting = format!("no whole answer to {named}");
        let answer = client.patience.wait(waiting, Box::pin(exchange(end, request))).await;
        let (head, body) = answer.map_err(|error| client.explain(error, fate))?;
        let response = TestResponse::new(named, &head, body);
        client.keep_cookies(&path, response.headers());
        Ok(response)
    }

    fn into_http(self) -> Result<::http::Request<RequestBody>> {
        check_path(&self.path)?;
        let has_host = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = (!has_host).then_some(("host", "localhost"));
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut builder = ::http::Request::builder().method(&*self.method).uri(&self.path);
        for (name, value) in host.into_iter().chain(own) {
            builder = builder.header(name, value);
        }
        builder.body(RequestBody(self.body?)).map_err(|error| invalid(error.to_string()))
    }
}

/// Refuses a path that does not begin with a slash, since it would become a part of the host.
pub(super) fn check_path(path: &str) -> Result<()> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(invalid(format!("{path:?} is not a path: a path begins with /")))
}

fn invalid(what: String) -> Error {
    io::Error::new(ErrorKind::InvalidInput, what).into()
}

/// Sends one request and reads its response, over a connection that ends then.
async fn exchange(
    end: End,
    request: ::http::Request<RequestBody>,
) -> Result<(::http::response::Parts, Bytes)> {
    let (mut sender, connection) = http1::handshake(FuturesIo::new(end)).await.map_err(io_error)?;
    let exchange = Box::pin(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok((head, whole(body).await?))
    });
    let outcome: hyper::Result<_> = match select(exchange, connection).await {
        Either::Left((outcome, _)) => outcome,
        // The connection has ended. The exchange returns the response, or the reason.
        Either::Right((_, exchange)) => exchange.await,
    };
    Ok(outcome.map_err(io_error)?)
}

/// Reads a body to its end.
async fn whole(mut body: Incoming) -> hyper::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // Trailers are ignored.
        bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(bytes.freeze())
}

/// The body of a request, in one piece.
#[derive(Debug)]
struct RequestBody(Bytes);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = std::mem::take(&mut self.0);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}
