//! A server whose sockets listen.

use std::net::{Ipv4Addr, SocketAddr};
#[cfg(feature = "testing")]
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use futures::FutureExt;
#[cfg(feature = "testing")]
use futures::channel::oneshot;
use futures::future::{Either, join, select, select_all};

use super::accept;
use super::capacity::Capacity;
use super::handle::ServerHandle;
use super::listener::{Listener, LocalAddr};
use super::shutdown::Shutdown;
#[cfg(feature = "tls")]
use super::tls;
#[cfg(feature = "tls")]
use super::tls::TlsConfig;
use crate::admission::ConnectionLimit;
use crate::http::{Addrs, App, HttpServer, ServerOptions};
use crate::instance::{Instance, ShutdownOptions, ShutdownReport};
#[cfg(feature = "testing")]
use crate::permits::Held;
use crate::runtime::Task;
use crate::stream::Stream;
use crate::{Result, runtime};

/// The error text if the application's executor, or a tokio runtime, refuses a task.
pub(crate) fn no_executor() -> String {
    format!("{} runs no tasks", runtime::executor_name())
}

/// A server that listens, and does not serve yet.
pub struct BoundServer<State = ()> {
    listeners: Vec<Listener>,
    capacity: Capacity,
    front: Arc<HttpServer<State>>,
    instance: Arc<Instance>,
    shutdown: Arc<Shutdown>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<tls::Acceptor>>,
}

impl<State: Clone + Send + Sync + 'static> BoundServer<State> {
    pub(super) fn new(
        app: App<State>,
        options: ServerOptions,
        limits: Vec<ConnectionLimit>,
        listeners: Vec<Listener>,
        workers: usize,
    ) -> Result<Self> {
        let (clock, memory) = (options.clock.clone(), options.message_memory);
        let instance = Arc::new(Instance::new(clock, memory, app.has_access_log()));
        instance.tasks.start_workers(workers, options.tokio_or_current())?;
        let shutdown = Arc::new(Shutdown::new(Arc::clone(&instance)));
        let capacity = Capacity::new(&options, Arc::clone(&instance));
        let front = HttpServer::new(app, options, Arc::clone(&instance)).limited(limits);
        Ok(Self {
            listeners,
            capacity,
            front: Arc::new(front),
            instance,
            shutdown,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Encrypts all connections, if `tls` is not `None`.
    #[cfg(feature = "tls")]
    pub(super) fn with_tls(self, tls: Option<TlsConfig>) -> Result<Self> {
        Ok(Self { tls: tls.map(tls::Acceptor::new).transpose()?.map(Arc::new), ..self })
    }

    /// The first TCP address that the server listens on, with the real port; `0.0.0.0:0` if it has Unix
    /// sockets only.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let mut addrs = self.listeners.iter().filter_map(|listener| listener.local_addr().as_tcp());
        addrs.next().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    /// All addresses that the server listens on, in the order in which they were named.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<LocalAddr> {
        self.listeners.iter().map(|listener| listener.local_addr().clone()).collect()
    }

    /// Returns a handle, by which other tasks shut the server down or watch it.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.local_addr(), Arc::clone(&self.instance), Arc::clone(&self.shutdown))
    }

    /// Serves connections until the server has been [shut down](ServerHandle::shutdown).
    ///
    /// # Errors
    ///
    /// None so far. After a failure to accept, the server waits and tries again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listening sockets. Accepted connections go on.
    pub async fn serve(self) -> Result<()> {
        let this = Arc::new(self);
        match this.instance.tasks.spawn_on_worker(Arc::clone(&this).accept()) {
            Ok(task) => {
                let _listening = Listening { bound: Arc::clone(&this), task };
                this.shutdown.finished().await;
            }
            Err(accepting) => {
                let shutdown = Arc::clone(&this.shutdown);
                // The rest is owned by what accepts, and dropped with it.
                drop(this);
                accepting.await;
                shutdown.finished().await;
            }
        }
        Ok(())
    }

    /// Serves connections until `end` resolves, then shuts down in order, and returns the report of that.
    ///
    /// `end` is the future of [`signals`](crate::signals), or any other that resolves to `()`, for the default
    /// [`ShutdownOptions`], or to options. The shutdown is that of [`ServerHandle::shutdown`]. A handle may shut the
    /// server down earlier; `end` is then dropped.
    ///
    /// **A second signal** ends a shutdown at once: in a program that has called [`signals`](crate::signals), SIGINT or
    /// SIGTERM cuts the grace period short, so that handlers and connections that are left are dropped. A signal counts
    /// from the moment when `end` has resolved.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use futures::FutureExt;
    /// use tidewire::Server;
    /// use tidewire::server::ShutdownOptions;
    ///
    /// # async fn run(server: Server) -> tidewire::Result<()> {
    /// let bound = server.bind("127.0.0.1:0").await?;
    /// println!("listening on http://{}", bound.local_addr());
    /// let options = ShutdownOptions::default().spread(Duration::from_secs(20));
    /// let report = bound.serve_until(tidewire::signals().map(|()| options)).await?;
    /// println!("{} connections closed, {} lost", report.closed, report.lost);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// None so far, as for [`serve`](Self::serve).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listening sockets. Accepted connections go on, and so does a shutdown that has
    /// begun.
    pub async fn serve_until(
        self,
        end: impl Future<Output: Into<ShutdownOptions>>,
    ) -> Result<ShutdownReport> {
        let handle = self.handle();
        let serving = pin!(self.serve());
        let (options, serving) = match select(serving, pin!(end)).await {
            Either::Left((served, _)) => {
                served?;
                return Ok(handle.stopped().await);
            }
            Either::Right((options, serving)) => (options.into(), serving),
        };
        // Before the first close frame: who sees that may send the second signal.
        let again = runtime::signals_if_caught();
        let ending = async {
            match select(pin!(handle.shutdown(options)), again).await {
                Either::Left((report, _)) => report,
                Either::Right(_) => {
                    handle.shutdown(ShutdownOptions::default().grace(Duration::ZERO)).await
                }
            }
        };
        // Without workers, it is `serving` that closes the listeners.
        let (served, report) = join(serving, ending).await;
        served.map(|()| report)
    }

    /// Serves in the background, until the server is [shut down](ServerHandle::shutdown).
    pub(super) fn start(self) -> Result<ServerHandle> {
        let handle = self.handle();
        let this = Arc::new(self);
        let tasks = Arc::clone(&this.instance.tasks);
        let task = tasks.spawn_on_worker(this.accept()).unwrap_or_else(runtime::spawn_on_executor);
        task.map(|_| handle).ok_or_else(|| io::Error::other(no_executor()).into())
    }

    /// Accepts connections until the server shuts down.
    async fn accept(self: Arc<Self>) {
        // Dropped last: when all tasks have ended, the addresses are free.
        let _running = self.instance.tasks.enter();
        let this = self;
        let accept = |listener| {
            let take = |stream, addrs| this.take(stream, addrs);
            Box::pin(accept::accept_from(listener, &this.capacity, take))
        };
        let accepting = select_all(this.listeners.iter().map(accept));
        select(accepting, this.instance.shutting_down()).await;
        this.close_listeners();
    }

    /// Closes the sockets that listen, also if others refer to this still.
    fn close_listeners(&self) {
        self.listeners.iter().for_each(Listener::close);
    }

    /// Serves a connection that no listener has accepted, once there is a place for it. `served` is sent a
    /// value when the connection has been served. If it is dropped without a value, the task was dropped,
    /// and the stream after it.
    #[cfg(feature = "testing")]
    pub(crate) fn take_unlisted(
        this: &Arc<Self>,
        stream: impl FnOnce(Held) -> Stream + Send + 'static,
        addrs: Addrs,
        served: oneshot::Sender<()>,
    ) {
        let bound = Arc::clone(this);
        let serving = Box::pin(async move {
            let place = Box::pin(bound.capacity.place());
            // A connection that still waits for a place when the server shuts down is not served.
            let Either::Left((place, _)) = select(place, bound.instance.shutting_down()).await
            else {
                return;
            };
            if let Ok(visitor) = addrs.peer.map_or(Ok(None), |peer| bound.capacity.admit(peer)) {
                let stream = stream(Held { place, visitor });
                Arc::clone(&bound.front).serve(stream, addrs).await;
            }
        });
        this.instance.tasks.spawn(Unlisted { served: Some(served), serving });
    }

    /// Serves one connection, in a task of its own.
    fn take(&self, stream: Stream, addrs: Addrs) {
        let front = Arc::clone(&self.front);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let serve = tls::serve(Arc::clone(tls), front, stream, addrs);
            self.instance.tasks.spread(serve);
            return;
        }
        self.instance.tasks.spread(front.serve(stream, addrs));
    }
}

impl<State> fmt::Debug for BoundServer<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// A server that listens on a worker, for as long as somebody waits for it. When this is dropped, it listens no more.
struct Listening<State: Clone + Send + Sync + 'static> {
    bound: Arc<BoundServer<State>>,
    /// The task that accepts, unless its executor has dropped it.
    task: Option<Task>,
}

impl<State: Clone + Send + Sync + 'static> Drop for Listening<State> {
    fn drop(&mut self) {
        self.bound.close_listeners();
        // One poll starts the cancellation.
        let _ = self.task.take().map(|task| task.cancel().now_or_never());
    }
}

/// The task of a connection that no listener has accepted. Its fields are dropped in this order.
#[cfg(feature = "testing")]
struct Unlisted<F> {
    served: Option<oneshot::Sender<()>>,
    serving: Pin<Box<F>>,
}

#[cfg(feature = "testing")]
impl<F: Future<Output = ()>> Future for Unlisted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.serving.as_mut().poll(cx));
        // Fails if the client does not wait for it any more.
        let _ = self.served.take().map(|served| served.send(()));
        Poll::Ready(())
    }
}
