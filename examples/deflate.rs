//! permessage-deflate: an echo that is compressed if the client supports it, and the bytes that it saves.
//!
//! ```text
//! cargo run --release --example deflate
//! ```
//!
//! Then open <http://127.0.0.1:8080/>. Two messages to `ws://127.0.0.1:8080/ws` are not echoed, but answered:
//! `stats` and `login NAME`.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! serde_json = "1"
//! ```

use std::env;

use serde_json::json;
use tidewire::deflate::DeflateOptions;
use tidewire::tide::{Body, http::mime};
use tidewire::{Message, RequestContext, Server, WebSocketOptions};

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
    let mut page = Body::from(include_str!("deflate.html"));
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    // Compression is off by default. Messages shorter than the threshold are not worth it.
    let deflate = DeflateOptions::default().level(6).threshold(128);
    let options = WebSocketOptions::default().deflate(deflate);
    let mut ws = ctx.upgrade_to_websocket(options).await?;

    // A client that did not offer compression is served, too.
    let agreed =
        ws.deflate_parameters().map_or("no compression".into(), |agreed| agreed.to_string());
    println!("WebSocket client connected: {agreed}");
    ws.send(agreed).await?;

    while let Some(message) = ws.recv().await? {
        let words = message.as_text().map(|text| text.split_once(' ').unwrap_or((text, "")));
        let answer = match words {
            Some(("stats", "")) => {
                // Queued bytes are not on the wire yet.
                ws.flush().await?;
                stats(&ws.stats())
            }
            Some(("login", name)) => welcome(name),
            _ => message,
        };
        ws.send(answer).await?;
    }
    println!("WebSocket client disconnected");
    Ok(())
}

/// The bytes of payloads, as the handler sees them, and the bytes on the wire, compressed and with frame headers.
fn stats(stats: &tidewire::websocket::ConnectionStats) -> Message {
    let counters = json!({
        "payload_bytes_in": stats.payload_bytes_in,
        "wire_bytes_in": stats.wire_bytes_in,
        "payload_bytes_out": stats.payload_bytes_out,
        "wire_bytes_out": stats.wire_bytes_out,
    });
    Message::from(counters.to_string())
}

/// The answer holds a secret together with text that an attacker may have chosen. If it were compressed, its length
/// would show how much the two have in common. A few hundred tries would then reveal the secret.
fn welcome(name: &str) -> Message {
    Message::from(format!("Welcome {name}, token=8f14e45fceea167a")).uncompressed()
}
