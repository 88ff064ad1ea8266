//! The tokio runtime of a server: its handlers run in the context of that runtime.

#[cfg(feature = "tokio")]
use ::tokio::runtime::Handle;
use futures::future::BoxFuture;

#[cfg(not(feature = "tokio"))]
use self::absent::Handle;
use crate::foreign::discard;

/// The tokio runtime of a server, if it has one.
///
/// It may end before the server. Then its timers panic, its sockets fail, and it drops the tasks that it is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokio(Option<Handle>);

impl Tokio {
    #[cfg(feature = "tokio")]
    pub(crate) fn new(handle: Handle) -> Self {
        Self(Some(handle))
    }

    /// This runtime; without one, that of the calling thread.
    pub(crate) fn or_current(self) -> Self {
        Self(self.0.or_else(|| Handle::try_current().ok()))
    }

    /// Calls `run` in the context of the runtime.
    pub(super) fn enter(&self, run: impl FnOnce()) {
        let entered = self.0.as_ref().map(Handle::enter);
        run();
        // tokio panics here if `run` has entered another runtime and leaked the guard of that.
        discard(entered);
    }

    /// Returns a function that runs a future on the runtime; `None` without a runtime. A runtime that has ended drops
    /// the future.
    pub(super) fn spawner(&self) -> Option<impl Fn(BoxFuture<'static, ()>) + use<'_>> {
        self.0.as_ref().map(|handle| {
            move |future| {
                let _goes_on = handle.spawn(future);
            }
        })
    }
}

/// Without the feature there is no runtime.
#[cfg(not(feature = "tokio"))]
mod absent {
    use futures::future::BoxFuture;

    #[derive(Clone, Debug)]
    pub(super) enum Handle {}

    impl Handle {
        pub(super) fn try_current() -> Result<Self, ()> {
            Err(())
        }

        pub(super) fn enter(&self) -> Option<Self> {
            match *self {}
        }

        pub(super) fn spawn(&self, _: BoxFuture<'static, ()>) -> Option<Self> {
            match *self {}
        }
    }
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use ::tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_guard_that_is_leaked_inside_the_context_ends_no_thread() {
        let runtimes = [(); 2].map(|()| Builder::new_current_thread().build().unwrap());
        let [first, second] = runtimes.each_ref().map(|runtime| runtime.handle().clone());
        let thread = std::thread::spawn(move || {
            Tokio::new(first).enter(|| std::mem::forget(second.enter()));
        });
        thread.join().unwrap();
    }
}
