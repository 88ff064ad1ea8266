//! A server that listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures::future::select;

use super::accept;
use super::handle::ServerHandle;
use super::shutdown::Shutdown;
use crate::Result;
use crate::http::{Addrs, Front, ServerOptions};
use crate::instance::Instance;
use crate::runtime::{self, TcpListener, TcpStream};
use crate::stream::Stream;

/// A server that listens and waits to be run.
pub struct Bound<State = ()> {
    listener: TcpListener,
    local_addr: SocketAddr,
    front: Arc<Front<State>>,
    instance: Arc<Instance>,
    shutdown: Arc<Shutdown>,
}

impl<State: Clone + Send + Sync + 'static> Bound<State> {
    pub(super) fn new(
        app: tide::Server<State>,
        options: ServerOptions,
        addrs: &[SocketAddr],
    ) -> Result<Self> {
        let listener = listen_on(addrs)?;
        let local_addr = listener.local_addr()?;
        let instance = Arc::new(Instance::default());
        let shutdown = Arc::new(Shutdown::new(Arc::clone(&instance)));
        let front = Arc::new(Front::new(app, options, Arc::clone(&instance)));
        Ok(Self { listener, local_addr, front, instance, shutdown })
    }

    /// Where the server listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What other tasks need, to shut the server down or to watch it.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.local_addr, Arc::clone(&self.instance), Arc::clone(&self.shutdown))
    }

    /// Serves connections until the server has been [shut down](ServerHandle::shutdown).
    ///
    /// # Errors
    ///
    /// None so far: failures to accept are waited out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listening socket; connections that were accepted live on.
    pub async fn serve(self) -> Result<()> {
        let shutdown = Arc::clone(&self.shutdown);
        self.accept().await;
        shutdown.finished().await;
        Ok(())
    }

    /// Serves in the background, until the server is [shut down](ServerHandle::shutdown).
    pub(super) fn start(self) -> ServerHandle {
        let handle = self.handle();
        runtime::spawn(async move { self.accept().await });
        handle
    }

    /// Accepts connections until the server shuts down.
    async fn accept(self) {
        // The last to go, so that whoever waits for the tasks finds the address free.
        let _running = self.instance.tasks.enter();
        let Self { listener, .. } = &self;
        let accept = accept::accept_from(listener, |stream, peer| {
            let local = self.local_addr_of(&stream);
            let front = Arc::clone(&self.front);
            self.instance.tasks.spawn(front.serve(Stream::Tcp(stream), Addrs { peer, local }));
        });
        select(pin!(accept), pin!(self.instance.shutting_down())).await;
    }

    fn local_addr_of(&self, stream: &TcpStream) -> SocketAddr {
        if !self.local_addr.ip().is_unspecified() {
            return self.local_addr;
        }
        // A wildcard address does not say where this client connected to.
        stream.local_addr().unwrap_or(self.local_addr)
    }
}

impl<State> fmt::Debug for Bound<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Listens on the first address that can be had.
fn listen_on(addrs: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
    for addr in addrs {
        match TcpListener::bind(*addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let message = format!("cannot listen on {addr}: {error}");
                failure = io::Error::new(error.kind(), message);
            }
        }
    }
    Err(failure)
}
