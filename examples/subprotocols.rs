//! Subprotocols: the client's offer, the handler's choice, and an echo that speaks it.
//!
//! ```text
//! cargo run --release --example subprotocols
//! ```
//!
//! Then connect to `ws://127.0.0.1:8080/ws` offering `chat`, `binary` or both, as in
//! `new WebSocket("ws://127.0.0.1:8080/ws", ["chat"])`. A client that offers neither is served, too.

use std::env;

use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server};

/// The subprotocols of this server, the preferred one first.
const SPOKEN: [&str; 2] = ["chat", "binary"];

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/ws", echo);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let offered = ctx.offered_subprotocols();
    let choice = SPOKEN.into_iter().find(|name| offered.contains(name));
    println!("offered: {offered:?}");

    // `WebSocketOptions::subprotocols(SPOKEN)` does the same. Here the handler chooses itself.
    let options = UpgradeOptions::default();
    let options = match choice {
        Some(name) => options.subprotocol(name),
        None => options,
    };
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    println!("agreed: {}", ws.subprotocol().unwrap_or("none"));

    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
