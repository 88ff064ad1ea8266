//! How long a thread has waited for a core.
//!
//! A thread that is ready and does not run, because others have the cores, blocks nothing: what it is inside would have
//! gone on. Linux counts that time for each thread, in nanoseconds, as the second number of `schedstat`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The time that one thread has waited for a core.
#[derive(Clone, Debug, Default)]
pub(super) struct RunDelay(Option<Arc<Path>>);

impl RunDelay {
    /// Of this thread. Unknown on other systems than Linux.
    pub(super) fn of_this_thread() -> Self {
        let thread = fs::read_link("/proc/thread-self").ok();
        Self(thread.map(|thread| Path::new("/proc").join(thread).join("schedstat").into()))
    }

    /// The time so far: none if it is unknown, or the thread has ended.
    pub(super) fn get(&self) -> Duration {
        let told = self.0.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let waited = told.and_then(|told| told.split_whitespace().nth(1)?.parse().ok());
        Duration::from_nanos(waited.unwrap_or_default())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_have_to_share_cores_wait_for_them() {
        let cores = thread::available_parallelism().unwrap().get();
        let waited = |delay: &RunDelay| {
            let begun = delay.get();
            while delay.get() < begun + Duration::from_millis(1) {
                std::hint::spin_loop();
            }
        };
        // Each ends once it has waited: if none had to, this would not end.
        thread::scope(|scope| {
            for _ in 0..=2 * cores {
                scope.spawn(|| waited(&RunDelay::of_this_thread()));
            }
        });
        assert_eq!(RunDelay::default().get(), Duration::ZERO);
    }
}
