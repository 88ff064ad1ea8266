//! An echo server, with a page to try it.
//!
//! ```text
//! cargo run --release --example echo
//! ```
//!
//! Then open <http://127.0.0.1:8080/>, or connect any WebSocket client to `ws://127.0.0.1:8080/ws`.

use std::env;

use tidewire::tide::{Body, StatusCode, http::mime};
use tidewire::{RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/", page);
    server.get("/ws", echo);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn page(_ctx: RequestContext) -> tidewire::HandlerResult<Body> {
    let mut page = Body::from(include_str!("echo.html"));
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    if !ctx.is_websocket_upgrade() {
        ctx.response().set_status(StatusCode::BadRequest);
        ctx.response().set_body("This is a WebSocket route.\n");
        return Ok(());
    }
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    println!("WebSocket client connected");
    while let Some(message) = ws.recv().await? {
        match message.as_text() {
            Some(text) => println!("Received: {text}"),
            None => println!("Received: {} bytes", message.len()),
        }
        ws.send(message).await?;
    }
    println!("WebSocket client disconnected");
    Ok(())
}
