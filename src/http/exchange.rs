//! The progress of an HTTP connection, between a request and its response.
//!
//! hyper does not reveal it, but `socket.rs` must know the deadline that applies, and the driver of the
//! connection must know whether it was upgraded. One task uses all of this. The fields are atomic only
//! because the body of a request may move to another task.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ::http::header::{CONNECTION, UPGRADE};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, Method};
use futures::channel::oneshot;
use hyper::body::{Body, Incoming};

use super::Upgraded;
use super::access::Access;
use super::pieces::End;
use crate::reject::Subject;
use crate::sync::Mutex;
use crate::upgrade::{Early, Origin};

/// The state of the body of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Receipt {
    /// There was no body, or it was read to its end. A request follows.
    #[default]
    Complete,
    /// It is being read, or may be.
    Underway,
    /// The rest will not be read. hyper skips it if it has arrived, or else ends the connection.
    Abandoned,
    /// It broke off, or its end is in doubt. The bytes that follow may not be a request.
    Doubtful,
    /// It exceeds the limit of this many bytes, and is not read any further.
    TooLarge(usize),
}

/// The state of one connection, shared by the parts that serve it.
#[derive(Debug, Default)]
pub(super) struct HttpProgress {
    /// Where the requests come from.
    origin: Arc<Origin>,
    /// Set from the head of a request to the last byte of its response.
    answering: AtomicBool,
    /// The state of the request's body.
    receipt: Mutex<Receipt>,
    /// Whether the request asks for a WebSocket. Its client has no reason to half-close.
    upgrading: AtomicBool,
    /// Whether the handler's part has begun. hyper reads on first, maybe to the end of the stream.
    begun: AtomicBool,
    /// Whether hyper may hold bytes after those of the request: the beginning of the next head.
    ahead: AtomicBool,
    /// Whether a response has ended since `take_answered` was last called.
    answered: AtomicBool,
    /// Whether the socket takes no more bytes at the moment.
    stalled: AtomicBool,
    /// Whether the head of a request did not arrive in time.
    overdue: AtomicBool,
    /// Whether the client has failed to send the body of the last request.
    body_failed: AtomicBool,
    /// Whether the server shuts down.
    leaving: AtomicBool,
    /// Whether the first line of the last head has a fragment.
    fragment: AtomicBool,
    /// Whether bytes arrived after the last head, before it was answered.
    followed: AtomicBool,
    /// The length of the body that comes next, if the last request has one of known length.
    body: AtomicU64,
    /// Tells a waiting upgrade that the client has sent bytes before its 101.
    early: Arc<Early>,
    /// The receiver of the stream after our 101.
    granted: Mutex<Option<oneshot::Sender<Upgraded>>>,
}

impl HttpProgress {
    /// The state of a new connection.
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin: Arc::new(origin), ..Self::default() }
    }

    /// Begins the exchange of `request`. It ends when the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, request: &::http::Request<Incoming>) -> Answering {
        self.answering.store(true, Relaxed);
        let has_body = !request.body().is_end_stream();
        self.set_receipt(if has_body { Receipt::Underway } else { Receipt::Complete });
        let is_opening = has_token(request.headers(), &UPGRADE, "websocket");
        let is_upgrading = is_opening && has_token(request.headers(), &CONNECTION, "upgrade");
        self.upgrading.store(is_upgrading, Relaxed);
        self.begun.store(false, Relaxed);
        self.body_failed.store(false, Relaxed);
        self.ahead.store(true, Relaxed);
        self.body.store(request.body().size_hint().exact().unwrap_or(0), Relaxed);
        self.early.set(self.followed.load(Relaxed));
        let has_fragment = self.fragment.load(Relaxed);
        let (method, path) = (request.method().clone(), request.uri().path_and_query().cloned());
        let exchange = Arc::clone(self);
        Answering { exchange, method, path, access: None, has_fragment, is_opening }
    }

    /// Records that the handler's part begins.
    pub(super) fn set_begun(&self) {
        self.begun.store(true, Relaxed);
    }

    /// Whether hyper has a request, and the handler's part has not begun.
    pub(super) fn is_to_begin(&self) -> bool {
        self.is_answering() && !self.begun.load(Relaxed)
    }

    /// Records that a head was read.
    pub(super) fn head_read(&self, end: End) {
        self.fragment.store(end.has_fragment, Relaxed);
        self.followed.store(end.is_followed, Relaxed);
    }

    /// Records that bytes were read. A client that waits for its 101 must not send any.
    pub(super) fn bytes_read(&self) {
        let is_waiting = self.is_answering() && self.upgrading.load(Relaxed);
        if is_waiting && self.receipt() == Receipt::Complete {
            self.early.set(true);
        }
    }

    /// Records that the client has failed to send the body.
    pub(super) fn set_body_failed(&self) {
        self.body_failed.store(true, Relaxed);
    }

    /// Whether the client has failed to send the body of the last request, which its handler may have failed for.
    pub(super) fn has_body_failed(&self) -> bool {
        self.body_failed.load(Relaxed)
    }

    /// Takes the length of the body that comes next. It is returned once.
    pub(super) fn take_body(&self) -> u64 {
        self.body.swap(0, Relaxed)
    }

    /// The signal that the client has sent bytes before its 101.
    pub(super) fn early(&self) -> &Arc<Early> {
        &self.early
    }

    /// Sets the state of the request's body.
    pub(super) fn set_receipt(&self, receipt: Receipt) {
        *self.receipt.lock() = receipt;
    }

    /// Records that a 101 goes out. `upgrade` gets the stream after it.
    pub(super) fn grant(&self, upgrade: oneshot::Sender<Upgraded>) {
        let mut granted = self.granted.lock();
        let replaced = granted.replace(upgrade);
        drop(granted);
        // Without the lock: dropping it wakes the task at its other end.
        drop(replaced);
    }

    /// Takes the receiver of the stream, if the connection ended with a 101.
    pub(super) fn take_granted(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.granted.lock().take()
    }

    /// Sets whether hyper holds bytes that it has not parsed.
    pub(super) fn set_ahead(&self, ahead: bool) {
        self.ahead.store(ahead, Relaxed);
    }

    /// Sets whether the socket refuses more bytes.
    pub(super) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Records that the head of a request did not arrive in time.
    pub(super) fn set_overdue(&self) {
        self.overdue.store(true, Relaxed);
    }

    /// Records that the server shuts down.
    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether a response has ended since the last call.
    pub(super) fn take_answered(&self) -> bool {
        self.answered.swap(false, Relaxed)
    }

    /// Where the requests come from.
    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_secure(&self) -> bool {
        self.origin.security.is_some()
    }

    /// The state of the request's body.
    pub(super) fn receipt(&self) -> Receipt {
        *self.receipt.lock()
    }

    /// Whether a request is being handled, or its response written.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.load(Relaxed)
    }

    /// Whether the whole request has arrived, and a half-closed client can still read its response.
    pub(super) fn awaits_response(&self) -> bool {
        let is_here = self.receipt() != Receipt::Underway;
        self.is_answering() && is_here && !self.upgrading.load(Relaxed)
    }

    /// Whether, at the end of a response, hyper may hold the beginning of the next head.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.load(Relaxed)
    }

    /// Whether the socket takes no more bytes at the moment.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Whether the server shuts down.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Whether the head of a request did not arrive in time.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }
}

/// Whether a header list has this token, in upper or lower case. Other elements may be any bytes, so a line
/// with letters beyond ASCII can still ask for an upgrade.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().map(::http::HeaderValue::as_bytes);
    let mut elements = lines.flat_map(|line| line.split(|byte| *byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// A request that is being answered. It is dropped with the response, or with the handler.
#[derive(Debug)]
pub(super) struct Answering {
    exchange: Arc<HttpProgress>,
    method: Method,
    /// `None` if the target has none.
    path: Option<PathAndQuery>,
    /// The line of the access log, if the server has one.
    pub(super) access: Option<Box<Access>>,
    /// Whether the request target has a fragment.
    pub(super) has_fragment: bool,
    /// Whether the request names WebSocket as a protocol to upgrade to (RFC 9110 §7.8).
    pub(super) is_opening: bool,
}

impl Answering {
    /// The path without the query.
    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_ref().map(PathAndQuery::path)
    }

    /// What records tell of the request.
    pub(super) fn subject(&self) -> Subject<'_> {
        let origin = self.exchange.origin();
        Subject {
            method: Some(self.method.as_str()),
            path: self.path(),
            peer: origin.peer,
            connection: origin.id.map(u64::from),
        }
    }

    /// Whether the client has failed to send its body.
    pub(super) fn has_body_failed(&self) -> bool {
        self.exchange.has_body_failed()
    }

    /// Copies what is kept as long as the response is sent: it is a part of a larger buffer.
    pub(super) fn settle(&mut self) {
        // Without the query, which no record shows.
        self.path = self.path().and_then(|path| PathAndQuery::try_from(path.as_bytes()).ok());
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(access) = self.access.take() {
            access.tell(self.subject());
        }
        self.exchange.answering.store(false, Relaxed);
        self.exchange.answered.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_task_that_waited_for_another_101_may_ask_for_the_state_where_it_is_woken() {
        struct Curious(Arc<HttpProgress>);

        impl Wake for Curious {
            fn wake(self: Arc<Self>) {
                assert!(self.0.take_granted().is_some());
            }
        }

        let exchange = Arc::new(HttpProgress::default());
        let ((first, mut waiting), (second, _)) = (oneshot::channel(), oneshot::channel());
        let waker = Waker::from(Arc::new(Curious(Arc::clone(&exchange))));
        assert!(waiting.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        exchange.grant(first);
        exchange.grant(second);
        assert!(exchange.take_granted().is_none());
    }
}
