//! Prices that a task without a connection broadcasts, and a page that draws them.
//!
//! ```text
//! cargo run --release --example ticker
//! websocat ws://127.0.0.1:8080/ws
//! ```
//!
//! Then open <http://127.0.0.1:8080/>. Old prices are worthless, so the rooms conflate: a client that is too slow for
//! all prices gets the latest of each symbol.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! fastrand = "2"
//! serde_json = "1"
//! ```

use std::env;
use std::time::Duration;

use async_std::task;
use serde_json::json;
use tidewire::rooms::{RoomOptions, SlowConsumer};
use tidewire::tide::{Body, http::mime};
use tidewire::{Hub, RequestContext, Server, WebSocketOptions};

/// The symbols, with their first prices.
const SYMBOLS: [(&str, f64); 3] = [("TIDE", 42.0), ("WAVE", 128.0), ("REEF", 7.5)];

const INTERVAL: Duration = Duration::from_millis(250);

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let conflating = RoomOptions::default().slow_consumer(SlowConsumer::Conflate);
    let hub = Hub::with_options(conflating);
    task::spawn(tick(hub.clone()));

    let mut server = Server::with_state(hub);
    server.get("/", page);
    server.get("/ws", watch);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

/// Broadcasts a price in the room of each symbol, four times a second, with or without listeners.
async fn tick(hub: Hub) {
    let mut quotes = SYMBOLS.map(|(symbol, start)| (hub.room(symbol), start, start));
    loop {
        for (room, start, price) in &mut quotes {
            // Random, but never far from the first price.
            *price += (*start - *price) / 100.0 + *start * (fastrand::f64() - 0.5) / 100.0;
            let cents = (*price * 100.0).round() / 100.0;
            room.broadcast(json!({ "symbol": room.name(), "price": cents }).to_string());
        }
        task::sleep(INTERVAL).await;
    }
}

async fn page(_ctx: RequestContext<Hub>) -> tidewire::HandlerResult<Body> {
    let mut page = Body::from(include_str!("ticker.html"));
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn watch(mut ctx: RequestContext<Hub>) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let _members = SYMBOLS.map(|(symbol, _)| ctx.state().room(symbol).join(&ws));
    // Messages of a client are ignored. Only its end matters.
    while ws.recv().await?.is_some() {}
    Ok(())
}
