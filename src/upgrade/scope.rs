//! The time in which the tasks of a request run.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::io::{AsyncBufRead, AsyncRead};
use tide::{Body, Response};

use super::PendingUpgrade;
use crate::changes::Changes;
use crate::connection::Shared;

/// The life of a request: until its response is sent, or, if it is upgraded, until its connection has ended.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Whether a task lives in it.
    is_used: AtomicBool,
    is_over: AtomicBool,
    connection: OnceLock<Arc<Shared>>,
    changed: Changes,
}

impl Scope {
    /// A task lives in it from now on.
    pub(super) fn begin_use(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// The request has become a connection.
    pub(super) fn open(&self, connection: &Arc<Shared>) {
        let _ = self.connection.set(Arc::clone(connection));
        self.changed.tell();
    }

    /// The connection that the request has become.
    pub(super) fn connection(&self) -> Option<&Arc<Shared>> {
        self.connection.get()
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        if self.is_used() {
            self.changed.tell();
        }
    }

    /// Waits until the tasks have to end.
    pub(super) async fn over(&self) {
        let is_over = || self.is_over.load(Ordering::Acquire).then_some(None);
        let look = || self.connection.get().map(Some).or_else(is_over);
        if let Some(connection) = self.changed.until(look).await {
            connection.gone().await;
        }
    }
}

/// A request that goes on. When this is dropped, its tasks end, unless it has become a connection.
#[derive(Debug)]
pub(crate) struct Requested(Arc<PendingUpgrade>);

impl Requested {
    pub(crate) fn new(pending: &Arc<PendingUpgrade>) -> Self {
        Self(Arc::clone(pending))
    }

    /// The request goes on until `response` is sent, if it has tasks.
    pub(crate) fn until_sent(self, response: &mut Response) {
        if !self.0.scope().is_used() || response.is_empty() == Some(true) {
            return;
        }
        let body = response.take_body();
        let (len, mime) = (body.len(), body.mime().clone());
        let mut body = Body::from_reader(Sent { body, _request: self }, len);
        body.set_mime(mime);
        response.set_body(body);
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        self.0.scope().end();
    }
}

/// A body, and the request that goes on until it is sent.
struct Sent {
    body: Body,
    _request: Requested,
}

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.body).poll_read(cx, buf)
    }
}

impl AsyncBufRead for Sent {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().body).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.body).consume(amount);
    }
}
