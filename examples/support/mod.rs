//! Code that the example servers share: the address, the first line of output, and signals.

use std::time::Duration;

use async_signal::{Signal, Signals};
use async_std::task;
use futures::StreamExt;
use futures::future::{Either, select};
use tidewire::Server;
use tidewire::server::{ServerHandle, ShutdownOptions};

/// Serves on the address in the first argument, until SIGINT or SIGTERM.
pub(crate) async fn serve<State>(server: Server<State>) -> tidewire::Result<()>
where
    State: Clone + Send + Sync + 'static,
{
    let (scheme, port) = if server.is_secure() { ("https", 8443) } else { ("http", 8080) };
    let addr = std::env::args().nth(1).unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let signals = Signals::new([Signal::Int, Signal::Term])?;
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on {scheme}://{}", bound.local_addr());
    task::spawn(shut_down(bound.handle(), signals));
    bound.serve().await
}

/// Shuts down in order at the first signal, and at once at the second.
async fn shut_down(handle: ServerHandle, mut signals: Signals) {
    signals.next().await;
    let orderly = Box::pin(handle.shutdown(ShutdownOptions::default()));
    if let Either::Right(_) = select(orderly, signals.next()).await {
        handle.shutdown(ShutdownOptions::default().grace(Duration::ZERO)).await;
    }
}
