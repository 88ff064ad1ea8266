//! A server in a program on tokio: handlers use tokio's tasks, timers and channels.
//!
//! ```text
//! cargo run --release --features tokio --example tokio
//! websocat ws://127.0.0.1:8080/countdown
//! ```
//!
//! A client sends a number, and gets it counted down, one message a second. `GET /slow` answers after a second, and `GET
//! /fibonacci/100` computes. A client of HTTP or of a database on tokio, such as reqwest or sqlx, is used in the same way: it
//! goes into the state of the server (`tests/tokio/tests/libraries.rs`).
//!
//! Dependencies:
//!
//! ```toml
//! tidewire = { version = "0.1", features = ["tokio"] }
//! tokio = { version = "1", features = ["full"] }
//! ```

use std::env;
use std::time::Duration;

use tidewire::{Reject, RequestContext, Server, WebSocketOptions};
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
    server.get("/fibonacci/:n", fibonacci);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

/// Computes on one of tokio's threads for what blocks.
async fn fibonacci(ctx: RequestContext) -> tidewire::HandlerResult<String> {
    let n: u32 = ctx.param("n")?;
    let computed = tokio::task::spawn_blocking(move || {
        (0..n).try_fold((0_u128, 1_u128), |(one, next), _| Some((next, one.checked_add(next)?)))
    });
    let (number, _) = computed.await?.ok_or(Reject::status(400, "too large"))?;
    Ok(format!("{number}\n"))
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
