//! The signals that ask a program to end.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use async_signal::Signal;
use futures::Stream;

use crate::escaped::Escaped;
use crate::records::record;

#[cfg(not(windows))]
const ASK_TO_END: [Signal; 2] = [Signal::Int, Signal::Term];
#[cfg(windows)]
const ASK_TO_END: [Signal; 1] = [Signal::Int];

/// Whether this process has waited for a signal, so that none has its default action any more.
static ARE_CAUGHT: AtomicBool = AtomicBool::new(false);

/// A future that resolves at the next signal that asks the program to end: SIGINT (Ctrl-C) or SIGTERM; on Windows,
/// Ctrl-C.
///
/// ```no_run
/// # async fn run() -> tidewire::Result<()> {
/// let server = tidewire::Server::new();
/// server.listen_until("127.0.0.1:8080", tidewire::signals()).await
/// # }
/// ```
///
/// It works on any executor, and beside tokio's signals. A signal counts from the call on, also before the first poll,
/// and resolves all futures that wait at that moment.
///
/// The first call takes these signals' default action away for the rest of the process: a signal for which nobody waits
/// has no effect. So give the future to [`Server::listen_until`](crate::Server::listen_until) or
/// [`BoundServer::serve_until`](crate::server::BoundServer::serve_until), which also watch for a second signal, or wait
/// for the second one yourself: a future that has resolved may be polled again, and misses no signal in between.
///
/// # Errors
///
/// None. If the system refuses, for want of descriptors, the future never resolves, and a record of level error says so.
///
/// # Cancel safety
///
/// Safe. A signal that comes while the future is not polled is noticed by the next poll.
pub fn signals() -> Signals {
    match async_signal::Signals::new(ASK_TO_END) {
        Ok(caught) => {
            ARE_CAUGHT.store(true, Relaxed);
            Signals(Some(caught))
        }
        Err(error) => {
            tell_failure(&error);
            Signals(None)
        }
    }
}

/// As [`signals`], in a program that has called it. In any other, signals keep their default action, and this never
/// resolves.
pub(crate) fn signals_if_caught() -> Signals {
    if ARE_CAUGHT.load(Relaxed) { signals() } else { Signals(None) }
}

/// The future of [`signals`](crate::signals).
#[must_use = "futures do nothing unless polled"]
pub struct Signals(
    /// `None` if it never resolves.
    Option<async_signal::Signals>,
);

impl Future for Signals {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(caught) = &mut self.0 else { return Poll::Pending };
        match ready!(Pin::new(caught).poll_next(cx)) {
            Some(Ok(_)) => return Poll::Ready(()),
            Some(Err(error)) => tell_failure(&error),
            None => {}
        }
        self.0 = None;
        Poll::Pending
    }
}

fn tell_failure(error: &io::Error) {
    record!(error, "cannot wait for signals", error = Escaped(error));
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}
