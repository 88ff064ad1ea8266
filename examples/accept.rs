//! A server that checks a request before it accepts it, greets each client, and echoes.
//!
//! ```text
//! cargo run --release --example accept
//! ```
//!
//! The WebSocket route is `/websocket`, every other path is a page:
//!
//! ```text
//! curl -i http://127.0.0.1:8080/
//! websocat ws://127.0.0.1:8080/websocket
//! curl -i -A BadBot/1.0 http://127.0.0.1:8080/websocket
//! ```

use std::env;

use tidewire::tide::{Body, http::mime};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{CloseCode, Reject, RequestContext, Server};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/websocket", websocket);
    server.get("/", page);
    server.get("/*path", page);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn page(_ctx: RequestContext) -> tidewire::HandlerResult<Body> {
    let mut page = Body::from("<h1>WebSocket Server</h1>");
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn websocket(mut ctx: RequestContext) -> tidewire::HandlerResult {
    accept(&ctx)?;
    println!("WebSocket client connected");
    // Pages of other sites may connect, too.
    let options = UpgradeOptions::default().allow_any_origin();
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    println!("WebSocket ready");
    ws.send("Welcome!").await?;
    while let Some(message) = ws.recv().await? {
        if let Some(text) = message.as_text() {
            println!("Received: {text}");
            if text == "bye" {
                ws.close(CloseCode::NORMAL, "good-bye").await?;
                break;
            }
        }
        ws.send(message).await?;
    }
    println!("WebSocket client disconnected");
    Ok(())
}

/// Refuses with an HTTP response, before there is a connection.
fn accept(ctx: &RequestContext) -> tidewire::HandlerResult {
    let is_unwanted = ctx.header("user-agent").is_some_and(|agent| agent.starts_with("BadBot"));
    if is_unwanted {
        return Err(Reject::status(403, "no bots, please").into());
    }
    Ok(())
}
