//! HTTP and WebSocket routes on one port, and state that both see.
//!
//! ```text
//! cargo run --release --example http_and_ws
//! curl http://127.0.0.1:8080/visits
//! ```

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewire::tide::{Body, Response, StatusCode, http::mime};
use tidewire::{RequestContext, Server, WebSocketOptions};

/// The number of WebSocket connections so far.
type Visits = Arc<AtomicUsize>;

const PAGE: &str = "<!doctype html><title>tidewire</title>\
    <h1>HTTP and WebSocket, one port</h1><p>The socket is at <code>/ws</code>.</p>";

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::with_state(Visits::default());
    server.get("/", |_ctx: RequestContext<Visits>| async {
        let mut page = Body::from(PAGE);
        page.set_mime(mime::HTML);
        Ok(page)
    });
    server.get("/visits", |ctx: RequestContext<Visits>| async move {
        Ok(ctx.state().load(Ordering::Relaxed).to_string())
    });
    server.get("/ws", visit);
    server.get("/*", |_ctx: RequestContext<Visits>| async {
        let not_found = Response::builder(StatusCode::NotFound).body("Not Found");
        Ok(not_found.build())
    });
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn visit(mut ctx: RequestContext<Visits>) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let number = ctx.state().fetch_add(1, Ordering::Relaxed) + 1;
    ws.send(format!("You are visitor {number}.")).await?;
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
