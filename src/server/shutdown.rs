//! The shutdown of a server: no new connections, a close frame for each open one, and no task left at the
//! end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use crate::changes::Changes;
use crate::instance::{Instance, ShutdownOptions, ShutdownReport, close_all};
use crate::records::record;
use crate::runtime;
use crate::runtime::Clock;
use crate::sync::{Mutex, MutexGuard};

/// Longest time for dropping the tasks that are left. Only a task that blocks its thread needs longer.
const DROPPING: Duration = Duration::from_secs(1);

/// The shutdown of one server, from before it begins to its report.
#[derive(Debug)]
pub(super) struct Shutdown {
    instance: Arc<Instance>,
    progress: Mutex<Progress>,
    changed: Changes,
}

#[derive(Debug, Default)]
struct Progress {
    /// The end of the grace period; `None` before the shutdown begins.
    deadline: Option<Instant>,
    report: Option<ShutdownReport>,
}

impl Shutdown {
    pub(super) fn new(instance: Arc<Instance>) -> Self {
        Self { instance, progress: Mutex::default(), changed: Changes::default() }
    }

    /// Begins the shutdown. If it has begun, its deadline may only become earlier.
    pub(super) fn begin(this: &Arc<Self>, options: ShutdownOptions) {
        let begin = this.instance.clock.now();
        let deadline = runtime::later(begin, options.spread.saturating_add(options.grace));
        let mut progress = this.progress();
        let earlier = progress.deadline;
        progress.deadline = Some(earlier.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(progress);
        this.changed.tell();
        if earlier.is_none() {
            let this = Arc::clone(this);
            // On a thread of its own: the shutdown must end even if the application's executor is gone.
            runtime::spawn_apart(async move { this.run(options, begin).await });
        }
    }

    /// Waits until the shutdown is over.
    pub(super) async fn finished(&self) -> ShutdownReport {
        self.changed.until(|| self.progress().report.clone()).await
    }

    async fn run(&self, options: ShutdownOptions, begin: Instant) {
        let before = self.instance.sockets.ended();
        let websockets = self.instance.sockets.len();
        record!(info, "shutting down", websockets = websockets);
        // From here on new connections close by themselves, so the list of open ones below is complete.
        self.instance.begin_shutdown(options.close.clone());
        let work = async {
            close_all(&self.instance.sockets, &options, &self.instance.clock).await;
            self.instance.tasks.finished().await;
        };
        let in_time =
            matches!(select(Box::pin(work), Box::pin(self.overdue())).await, Either::Left(_));
        let dropped = if in_time { 0 } else { self.drop_tasks().await };
        let ended = self.instance.tasks.end_workers();
        if in_time {
            // Nothing lives there any more, but for what a handler has moved elsewhere.
            let _ = Clock::default().timeout(Some(DROPPING), Box::pin(ended)).await;
        }
        let elapsed = self.instance.clock.since(begin);
        let report = ShutdownReport::of(&self.instance.sockets, &before, dropped, elapsed);
        let ShutdownReport { closed, lost, dropped, .. } = report;
        record!(info, "shut down", closed = closed, lost = lost, dropped = dropped);
        self.progress().report = Some(report);
        self.changed.tell();
    }

    /// Waits until the grace period is over. Another call of `begin` may move that forward.
    async fn overdue(&self) {
        let clock = &self.instance.clock;
        loop {
            let waits_for = self.progress().deadline;
            let is_over = waits_for.is_some_and(|deadline| clock.now() >= deadline);
            if is_over {
                return;
            }
            let moved =
                self.changed.until(|| (self.progress().deadline != waits_for).then_some(()));
            match waits_for {
                Some(deadline) => drop(select(moved, clock.timer(deadline)).await),
                None => moved.await,
            }
        }
    }

    async fn drop_tasks(&self) -> usize {
        let tasks = &self.instance.tasks;
        let at_work = tasks.len();
        let dropping = async {
            let count = tasks.cancel().await;
            tasks.finished().await;
            count
        };
        let in_time = self.instance.clock.timeout(Some(DROPPING), Box::pin(dropping)).await;
        in_time.unwrap_or_else(|| {
            let left = tasks.len();
            record!(
                warn,
                "tasks could not be dropped: their handlers block a thread, or no executor runs them",
                left = left
            );
            at_work
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }
}
