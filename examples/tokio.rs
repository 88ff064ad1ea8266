//! A server in a program on tokio: handlers use tokio's tasks, timers and channels.
//!
//! ```text
//! cargo run --release --features tokio --example tokio
//! websocat ws://127.0.0.1:8080/countdown
//! ```
//!
//! A client sends a number, and gets it counted down, one message a second. `GET /slow` answers after a second.
//!
//! Dependencies:
//!
//! ```toml
//! tidewire = { version = "0.1", features = ["tokio"] }
//! tokio = { version = "1", features = ["full"] }
//! ```

use std::env;
use std::time::Duration;

use tidewire::{RequestContext, Server, WebSocketOptions};
use tokio::sync::mpsc;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// The largest number that is counted down.
const MOST: u8 = 60;

#[tokio::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/slow", |_ctx: RequestContext| async {
        sleep(SECOND).await;
        Ok("at last\n")
    });
    server.get("/countdown", countdown);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn countdown(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let (count, mut counted) = mpsc::channel(1);
    loop {
        tokio::select! {
            message = ws.recv() => {
                let Some(message) = message? else { return Ok(()) };
                match message.as_text().unwrap_or_default().trim().parse() {
                    Ok(from @ ..=MOST) => drop(tokio::spawn(count_down(from, count.clone()))),
                    _ => ws.send(format!("a number up to {MOST}, please")).await?,
                }
            }
            Some(number) = counted.recv() => ws.send(format!("{number}")).await?,
        }
    }
}

/// Sends the numbers from `from` to 0. It ends with the connection, which drops the other end of the channel.
async fn count_down(from: u8, count: mpsc::Sender<u8>) {
    for number in (0..=from).rev() {
        if count.send(number).await.is_err() {
            return;
        }
        sleep(SECOND).await;
    }
}
