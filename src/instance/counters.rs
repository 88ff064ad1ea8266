//! Counters of a server since it was bound that no other type keeps.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::Instance;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Open connections that speak HTTP.
    open_http: AtomicUsize,
    accepted: AtomicU64,
    turned_away: AtomicU64,
    /// The number of responses by the first digit of their status, from 1 on.
    responses: [AtomicU64; 5],
}

impl Counters {
    /// Counts a connection that is closed as soon as it is accepted.
    pub(crate) fn count_turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    /// Counts a response that goes out.
    pub(crate) fn count_response(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(count) = self.responses.get(class) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn open_http(&self) -> usize {
        self.open_http.load(Relaxed)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Relaxed)
    }

    pub(crate) fn responses(&self) -> [u64; 5] {
        self.responses.each_ref().map(|count| count.load(Relaxed))
    }
}

/// A connection that speaks HTTP. It is counted until this value is dropped.
#[derive(Debug)]
pub(crate) struct OpenHttp(Arc<Instance>);

impl OpenHttp {
    /// Counts an accepted connection.
    pub(crate) fn begin(instance: Arc<Instance>) -> Self {
        instance.counters.open_http.fetch_add(1, Relaxed);
        instance.counters.accepted.fetch_add(1, Relaxed);
        Self(instance)
    }
}

impl Drop for OpenHttp {
    fn drop(&mut self) {
        self.0.counters.open_http.fetch_sub(1, Relaxed);
    }
}
