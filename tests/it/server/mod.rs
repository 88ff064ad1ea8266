//! A server from its first connection to its last.
//!
//! | file | shows |
//! | --- | --- |
//! | `blocking` | code that blocks, beside a server |
//! | `start` | servers in the background |
//! | `shutdown` | what a shutdown does to whom, and what is left of it |
//! | `impatience` | what becomes of those who do not end in time |
//! | `metrics` | what a server counts |
//! | `errors` | the errors of handlers, and what a client is told of them |
//! | `reject` | refusals that a page can read |
//! | `tokio` | servers in programs on tokio, with the feature `tokio` |
//! | `until` | servers that end when a future resolves, and programs that end at a signal |
//! | `workers` | the threads that serve connections: how they share them, and one that blocks |
//! | `load` | these threads under load: whose turn it is, and connections in more than one task |

mod blocking;
mod errors;
mod impatience;
mod load;
mod metrics;
mod reject;
mod shutdown;
mod start;
#[cfg(feature = "tokio")]
mod tokio;
mod until;
mod workers;

use std::time::Duration;

use async_std::task;
use futures::channel::{mpsc, oneshot};
use futures::{Future, FutureExt, StreamExt};
use tidewire::server::{ServerHandle, ShutdownOptions};
use tidewire::{RequestContext, Server, WebSocketOptions};

use crate::support::peer::within;

/// A request that keeps its connection.
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Starts a server on a free port.
fn start<State: Clone + Send + Sync + 'static>(server: Server<State>) -> ServerHandle {
    within(server.start("127.0.0.1:0")).unwrap()
}

/// A deadline that a healthy server never needs.
fn patient() -> ShutdownOptions {
    ShutdownOptions::default().grace(Duration::from_secs(60))
}

/// Begins to shut down, in the background, and returns once that has begun.
fn begin_shutdown(
    handle: &ServerHandle,
    options: ShutdownOptions,
) -> task::JoinHandle<tidewire::server::ShutdownReport> {
    let (own, begun) = (handle.clone(), handle.clone());
    let report = task::spawn(async move { own.shutdown(options).await });
    within(begun.shutting_down());
    report
}

/// A handler that tells when it has begun, and waits until it may go on.
fn gate() -> (Gate, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (at_gate, arrivals) = mpsc::unbounded();
    (Gate(at_gate), arrivals)
}

#[derive(Clone)]
struct Gate(mpsc::UnboundedSender<oneshot::Sender<()>>);

impl Gate {
    fn pass(&self) -> impl Future<Output = ()> + Send + use<> {
        let (open, is_open) = oneshot::channel();
        self.0.unbounded_send(open).unwrap();
        is_open.map(drop)
    }
}

/// The next handler at the gate.
fn arrival(arrivals: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>) -> oneshot::Sender<()> {
    within(arrivals.next()).unwrap()
}

/// A server that answers `GET /` once it may.
fn slow() -> (Server, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (gate, arrivals) = gate();
    let mut server = Server::new();
    server.get("/", move |_ctx: RequestContext| {
        let passed = gate.pass();
        async move {
            passed.await;
            Ok("done")
        }
    });
    (server, arrivals)
}

/// A server whose handler at `/` upgrades, and then waits for something that never comes.
fn stuck() -> (Server, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (gate, arrivals) = gate();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let gate = gate.clone();
        async move {
            let _ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            gate.pass().await;
            Ok(())
        }
    });
    (server, arrivals)
}
