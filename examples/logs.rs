//! The log: an access log, a handler that fails, one that panics, and clients that are refused.
//!
//! ```text
//! cargo run --example logs
//! curl http://127.0.0.1:8080/lots/7?token=secret
//! curl http://127.0.0.1:8080/nowhere
//! curl http://127.0.0.1:8080/panics
//! ```
//!
//! `/ws` is an echo for pages of this server. A page of another origin is refused with 403, and the log says why. No
//! line has the token.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! tracing-subscriber = "0.3"
//! ```

use std::env;

use tidewire::{RequestContext, Server, WebSocketOptions};
use tracing_subscriber::filter::LevelFilter;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    // `tracing_subscriber::fmt::init()` shows info and above, and more if `RUST_LOG` says so.
    tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).init();

    let mut server = Server::new();
    server.access_log();
    server.get("/lots/:id", |ctx: RequestContext| async move {
        let id: u32 = ctx.param("id")?;
        let lots = async_std::fs::read_to_string("no-such-database").await?;
        Ok(format!("lot {id} of {lots}\n"))
    });
    server.get("/panics", |ctx: RequestContext| async move {
        let (_, rest) = ctx.path().split_at(100);
        Ok(rest.to_owned())
    });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}
