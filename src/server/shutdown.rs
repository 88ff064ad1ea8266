//! The shutdown of a server: no new connections, a close frame for each open one, and no task left at the
//! end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use crate::changes::Changes;
use crate::error::Result;
use crate::foreign::{attempt, tell};
use crate::instance::Instance;
use crate::proto::{CloseCode, CloseFrame, ProtocolError};
use crate::runtime;
use crate::runtime::Clock;
use crate::sync::{Mutex, MutexGuard};

/// Longest time for dropping the tasks that are left. Only a task that blocks its thread needs longer.
const DROPPING: Duration = Duration::from_secs(1);

/// Options for the shutdown of a server.
///
/// ```
/// use std::time::Duration;
/// use tidewire::CloseCode;
/// use tidewire::server::ShutdownOptions;
///
/// // A new version takes over: come back, but not all at once.
/// let options = ShutdownOptions::default()
///     .close_code(CloseCode::SERVICE_RESTART)
///     .spread(Duration::from_secs(20));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ShutdownOptions {
    grace: Duration,
    spread: Duration,
    close: CloseFrame,
}

impl ShutdownOptions {
    /// Longest time for requests and connections to end, counted from the last close frame. Default 10 s.
    ///
    /// A WebSocket connection whose peer does not answer the close frame ends earlier, after
    /// [`close_timeout`](crate::WebSocketOptions::close_timeout).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The time over which close frames are sent, in random order. Default: zero, all at once.
    ///
    /// Clients that reconnect after a close are then spread over the same time.
    #[must_use]
    pub fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// The code of the close frames (RFC 6455 §7.4). Default 1001, going away.
    /// [`CloseCode::SERVICE_RESTART`] asks clients to reconnect.
    #[must_use]
    pub fn close_code(mut self, code: CloseCode) -> Self {
        self.close = CloseFrame::lossy(code, self.close.reason());
        self
    }

    /// The reason in the close frames. Default: none.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if it exceeds 123 bytes (§5.5.1).
    pub fn reason(mut self, reason: &str) -> Result<Self, ProtocolError> {
        self.close = CloseFrame::new(self.close.code(), reason)?;
        Ok(self)
    }
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            spread: Duration::ZERO,
            close: CloseFrame::lossy(CloseCode::GOING_AWAY, ""),
        }
    }
}

/// The default options, for a future that resolves to nothing else: see
/// [`BoundServer::serve_until`](super::BoundServer::serve_until).
impl From<()> for ShutdownOptions {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// The report of a shutdown.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// WebSocket connections that ended with a closing handshake.
    pub closed: u64,
    /// WebSocket connections that ended without a closing handshake: the peer did not answer or was gone,
    /// or the grace period was over.
    pub lost: u64,
    /// Tasks that were dropped because they had not ended within the grace period: handlers, requests, and
    /// connections whose client has read its last response and not ended its side.
    pub dropped: usize,
    /// The duration of the shutdown.
    pub elapsed: Duration,
}

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
        let _ =
            attempt(|| log::info!(websockets; "shutting down, {websockets} WebSocket connections"));
        // From here on new connections close by themselves, so the list of open ones below is complete.
        self.instance.begin_shutdown(options.close.clone());
        let work = async {
            self.close_sockets(&options).await;
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
        let after = self.instance.sockets.ended();
        let ended = after.connections.saturating_sub(before.connections);
        let closed = after.clean.saturating_sub(before.clean);
        let report = ShutdownReport {
            closed,
            lost: ended.saturating_sub(closed),
            dropped,
            elapsed: self.instance.clock.since(begin),
        };
        let ShutdownReport { closed, lost, dropped, .. } = report;
        tell(|| {
            log::info!(closed, lost, dropped; "shut down: {closed} closed, {lost} lost, {dropped} dropped");
        });
        self.progress().report = Some(report);
        self.changed.tell();
    }

    /// Sends the close frames. Connections that are opened meanwhile close by themselves.
    async fn close_sockets(&self, options: &ShutdownOptions) {
        let clock = &self.instance.clock;
        let begin = clock.now();
        let sockets = self.instance.sockets.open().into_iter();
        let mut due: Vec<_> =
            sockets.map(|shared| (options.spread.mul_f64(fastrand::f64()), shared)).collect();
        due.sort_by_key(|(delay, _)| *delay);
        for (delay, shared) in due {
            if delay > clock.since(begin) {
                clock.timer(runtime::later(begin, delay)).await;
            }
            shared.begin_close(options.close.clone());
        }
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
            tell(|| {
                log::warn!(
                    left;
                    "{left} tasks could not be dropped: their handlers block a thread, or no executor runs them"
                );
            });
            at_work
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }
}
