//! Connections one after another, for a client that keeps a connection open.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use std::{error, fmt, mem};

use futures::future::BoxFuture;
use futures::stream::FusedStream;
use futures::{FutureExt, Stream};

use super::Client;
use super::backoff::Backoff;
use super::states::{ReconnectState, ReconnectStates, Teller};
use crate::connection::{CloseInfo, Sender, WebSocket, random_bytes};
use crate::error::{ConnectError, Error, HandshakeResponse, Result};
use crate::escaped::Escaped;
use crate::proto::CloseCode;
use crate::records::record;
use crate::runtime::Timer;

/// Options for a [`Reconnect`]: its pauses, the reasons to try again or to stop, and what each try sends.
#[derive(Clone)]
pub struct ReconnectOptions {
    first_delay: Duration,
    max_delay: Duration,
    try_again_later: Duration,
    stable_after: Duration,
    max_attempts: Option<u32>,
    after_close: Arc<AfterClose>,
    after_error: Arc<AfterError>,
    prepare: Option<Arc<Prepare>>,
}

type AfterClose = dyn Fn(&CloseInfo) -> bool + Send + Sync;
type AfterError = dyn Fn(&ConnectError) -> bool + Send + Sync;
type Prepare = dyn Fn(Client) -> BoxFuture<'static, Result<Client, ConnectError>> + Send + Sync;

impl Default for ReconnectOptions {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            try_again_later: Duration::from_secs(5),
            stable_after: Duration::from_secs(10),
            max_attempts: None,
            after_close: Arc::new(is_worth_another),
            after_error: Arc::new(ConnectError::is_transient),
            prepare: None,
        }
    }
}

impl ReconnectOptions {
    /// Longest pause after the first failure. Default: 500 ms. It doubles with each further failure.
    ///
    /// The pause is random, between zero and this, so that clients that lost their server together do not come
    /// back together. If the server sends `Retry-After`, that time is added, up to an hour.
    #[must_use]
    pub fn first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// The limit up to which the longest pause doubles. Default: 30 s.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Shortest pause after a connection that the server has closed with 1013, try again later. Default: 5 s.
    ///
    /// A random time of up to as long again, or of up to the longest pause if that is longer, is added.
    #[must_use]
    pub fn try_again_later(mut self, delay: Duration) -> Self {
        self.try_again_later = delay;
        self
    }

    /// Time after which an open connection counts as stable, so that the next pause is a first one again.
    /// Default: 10 s.
    #[must_use]
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// Number of failures in a row after which the last error is returned. Default: no limit.
    ///
    /// A connection that was lost before it was [stable](Self::stable_after) counts as a failure, too, but is
    /// always followed by another try.
    #[must_use]
    pub fn max_attempts(mut self, max: impl Into<Option<u32>>) -> Self {
        self.max_attempts = max.into();
        self
    }

    /// Decides after which ends of a connection another is opened.
    ///
    /// Default: after an end without a close frame, and after 1001, 1011, 1012, 1013 and 1014. Not after 1000,
    /// a close frame without a code, a broken rule (1002 to 1010), or a code of an application.
    #[must_use]
    pub fn after_close(
        mut self,
        is_worth_another: impl Fn(&CloseInfo) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.after_close = Arc::new(is_worth_another);
        self
    }

    /// Decides after which errors there is another try. Default: [`ConnectError::is_transient`].
    #[must_use]
    pub fn after_error(
        mut self,
        is_worth_another: impl Fn(&ConnectError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.after_error = Arc::new(is_worth_another);
        self
    }

    /// Prepares the client of each try, for instance with a fresh token: changes its headers, its URL, its query.
    ///
    /// The closure is given the client as it was at [`Client::reconnect`], so what it adds is not there at the next try.
    /// It runs after the pause, and as long as it likes.
    ///
    /// Its error is a failed try, [`ConnectError::Prepare`]: by default there is another try after a pause, since a
    /// service that issues tokens may be away for a moment, too. [`after_error`](Self::after_error) may decide otherwise
    /// by the error, for instance for a user who has logged out. It also decides about a 401, after which there is no
    /// other try by default. In the closure, `?` takes any [`std::error::Error`].
    ///
    /// ```no_run
    /// use tidewire::Client;
    /// use tidewire::client::ReconnectOptions;
    ///
    /// # async fn fresh_token() -> std::io::Result<String> { Ok(String::new()) }
    /// # async fn run() -> tidewire::Result<()> {
    /// let options = ReconnectOptions::default().prepare(|client| async move {
    ///     let token = fresh_token().await?;
    ///     Ok(client.header("Authorization", format!("Bearer {token}")))
    /// });
    /// let mut reconnect = Client::new("wss://example.com/feed").reconnect(options);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn prepare<F, Fut>(mut self, prepare: F) -> Self
    where
        F: Fn(Client) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Client, Box<dyn error::Error + Send + Sync>>> + Send + 'static,
    {
        self.prepare = Some(Arc::new(move |client| {
            let failed = |error| ConnectError::Prepare(Arc::from(error));
            prepare(client).map(move |prepared| prepared.map_err(failed)).boxed()
        }));
        self
    }
}

impl fmt::Debug for ReconnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectOptions")
            .field("first_delay", &self.first_delay)
            .field("max_delay", &self.max_delay)
            .field("try_again_later", &self.try_again_later)
            .field("stable_after", &self.stable_after)
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}

/// Whether an end is followed by another connection: going away, an error of the server, a restart, "try again
/// later", a bad gateway, or no close frame at all.
fn is_worth_another(info: &CloseInfo) -> bool {
    matches!(info.reported_code(), 1001 | 1006 | 1011..=1014)
}

/// A client that keeps a connection open: when one is lost, it opens another after a pause.
///
/// [`Client::reconnect`] creates it. It is also a [`Stream`], which ends after an error.
#[derive(Debug)]
pub struct Reconnect {
    client: Client,
    options: ReconnectOptions,
    backoff: Backoff,
    state: State,
    teller: Teller,
}

enum State {
    /// The first connection is opened at once.
    Begun,
    Connecting(Pin<Box<dyn Future<Output = Result<WebSocket>> + Send>>),
    /// A connection was handed out. It is open, or has ended.
    Open(Watched),
    Pausing(Timer, Instant),
    Ended,
}

/// The connection that was handed out last.
struct Watched {
    sender: Sender,
    since: Instant,
    closed: Pin<Box<dyn Future<Output = CloseInfo> + Send>>,
}

impl Reconnect {
    pub(super) fn new(client: Client, options: ReconnectOptions) -> Self {
        let backoff = Backoff::new(options.first_delay, options.max_delay);
        Self { client, options, backoff, state: State::Begun, teller: Teller::new() }
    }

    /// Waits until the last connection has ended, and opens the next. `None` if its end is not to be followed by
    /// another: see [`after_close`](ReconnectOptions::after_close).
    ///
    /// The end of a connection is noticed only by a call of `recv` on it, or when it is dropped. A connection
    /// that the caller drops, or closes with 1000, is the last one, unless `after_close` says otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if another try would not help (see [`after_error`](ReconnectOptions::after_error)), or
    /// if there were too many. After an error there are no more connections.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call goes on with the same pause or the same try.
    pub async fn next(&mut self) -> Result<Option<WebSocket>> {
        poll_fn(|cx| self.poll_connection(cx)).await.transpose()
    }

    /// The number of failures since a connection was last [stable](ReconnectOptions::stable_after).
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// The state at the moment. It changes only during a call of [`next`](Self::next).
    #[must_use]
    pub fn state(&self) -> ReconnectState {
        match &self.state {
            State::Begun | State::Connecting(_) => ReconnectState::Connecting,
            State::Open(_) => ReconnectState::Open,
            State::Pausing(_, until) => ReconnectState::Waiting { until: *until },
            State::Ended => ReconnectState::Ended,
        }
    }

    /// A stream of the states from now on, for other tasks, such as one that shows them to a user.
    #[must_use]
    pub fn states(&self) -> ReconnectStates {
        self.teller.states()
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WebSocket>>> {
        let polled = self.poll_steps(cx);
        self.teller.tell(self.state());
        polled
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WebSocket>>> {
        loop {
            match &mut self.state {
                State::Begun => self.connect(),
                State::Connecting(_) => {
                    // It is put back if it is not ready: after a panic of `prepare`, it must not be polled again.
                    let State::Connecting(mut connecting) =
                        mem::replace(&mut self.state, State::Ended)
                    else {
                        continue;
                    };
                    match connecting.as_mut().poll(cx) {
                        Poll::Pending => {
                            self.state = State::Connecting(connecting);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(ws)) => {
                            let since = self.client.parts.clock().now();
                            self.state = State::Open(Watched::new(&ws, since));
                            return Poll::Ready(Some(Ok(ws)));
                        }
                        Poll::Ready(Err(error)) => {
                            if let Some(error) = self.fail(error) {
                                return Poll::Ready(Some(Err(error)));
                            }
                        }
                    }
                }
                State::Open(watched) => {
                    let info = ready!(watched.poll_ended(cx));
                    let lasted = self.client.parts.clock().since(watched.since);
                    let was_stable = lasted >= self.options.stable_after;
                    self.lose(&info, was_stable);
                }
                State::Pausing(timer, _) => {
                    ready!(Pin::new(timer).poll(cx));
                    self.connect();
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn connect(&mut self) {
        let (client, prepare) = (self.client.clone(), self.options.prepare.clone());
        self.state = State::Connecting(Box::pin(async move {
            match prepare {
                Some(prepare) => prepare(client).await?.connect().await,
                None => client.connect().await,
            }
        }));
    }

    /// Handles a failed try. Returns the error if there is no other try.
    fn fail(&mut self, error: Error) -> Option<Error> {
        // Set first, so that it also holds if the closure below panics.
        self.state = State::Ended;
        let Error::Connect(reason) = &error else { return Some(error) };
        let is_last =
            self.options.max_attempts.is_some_and(|max| self.failures().saturating_add(1) >= max);
        if is_last || !(self.options.after_error)(reason) {
            return Some(error);
        }
        let retry_after = reason.response().and_then(HandshakeResponse::retry_after);
        self.pause(|backoff, random| backoff.after(random, retry_after));
        record!(debug, "no connection yet", error = Escaped(reason));
        None
    }

    /// Handles the end of a connection.
    fn lose(&mut self, info: &CloseInfo, was_stable: bool) {
        if was_stable {
            self.backoff.reset();
        }
        self.state = State::Ended;
        if !(self.options.after_close)(info) {
            return;
        }
        let least = self.options.try_again_later;
        let is_overloaded = info.reported_code() == u16::from(CloseCode::TRY_AGAIN_LATER);
        self.pause(|backoff, random| {
            if is_overloaded {
                backoff.after_overload(random, least)
            } else {
                backoff.after(random, None)
            }
        });
    }

    /// Waits before the next try. `pause` is given a random number.
    fn pause(&mut self, pause: impl FnOnce(&mut Backoff, u64) -> Duration) {
        let pause = pause(&mut self.backoff, u64::from_ne_bytes(random_bytes()));
        let clock = self.client.parts.clock();
        let until = clock.after(pause);
        self.state = State::Pausing(clock.timer(until), until);
    }
}

impl Watched {
    fn new(ws: &WebSocket, since: Instant) -> Self {
        let sender = ws.sender();
        let waiting = sender.clone();
        let closed = Box::pin(async move { waiting.closed().await });
        Self { sender, since, closed }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<CloseInfo> {
        match self.sender.close_info() {
            Some(info) => Poll::Ready(info),
            None => self.closed.as_mut().poll(cx),
        }
    }
}

impl Stream for Reconnect {
    type Item = Result<WebSocket>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<WebSocket>>> {
        self.get_mut().poll_connection(cx)
    }
}

impl FusedStream for Reconnect {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "Begun",
            Self::Connecting(_) => "Connecting",
            Self::Open(_) => "Open",
            Self::Pausing(..) => "Pausing",
            Self::Ended => "Ended",
        })
    }
}
