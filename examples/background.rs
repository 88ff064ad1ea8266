//! A server in the background of a program that has other work: here, it is the client of the server.
//!
//! ```text
//! cargo run --release --example background
//! ```
//!
//! The program listens on a free port, unless its first argument is an address, does its work, and ends.

use tidewire::server::ShutdownOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let mut server = Server::new();
    server.get("/ws", echo);
    let handle = server.start(addr.as_str()).await?;
    println!("listening on http://{}", handle.local_addr());
    // The server accepts connections from here on.
    let url = format!("ws://{}/ws", handle.local_addr());
    println!("serving {url}");

    errand(&url).await?;

    handle.shutdown(ShutdownOptions::default()).await;
    println!("Server ended");
    Ok(())
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

/// The work of the program.
async fn errand(url: &str) -> tidewire::Result<()> {
    let mut ws = tidewire::connect(url).await?;
    ws.send("Hello from the foreground!").await?;
    if let Some(message) = ws.recv().await? {
        println!("Received: {}", message.as_text().unwrap_or_default());
    }
    ws.close(1000, "").await?;
    Ok(())
}
