//! Where a connection stands between a request and its response.
//!
//! hyper keeps this to itself, but `socket.rs` must know which deadline applies, and whoever drives
//! the connection whether it was upgraded. All of it belongs to one task; the atomics are here only
//! because the body of a request may travel to another.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ::http::header::{CONNECTION, UPGRADE};
use ::http::{HeaderMap, HeaderName};
use futures::channel::oneshot;
use hyper::body::{Body, Incoming};

use super::Upgraded;
use super::pieces::End;
use crate::stream::Security;
use crate::sync::Mutex;
use crate::upgrade::Early;

/// What has become of the body of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Receipt {
    /// There was none, or it was read to its end: what follows is a request.
    #[default]
    Complete,
    /// It is being read, or may be.
    Underway,
    /// The rest will not be read. hyper skips it if it is here already, or gives the connection up.
    Abandoned,
    /// It broke off, or where it ends is disputed: what follows may be no request.
    Doubtful,
    /// It exceeds this many bytes, and is not read on.
    TooLarge(usize),
}

/// The state of one connection, shared by those who serve it.
#[derive(Debug, Default)]
pub(super) struct HttpProgress {
    /// What is known of the peer of an encrypted connection.
    security: Option<Arc<Security>>,
    /// From the head of a request to the last byte of its response.
    answering: AtomicBool,
    /// What has become of the body of the request.
    receipt: Mutex<Receipt>,
    /// The request asks for a WebSocket, so its client has no reason to half-close.
    upgrading: AtomicBool,
    /// hyper may hold bytes behind those of the request: the beginning of the next head.
    ahead: AtomicBool,
    /// A response has ended since this was last asked.
    answered: AtomicBool,
    /// The socket takes no more bytes at the moment.
    stalled: AtomicBool,
    /// The head of a request did not come in time.
    overdue: AtomicBool,
    /// The server shuts down.
    leaving: AtomicBool,
    /// The last head that was read has a fragment in its first line.
    fragment: AtomicBool,
    /// Something came behind the last head that was read, before it was answered.
    followed: AtomicBool,
    /// The length of the body that comes next, if the last request has one of known length.
    body: AtomicU64,
    /// Tells who waits to be upgraded that the client did not wait.
    early: Arc<Early>,
    /// Who waits for the stream after our 101.
    granted: Mutex<Option<oneshot::Sender<Upgraded>>>,
}

impl HttpProgress {
    /// The state of a new connection.
    pub(super) fn new(security: Option<Security>) -> Self {
        Self { security: security.map(Arc::new), ..Self::default() }
    }

    /// Begins the exchange that `request` opens; it ends when the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, request: &::http::Request<Incoming>) -> Answering {
        self.answering.store(true, Relaxed);
        let has_body = !request.body().is_end_stream();
        self.set_receipt(if has_body { Receipt::Underway } else { Receipt::Complete });
        self.upgrading.store(asks_for_websocket(request.headers()), Relaxed);
        self.ahead.store(true, Relaxed);
        self.body.store(request.body().size_hint().exact().unwrap_or(0), Relaxed);
        self.early.set(self.followed.load(Relaxed));
        Answering { exchange: Arc::clone(self), has_fragment: self.fragment.load(Relaxed) }
    }

    /// Notes that a head was read.
    pub(super) fn head_read(&self, end: End) {
        self.fragment.store(end.has_fragment, Relaxed);
        self.followed.store(end.is_followed, Relaxed);
    }

    /// Notes that bytes were read. A client that waits for its 101 has none to send.
    pub(super) fn bytes_read(&self) {
        let is_waiting = self.is_answering() && self.upgrading.load(Relaxed);
        if is_waiting && self.receipt() == Receipt::Complete {
            self.early.set(true);
        }
    }

    /// The length of the body that comes next, once.
    pub(super) fn take_body(&self) -> u64 {
        self.body.swap(0, Relaxed)
    }

    /// Tells who waits to be upgraded that the client did not wait.
    pub(super) fn early(&self) -> &Arc<Early> {
        &self.early
    }

    /// Notes what has become of the body of the request.
    pub(super) fn set_receipt(&self, receipt: Receipt) {
        *self.receipt.lock() = receipt;
    }

    /// Notes that a 101 goes out, after which `upgrade` is to have the stream.
    pub(super) fn grant(&self, upgrade: oneshot::Sender<Upgraded>) {
        let mut granted = self.granted.lock();
        let replaced = granted.replace(upgrade);
        drop(granted);
        // Without the lock: whoever waits at its other end is woken.
        drop(replaced);
    }

    /// Who is to have the stream, if the connection ended with a 101.
    pub(super) fn take_granted(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.granted.lock().take()
    }

    /// Notes whether hyper holds bytes that it has not looked at.
    pub(super) fn set_ahead(&self, ahead: bool) {
        self.ahead.store(ahead, Relaxed);
    }

    /// Notes whether the socket takes bytes.
    pub(super) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Notes that the head of a request did not come in time.
    pub(super) fn set_overdue(&self) {
        self.overdue.store(true, Relaxed);
    }

    /// Notes that the server shuts down.
    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Has a response ended since the last call?
    pub(super) fn take_answered(&self) -> bool {
        self.answered.swap(false, Relaxed)
    }

    /// What is known of the peer of an encrypted connection; `None` if it is not encrypted.
    pub(super) fn security(&self) -> Option<&Arc<Security>> {
        self.security.as_ref()
    }

    /// Is the connection encrypted?
    pub(super) fn is_secure(&self) -> bool {
        self.security.is_some()
    }

    /// What has become of the body of the request.
    pub(super) fn receipt(&self) -> Receipt {
        *self.receipt.lock()
    }

    /// Is a request being handled, or its response being written?
    pub(super) fn is_answering(&self) -> bool {
        self.answering.load(Relaxed)
    }

    /// Is all of a request here, and a response to come that a half-closed client can still read?
    pub(super) fn awaits_response(&self) -> bool {
        let is_here = self.receipt() != Receipt::Underway;
        self.is_answering() && is_here && !self.upgrading.load(Relaxed)
    }

    /// May hyper hold the beginning of the next head, now that a response has ended?
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.load(Relaxed)
    }

    /// Does the socket refuse more bytes at the moment?
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Does the server shut down?
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Did the head of a request not come in time?
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }
}

/// Does the head of a request ask for this upgrade (RFC 9110 §7.8)?
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket") && has_token(headers, &CONNECTION, "upgrade")
}

/// Whether a list has this token, in upper or lower case. Other elements may be any bytes: a line with a letter
/// beyond ASCII asks for an upgrade all the same.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().map(::http::HeaderValue::as_bytes);
    let mut elements = lines.flat_map(|line| line.split(|byte| *byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// A request that is being answered. Dropped with the response, or with the handler.
#[derive(Debug)]
pub(super) struct Answering {
    exchange: Arc<HttpProgress>,
    /// Whether its target has a fragment.
    pub(super) has_fragment: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
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
    fn whoever_has_waited_for_another_101_may_ask_where_it_is_woken() {
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
