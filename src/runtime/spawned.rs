//! Tasks that end with something else: with a connection, or with a request.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable, Either, select};

/// A task beside a handler, which [`WebSocket::spawn`](crate::WebSocket::spawn) or `RequestContext::spawn` has started.
///
/// It is a future of the task's value: `None` if the task ended with its connection or its request, was cancelled, or
/// panicked. If it is dropped, the task goes on.
///
/// # Cancel safety
///
/// Waiting for it by reference is safe.
pub struct Spawned<T> {
    value: oneshot::Receiver<T>,
    abort: AbortHandle,
}

impl<T> Spawned<T> {
    /// Ends the task: it is dropped where it waits. A task that runs at the moment does so until it waits.
    pub fn cancel(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Spawned<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.value).poll(cx).map(Result::ok)
    }
}

impl<T> fmt::Debug for Spawned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").finish_non_exhaustive()
    }
}

/// The task that runs `future` until `over` completes, and its handle.
pub(crate) fn until<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
    over: impl Future<Output = ()> + Send + 'static,
) -> (impl Future<Output = ()> + Send + 'static, Spawned<T>) {
    let (tell, value) = oneshot::channel();
    let (abort, registration) = AbortHandle::new_pair();
    let task = async move {
        let (future, over) = (pin!(future), pin!(over));
        let either = select(future, over);
        if let Ok(Either::Left((value, _))) = Abortable::new(either, registration).await {
            // Fails if nobody waits for it.
            let _ = tell.send(value);
        }
    };
    (task, Spawned { value, abort })
}
