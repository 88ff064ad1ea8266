//! An echo that pings its clients at an interval of your choice, and notices clients that are gone.
//!
//! By default a server pings every 25 s.
//!
//! ```text
//! cargo run --release --example heartbeat -- 127.0.0.1:8080 30
//! ```
//!
//! The second argument is the time between two pings, in seconds.

use std::env;
use std::time::Duration;

use tidewire::websocket::HeartbeatOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let heartbeat = heartbeat();
    let mut server = Server::new();
    server.get("/ws", move |ctx| echo(ctx, heartbeat));
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

/// A heartbeat with the interval of the second argument. Its timeout is the same, and 20 s at most.
fn heartbeat() -> HeartbeatOptions {
    let seconds = env::args().nth(2).and_then(|seconds| seconds.parse().ok());
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let interval = interval.unwrap_or(Duration::from_secs(30));
    HeartbeatOptions::default().interval(interval).timeout(interval.min(Duration::from_secs(20)))
}

async fn echo(mut ctx: RequestContext, heartbeat: HeartbeatOptions) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let running = ws.sender().run_heartbeat(heartbeat);
    ws.spawn(async {
        if running.await.is_err() {
            println!("Heartbeat failed, connection lost");
        }
    });
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
