//! The worker on which something lives.

use std::future::Future;
#[cfg(feature = "server")]
use std::sync::Arc;
use std::sync::Weak;

#[cfg(feature = "server")]
use super::worker::{self, Resident, Worker};

/// Without a server there are no workers.
#[cfg(not(feature = "server"))]
#[derive(Debug)]
enum Worker {}

/// The worker on which something was created; none for what lives on an executor.
///
/// It does not keep the worker, whose descriptors are closed when its server has ended: applications keep the `Sender` of a
/// connection for as long as they like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home(Option<Weak<Worker>>);

impl Home {
    /// That of the task that calls.
    pub(crate) fn here() -> Self {
        #[cfg(feature = "server")]
        return Self(worker::current().map(|worker| Arc::downgrade(&worker)));
        #[cfg(not(feature = "server"))]
        return Self(None);
    }

    /// Whether it is a worker.
    pub(crate) fn is_worker(&self) -> bool {
        self.0.is_some()
    }

    /// Whether both live on the same worker, or both on none.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.as_ref().map(Weak::as_ptr) == other.0.as_ref().map(Weak::as_ptr)
    }

    /// Runs `future` there, or where [`spawn`](super::spawn) does.
    #[cfg_attr(
        not(feature = "server"),
        expect(clippy::unused_self, reason = "there are no workers")
    )]
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "server")]
        if let Some(place) = self.0.as_ref().and_then(Weak::upgrade).and_then(|it| it.live()) {
            super::task::spawn_at(place, Resident::Other, future);
            return;
        }
        super::spawn(future);
    }
}
