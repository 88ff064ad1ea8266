//! Code that blocks, on threads of its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use futures::FutureExt;
use futures::channel::oneshot;

use crate::foreign::discard;

/// Runs a closure that blocks, such as a call of a database library without `async` or a long computation, on a thread
/// where it holds up no connection. The future resolves to the closure's value.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// let text = tidewire::blocking(|| std::fs::read_to_string("quotes.txt")).await?;
/// # let _ = text;
/// # Ok(())
/// # }
/// ```
///
/// The threads are those of the crate `blocking`, which async-std and smol use, too: at most 500 unless the environment
/// variable `BLOCKING_MAX_THREADS` says otherwise, and each ends after some seconds without work. Closures beyond
/// that wait for a thread. The closure is not in the context of a tokio runtime: it may take a
/// `tokio::runtime::Handle` with it.
///
/// # Panics
///
/// A panic of the closure goes on in the task that waits for it. If there is none, it is only reported.
///
/// # Cancel safety
///
/// The closure is queued by the call, before the first poll, and runs to its end even if the future is dropped. Its value
/// is then dropped. It does not keep the program from ending.
#[must_use = "the closure runs anyway, but its value and its panic come to whoever waits for this"]
pub fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + Unpin + 'static {
    let (tell, told) = oneshot::channel();
    let closure = move || {
        let outcome = catch_unwind(AssertUnwindSafe(run));
        // Fails if nobody waits for it. The destructor of the value is foreign code.
        if let Err(unheard) = tell.send(outcome) {
            discard(unheard);
        }
    };
    blocking::unblock(closure).detach();
    told.map(|told| match told {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(oneshot::Canceled) => unreachable!("the closure tells its outcome"),
    })
}
