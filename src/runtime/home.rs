//! The worker on which something lives.

use std::future::Future;

#[cfg(feature = "server")]
use std::sync::Arc;

#[cfg(feature = "server")]
use super::worker::{self, Worker};

/// The worker on which something was created; none for what lives on an executor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home {
    #[cfg(feature = "server")]
    worker: Option<Arc<Worker>>,
}

impl Home {
    /// That of the task that calls.
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "server")]
            worker: worker::current(),
        }
    }
}

#[cfg(feature = "rooms")]
impl Home {
    /// Whether it is a worker.
    pub(crate) fn is_worker(&self) -> bool {
        #[cfg(feature = "server")]
        return self.worker.is_some();
        #[cfg(not(feature = "server"))]
        return false;
    }

    /// Whether both live on the same worker, or both on none.
    pub(crate) fn is(&self, other: &Self) -> bool {
        #[cfg(feature = "server")]
        return self.worker.as_ref().map(Arc::as_ptr) == other.worker.as_ref().map(Arc::as_ptr);
        #[cfg(not(feature = "server"))]
        return self.is_worker() == other.is_worker();
    }

    /// Runs `future` there, or where [`spawn`](super::spawn) does.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "server")]
        if let Some(place) = self.worker.as_ref().and_then(Worker::live) {
            super::task::spawn_at(place, future);
            return;
        }
        super::spawn(future);
    }
}
