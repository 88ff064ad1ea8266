//! What the example servers share: the address, the first line they print, and signals.

use async_signal::{Signal, Signals};
use futures::StreamExt;
use futures::future::{Either, select};
use tidewire::Server;

/// Serves on the address given as first argument, until SIGINT or SIGTERM.
pub(crate) async fn serve<State>(server: Server<State>) -> tidewire::Result<()>
where
    State: Clone + Send + Sync + 'static,
{
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let mut signals = Signals::new([Signal::Int, Signal::Term])?;
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    match select(Box::pin(bound.serve()), signals.next()).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Ok(()),
    }
}
