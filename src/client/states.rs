//! The state of a client that keeps a connection open, and those who watch it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::Stream;
use futures::stream::FusedStream;

use crate::changes::{Changes, Listener};
use crate::sync::Mutex;

/// The state of a [`Reconnect`](super::Reconnect).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReconnectState {
    /// A connection is being opened. This is the first state, too.
    Connecting,
    /// A connection was handed out. It may have ended: [`Reconnect::next`](super::Reconnect::next) notices that.
    Open,
    /// A pause before the next try.
    #[non_exhaustive]
    Waiting {
        /// The end of the pause, by the clock of the client's options.
        until: Instant,
    },
    /// There are no more connections.
    Ended,
}

/// A stream of the states of a [`Reconnect`](super::Reconnect), for another task than the one that uses its
/// connections. [`Reconnect::states`](super::Reconnect::states) returns it.
///
/// The first item is the state at that moment, and each further one the latest state, if it differs from the item
/// before: states that have passed meanwhile are left out. The stream ends after
/// [`Ended`](ReconnectState::Ended), which is also the state of a `Reconnect` that was dropped.
///
/// # Cancel safety
///
/// Safe: a state that was not returned is returned next, unless another has taken its place.
pub struct ReconnectStates {
    told: Arc<Told>,
    seen: Option<ReconnectState>,
    listener: Option<Listener>,
}

/// The latest state, for all who watch it.
struct Told {
    state: Mutex<ReconnectState>,
    changed: Changes,
}

/// The end of a `Reconnect` that tells its states. When it is dropped, the last state is told.
pub(super) struct Teller(Arc<Told>);

impl Teller {
    pub(super) fn new() -> Self {
        let state = Mutex::new(ReconnectState::Connecting);
        Self(Arc::new(Told { state, changed: Changes::default() }))
    }

    pub(super) fn tell(&self, state: ReconnectState) {
        let before = mem::replace(&mut *self.0.state.lock(), state);
        if before != state {
            self.0.changed.tell();
        }
    }

    pub(super) fn states(&self) -> ReconnectStates {
        ReconnectStates { told: Arc::clone(&self.0), seen: None, listener: None }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell(ReconnectState::Ended);
    }
}

impl ReconnectStates {
    /// Waits until the state differs from the one that was returned last, and returns it; `None` after
    /// [`Ended`](ReconnectState::Ended).
    pub async fn next(&mut self) -> Option<ReconnectState> {
        poll_fn(|cx| self.poll_state(cx)).await
    }

    fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReconnectState>> {
        if self.is_terminated() {
            return Poll::Ready(None);
        }
        loop {
            let state = *self.told.state.lock();
            if self.seen != Some(state) {
                self.seen = Some(state);
                self.listener = None;
                return Poll::Ready(self.seen);
            }
            match &mut self.listener {
                // Then the loop looks once more: the listener hears of any later change.
                None => self.listener = Some(self.told.changed.listen()),
                Some(listener) => {
                    ready!(Pin::new(listener).poll(cx));
                    self.listener = None;
                }
            }
        }
    }
}

impl Stream for ReconnectStates {
    type Item = ReconnectState;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ReconnectState>> {
        self.get_mut().poll_state(cx)
    }
}

impl FusedStream for ReconnectStates {
    fn is_terminated(&self) -> bool {
        self.seen == Some(ReconnectState::Ended)
    }
}

impl fmt::Debug for ReconnectStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectStates").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").finish_non_exhaustive()
    }
}
