//! A handler that waits for three things at once: its client, a channel, and a tick.
//!
//! ```toml
//! [dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! futures = "0.3"
//! tidewire = "0.1"
//! ```
//!
//! ```text
//! cargo run --release --example select
//! websocat ws://127.0.0.1:8080/ws
//! ```
//!
//! A client sends a number, which begins a job of so many seconds. A job reports its end through the channel. Every ten
//! seconds, the client is told how many jobs are at work.

use std::pin::pin;
use std::time::Duration;

use async_std::task::sleep;
use futures::channel::mpsc;
use futures::{FutureExt, SinkExt, StreamExt, select};
use tidewire::{RequestContext, Server, WebSocketOptions};

const TICK: Duration = Duration::from_secs(10);

/// The longest job, in seconds.
const LONGEST: u64 = 3600;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let mut server = Server::new();
    server.get("/ws", jobs);
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn jobs(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let (report, mut reports) = mpsc::channel(1);
    let mut at_work = 0;
    let mut tick = pin!(sleep(TICK).fuse());
    loop {
        // The futures of the two arms that lose are dropped, which loses no message and no report. The tick is not
        // dropped: it goes on.
        select! {
            message = ws.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                match message.as_text().unwrap_or_default().trim().parse() {
                    Ok(seconds @ ..=LONGEST) => {
                        at_work += 1;
                        // It ends with the connection.
                        ws.spawn(job(seconds, report.clone()));
                    }
                    _ => ws.send(format!("a number up to {LONGEST}, please")).await?,
                }
            }
            seconds = reports.select_next_some() => {
                at_work -= 1;
                ws.send(format!("a job of {seconds} s is done")).await?;
            }
            () = tick => {
                ws.send(format!("{at_work} at work")).await?;
                tick.set(sleep(TICK).fuse());
            }
        }
    }
}

async fn job(seconds: u64, mut report: mpsc::Sender<u64>) {
    sleep(Duration::from_secs(seconds)).await;
    // Fails if the handler has ended.
    let _ = report.send(seconds).await;
}
