//! An orderly shutdown: at SIGINT or SIGTERM the server stops listening, closes its sockets one after another over a
//! second, and prints a report.
//!
//! ```text
//! cargo run --release --example shutdown
//! ```
//!
//! Connect some WebSocket clients to `ws://127.0.0.1:8080/ws`, and press Ctrl-C. Each client gets its close frame at
//! another moment, so that they do not all reconnect at once. A second Ctrl-C ends the server without waiting for them.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! futures = "0.3"
//! ```

use std::time::Duration;

use futures::FutureExt;
use tidewire::server::ShutdownOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let mut server = Server::new();
    server.get("/ws", echo);
    server.get("/metrics", tidewire::server::metrics);
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());

    let options =
        ShutdownOptions::default().spread(Duration::from_secs(1)).grace(Duration::from_secs(10));
    let report = bound.serve_until(tidewire::signals().map(|()| options)).await?;
    println!("{} closed, {} lost, {} dropped", report.closed, report.lost, report.dropped);
    Ok(())
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    // A place to save data that must not be lost: the shutdown waits for it.
    Ok(())
}
