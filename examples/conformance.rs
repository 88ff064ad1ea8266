//! The servers that conformance suites and benchmarks talk to.
//!
//! ```text
//! cargo run --release --example conformance -- 127.0.0.1:9001
//! ```
//!
//! `/echo` takes messages up to 64 MiB, as Autobahn's 9.* cases need; `/default` has the default
//! options, limits included.

mod support;

use tidewire::{RequestContext, Server, WebSocketOptions};

const MAX_MESSAGE: usize = 64 << 20;

/// Cases 9.3.* send 4 MiB in fragments of 64 bytes.
const MAX_FRAGMENTS: usize = 1 << 17;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/echo", |ctx| {
        let options = WebSocketOptions::default();
        echo(ctx, options.max_message_size(MAX_MESSAGE).max_fragments(MAX_FRAGMENTS))
    });
    server.get("/default", |ctx| echo(ctx, WebSocketOptions::default()));
    support::serve(server).await
}

async fn echo(mut ctx: RequestContext, options: WebSocketOptions) -> tide::Result<()> {
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    // An echo asks nothing more of the request, so its memory is free while the socket is open.
    drop(ctx);
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
