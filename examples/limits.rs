//! Limits on connections: of all clients together, which wait for a place, and of each address.
//!
//! ```text
//! cargo run --release --example limits -- 127.0.0.1:8080 2
//! curl http://127.0.0.1:8080/
//! ```
//!
//! The second argument is the number of places at `ws://127.0.0.1:8080/ws`, an echo. Another client gets no answer
//! until a place is free. At `/single`, the second client of an address is refused.

use std::env;
use std::time::Duration;

use tidewire::limits::ConnectionLimit;
use tidewire::tide::{Response, StatusCode};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server};

/// The limits, created once and shared by all requests.
#[derive(Clone)]
struct Limits {
    /// The limit for all clients together. 1 000 may wait, for up to five minutes.
    all: ConnectionLimit,
    /// The limit for each address. No client waits.
    single: ConnectionLimit,
}

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let places = match env::args().nth(2).as_deref().unwrap_or("2").parse() {
        Ok(places) if places > 0 => places,
        _ => {
            eprintln!("the second argument is the number of places, at least 1");
            std::process::exit(2);
        }
    };
    let mut server = Server::with_state(Limits {
        all: ConnectionLimit::new(places).wait(Duration::from_secs(300), 1000),
        single: ConnectionLimit::per_address(1).retry_after(Duration::from_secs(10)),
    });
    server.get("/", report);
    server.get("/ws", |ctx: RequestContext<Limits>| {
        let limit = ctx.state().all.clone();
        echo(ctx, limit)
    });
    server.get("/single", |ctx: RequestContext<Limits>| {
        let limit = ctx.state().single.clone();
        echo(ctx, limit)
    });
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn report(ctx: RequestContext<Limits>) -> tidewire::HandlerResult<Response> {
    let Limits { all, single } = ctx.state();
    let text = format!(
        "/ws: {} available, {} in use, {} waiting\n/single: {} in use, of as many addresses\n",
        all.available(),
        all.in_use(),
        all.waiting(),
        single.in_use(),
    );
    Ok(Response::builder(StatusCode::Ok).body(text).build())
}

async fn echo(mut ctx: RequestContext<Limits>, limit: ConnectionLimit) -> tidewire::HandlerResult {
    let options = UpgradeOptions::default().limit(&limit);
    // Returns when there is a place. The connection holds it until its end.
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    println!("connected, {} available", limit.available());
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
