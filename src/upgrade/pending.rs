//! An upgrade that is under way: what handler and endpoint tell each other until the connection is there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use tide::Response;

use super::scope::Scope;
use super::{Early, Transport, Upgrade};
use crate::admission::Admission;
use crate::connection::{Shared, WebSocket};
use crate::error::Result;
use crate::instance::{Instance, OpenSocket, Sockets};
use crate::options::UpgradeOptions;
use crate::proto::handshake::{HandshakeError, is_header_line};
use crate::runtime;
use crate::runtime::Spawned;
use crate::sync::{Mutex, MutexGuard};

/// The upgrade that a handler may ask for, and that its endpoint answers.
///
/// Wakers, responses and permits that leave the [`Progress`] are dropped without its lock: they are code of the
/// application, or call it.
#[derive(Debug)]
pub(crate) struct PendingUpgrade {
    can_upgrade: bool,
    instance: Option<Arc<Instance>>,
    early: Option<Arc<Early>>,
    progress: Mutex<Progress>,
    scope: Scope,
}

#[derive(Debug)]
struct Progress {
    state: UpgradeState,
    /// The handler, while it waits for the stream.
    waker: Option<Waker>,
    /// The endpoint, while it waits for the handler: another task may ask for the upgrade.
    endpoint: Option<Waker>,
    /// The response prepared in the context.
    prepared: Option<Box<Response>>,
}

/// How far the upgrade is.
///
///   Idle ──handler asks──▶ Switching ──endpoint answers──▶ Answered ──stream──▶ Open ──▶ Taken
///     ◀──handler gives up──┘  │                                │
///                             └─────────▶ Failed ◀─────────────┘
#[derive(Debug)]
enum UpgradeState {
    Idle,
    /// The handler asks for this upgrade.
    Switching(Box<Switching>),
    /// The 101 is on its way.
    Answered,
    Open(WebSocket),
    Failed(HandshakeError),
    /// The handler has the connection.
    Taken,
}

/// The wait for the permits of a connection.
type Admitting<'a> = BoxFuture<'a, Result<Admission, HandshakeError>>;

/// An upgrade whose 101 is to be sent.
#[derive(Debug)]
pub(super) struct Switching {
    pub(super) upgrade: Upgrade,
    /// How long the 101 may take.
    pub(super) timeout: Duration,
    pub(super) admission: Admission,
}

impl PendingUpgrade {
    pub(crate) fn new(transport: &Transport) -> Self {
        let can_upgrade = !matches!(transport, Transport::HttpServer(None, ..));
        let (waker, endpoint) = (None, None);
        let progress = Progress { state: UpgradeState::Idle, waker, endpoint, prepared: None };
        Self {
            can_upgrade,
            instance: transport.instance().cloned(),
            early: transport.early().cloned(),
            progress: Mutex::new(progress),
            scope: Scope::default(),
        }
    }

    /// The server of the request, if it is one of ours.
    pub(crate) fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }

    /// Asks for the upgrade and waits for the connection. `check` checks the request.
    ///
    /// A request that is not an opening handshake gets no permit, and waits for none.
    pub(crate) async fn upgrade(
        &self,
        check: impl Fn() -> Result<Upgrade, HandshakeError>,
        admitting: Option<Admitting<'_>>,
        options: &UpgradeOptions,
    ) -> Result<WebSocket> {
        if self.is_idle() {
            // Boxed, so that a handler does not keep memory for it while its connection is open.
            let admitted = Box::pin(self.admit(check, admitting)).await;
            let (upgrade, admission) = admitted.inspect_err(|error| self.count(*error))?;
            let timeout = options.parts.handshake_timeout;
            self.ask(Box::new(Switching { upgrade, timeout, admission }));
        }
        let _withdraw = Withdraw(self);
        Ok(std::future::poll_fn(|cx| self.poll_open(cx)).await?)
    }

    /// The upgrade with its permits, unless there is a reason to refuse it.
    async fn admit(
        &self,
        check: impl Fn() -> Result<Upgrade, HandshakeError>,
        admitting: Option<Admitting<'_>>,
    ) -> Result<(Upgrade, Admission), HandshakeError> {
        let upgrade = self.check(&check)?;
        let Some(admitting) = admitting else { return Ok((upgrade, Admission::default())) };
        // Dropped, so that its compression budget is free while we wait for a permit.
        drop(upgrade);
        let admission = self.unless_pointless(admitting).await?;
        Ok((self.check(&check)?, admission))
    }

    /// Waits for the permits, until the server shuts down, or the client sends something: it could not be
    /// seen any more whether the client is still there.
    async fn unless_pointless(
        &self,
        admitting: Admitting<'_>,
    ) -> Result<Admission, HandshakeError> {
        let (Some(instance), Some(early)) = (&self.instance, &self.early) else {
            return admitting.await;
        };
        match select(admitting, select(instance.shutting_down(), pin!(early.arrival()))).await {
            Either::Left((admission, _)) => admission,
            Either::Right((Either::Left(_), _)) => Err(HandshakeError::ShuttingDown),
            Either::Right((Either::Right(_), _)) => Err(HandshakeError::EarlyData),
        }
    }

    /// Checks the request, and what the handshake does not know: the prepared response, the stream, the
    /// server.
    fn check(
        &self,
        check: impl Fn() -> Result<Upgrade, HandshakeError>,
    ) -> Result<Upgrade, HandshakeError> {
        let upgrade = check()?;
        if !self.progress().prepared.as_deref().is_none_or(has_valid_headers) {
            return Err(HandshakeError::InvalidHeader);
        }
        if !self.can_upgrade {
            return Err(HandshakeError::NotUpgradable);
        }
        if self.instance.as_ref().is_some_and(|instance| instance.is_shutting_down()) {
            return Err(HandshakeError::ShuttingDown);
        }
        Ok(upgrade)
    }

    /// Counts a refusal.
    pub(super) fn count(&self, error: HandshakeError) {
        if let Some(instance) = &self.instance {
            instance.sockets.count_refused(error);
        }
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<WebSocket, HandshakeError>> {
        let mut waker = Some(cx.waker().clone());
        let mut progress = self.progress();
        match std::mem::replace(&mut progress.state, UpgradeState::Taken) {
            UpgradeState::Open(ws) => Poll::Ready(Ok(ws)),
            UpgradeState::Taken => Poll::Ready(Err(HandshakeError::AlreadyUpgraded)),
            UpgradeState::Failed(error) => {
                progress.state = UpgradeState::Failed(error);
                Poll::Ready(Err(error))
            }
            state => {
                progress.state = state;
                std::mem::swap(&mut progress.waker, &mut waker);
                Poll::Pending
            }
        }
    }

    /// Whether the handler has asked for the upgrade. If not, the endpoint is woken when another task does so for it.
    pub(crate) fn has_switched(&self, cx: &Context<'_>) -> bool {
        let mut waker = Some(cx.waker().clone());
        let mut progress = self.progress();
        let has_switched = matches!(progress.state, UpgradeState::Switching(_));
        if !has_switched {
            std::mem::swap(&mut progress.endpoint, &mut waker);
        }
        drop(progress);
        drop(waker);
        has_switched
    }

    /// Whether the handler waits for its endpoint to answer 101.
    fn is_switching(&self) -> bool {
        matches!(self.progress().state, UpgradeState::Switching(_))
    }

    fn ask(&self, switching: Box<Switching>) {
        let mut state = UpgradeState::Switching(switching);
        let mut progress = self.progress();
        // The request may have ended while this waited in another task.
        if matches!(progress.state, UpgradeState::Idle) {
            std::mem::swap(&mut progress.state, &mut state);
        }
        let endpoint = progress.endpoint.take();
        drop(progress);
        drop(state);
        if let Some(endpoint) = endpoint {
            endpoint.wake();
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.progress().state, UpgradeState::Idle)
    }

    /// Keeps the response that a context prepared, for the 101, or when the context is dropped.
    pub(crate) fn prepare(&self, response: Box<Response>) {
        let replaced = self.progress().prepared.replace(response);
        drop(replaced);
    }

    /// The response that the context prepared, if it did.
    pub(crate) fn take_prepared(&self) -> Option<Response> {
        self.progress().prepared.take().map(|response| *response)
    }

    /// The upgrade that the handler asks for, whose 101 the caller sends.
    pub(super) fn take_switching(&self) -> Option<Box<Switching>> {
        let mut progress = self.progress();
        match std::mem::replace(&mut progress.state, UpgradeState::Answered) {
            UpgradeState::Switching(switching) => Some(switching),
            state => {
                progress.state = state;
                None
            }
        }
    }

    pub(super) fn settle(&self, result: Result<WebSocket, HandshakeError>) {
        let state = result.map_or_else(UpgradeState::Failed, UpgradeState::Open);
        let mut progress = self.progress();
        let before = std::mem::replace(&mut progress.state, state);
        let waker = progress.waker.take();
        drop(progress);
        drop(before);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Fails the upgrade if it is answered and the connection has not come: it will not.
    pub(super) fn abandon(&self) {
        let is_answered = matches!(self.progress().state, UpgradeState::Answered);
        if is_answered {
            self.settle(Err(HandshakeError::Abandoned));
        }
    }

    /// Enters the connection among those of its server. It is closed at once if the server shuts
    /// down, and has closed the others already.
    pub(super) fn count_open(&self, shared: &Arc<Shared>) -> Option<OpenSocket> {
        self.scope.open(shared);
        Some(Sockets::enter(&self.instance.as_ref()?.sockets, shared))
    }

    /// Runs a task that ends with the request: when the response is sent, or the connection that it becomes has ended.
    pub(crate) fn spawn<T: Send + 'static>(
        this: &Arc<Self>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Spawned<T> {
        if let Some(connection) = this.scope.connection() {
            return Shared::spawn(connection, future);
        }
        this.scope.begin_use();
        let pending = Arc::clone(this);
        let (task, spawned) = runtime::until(future, async move { pending.scope.over().await });
        // Without a task that runs it, the handle has no value.
        drop(runtime::spawn(task));
        spawned
    }

    /// Whether the request has become a connection that goes on.
    #[cfg(feature = "testing")]
    pub(crate) fn has_open_connection(&self) -> bool {
        self.scope.connection().is_some_and(|connection| connection.is_open())
    }

    /// The life of the tasks that the handler spawns.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }
}

/// Takes the request for an upgrade back if the handler gives up before the endpoint has seen it.
struct Withdraw<'a>(&'a PendingUpgrade);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        let waker = progress.waker.take();
        let is_switching = matches!(progress.state, UpgradeState::Switching(_));
        let idle = UpgradeState::Idle;
        let withdrawn = is_switching.then(|| std::mem::replace(&mut progress.state, idle));
        drop(progress);
        drop((waker, withdrawn));
    }
}

/// Ends the wait of a context that a handler gave to another task, when the endpoint is dropped: no 101 will be
/// sent.
#[derive(Debug)]
pub(crate) struct Abandon<'a>(pub(crate) &'a Arc<PendingUpgrade>);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if Arc::strong_count(self.0) > 1 && (self.0.is_idle() || self.0.is_switching()) {
            self.0.settle(Err(HandshakeError::Abandoned));
        }
    }
}

/// Whether HTTP allows all headers of a response.
fn has_valid_headers(response: &Response) -> bool {
    response.iter().all(|(name, values)| {
        values.iter().all(|value| is_header_line(name.as_str(), value.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;

    use super::*;

    /// A waker that asks the pending upgrade whenever it is called or dropped.
    struct Curious(Arc<PendingUpgrade>, Arc<AtomicUsize>);

    impl Curious {
        fn ask(&self) {
            assert!(!self.0.is_switching());
            self.1.fetch_add(1, Relaxed);
        }
    }

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.ask();
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            self.ask();
        }
    }

    #[test]
    fn a_waker_may_ask_the_pending_upgrade_where_it_is_called_and_dropped() {
        let url = tide::http::Url::parse("http://x/").unwrap();
        let mut request = tide::http::Request::new(tide::http::Method::Get, url);
        let (pending, asked) = (
            Arc::new(PendingUpgrade::new(&Transport::take_from(&mut request))),
            Arc::new(AtomicUsize::new(0)),
        );
        let poll = || {
            let waker = Waker::from(Arc::new(Curious(Arc::clone(&pending), Arc::clone(&asked))));
            pending.poll_open(&mut Context::from_waker(&waker))
        };
        assert!(poll().is_pending());
        assert_eq!(asked.load(Relaxed), 0);
        assert!(poll().is_pending());
        assert_eq!(asked.load(Relaxed), 1, "one waker takes the place of the other");
        drop(Withdraw(&pending));
        assert_eq!(asked.load(Relaxed), 2, "the handler gives up");
        assert!(poll().is_pending());
        pending.settle(Err(HandshakeError::TimedOut));
        assert_eq!(asked.load(Relaxed), 4, "one is called, and then dropped");
        assert!(poll().is_ready());
    }
}
