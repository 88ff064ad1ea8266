//! A server in the background of a program that has something else to do: here, to talk to it.
//!
//! ```text
//! cargo run --release --example background
//! ```
//!
//! It listens on a free port unless its first argument is an address, runs its errand, and ends.

use async_std::net::TcpStream;
use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message;
use futures::StreamExt;
use tidewire::{RequestContext, Server, ShutdownOptions, WebSocketOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[async_std::main]
async fn main() -> Result<(), Failure> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let mut server = Server::new();
    server.get("/ws", echo);
    let handle = server.start(addr.as_str()).await?;
    println!("listening on http://{}", handle.local_addr());

    errand(&format!("ws://{}/ws", handle.local_addr())).await?;

    handle.shutdown(ShutdownOptions::default()).await;
    println!("Server ended");
    Ok(())
}

async fn echo(mut ctx: RequestContext) -> tide::Result<()> {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

/// What the program is for; the client is one that knows nothing of this crate.
async fn errand(url: &str) -> Result<(), Failure> {
    let addr = url.trim_start_matches("ws://").trim_end_matches("/ws");
    let (mut ws, _response) = client_async(url, TcpStream::connect(addr).await?).await?;
    ws.send(Message::text("Hello from the foreground!")).await?;
    if let Some(message) = ws.next().await {
        println!("Received: {}", message?);
    }
    Ok(())
}
