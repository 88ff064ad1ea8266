//! yawc 0.5 as in `yawc.rs`, with permessage-deflate: 15 bits and no threshold.
//!
//! The path ends with what happens to the contexts, `-deflate` (no takeover) or `-takeover`, and
//! begins with the handler: `/echo-` sends every answer by itself, `/batched-` flushes up to 32 at once
//! as `yawc_batched.rs` does, `/pooled-` echoes with contexts borrowed from the crate's pool instead of
//! one per connection, `/plain-` compresses no answer.

use std::future::ready;

use futures_util::{FutureExt, SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::server;
use tokio::net::TcpListener;
use tokio::task;
use yawc::{CompressionLevel, DeflateOptions, DeflatePool};
use yawc::{OpCode, Options, UpgradeFut, WebSocket};

/// Most messages answered by one flush.
const BATCH: usize = 32;
/// Contexts kept by the pool, as in the crate's documentation.
const POOL: usize = 64;

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let pool = DeflatePool::new(POOL);
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let pool = pool.clone();
        let service = service_fn(move |mut request| ready(answer(&mut request, &pool)));
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        task::spawn(connection);
    }
}

fn answer(
    request: &mut Request<Incoming>,
    pool: &DeflatePool,
) -> yawc::Result<Response<Empty<Bytes>>> {
    let path = request.uri().path();
    let takeover = path.ends_with("-takeover");
    let batch = if path.starts_with("/batched-") { BATCH } else { 1 };
    let deflate = DeflateOptions {
        level: CompressionLevel::new(server::deflate_level()),
        server_no_context_takeover: !takeover,
        client_no_context_takeover: !takeover,
        compression_threshold: if path.starts_with("/plain-") { usize::MAX } else { 0 },
        pool: path.starts_with("/pooled-").then(|| pool.clone()),
        ..DeflateOptions::default()
    };
    let options = Options::default().with_limits(server::MAX_MESSAGE, 2 * server::MAX_MESSAGE);
    let options = Options { compression: Some(deflate), ..options };
    let (response, upgraded) = WebSocket::upgrade_with_options(request, options)?;
    // Without tokio's budget, as the crate's documentation does it.
    task::spawn(task::unconstrained(echo(upgraded, batch)));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut, batch: usize) -> yawc::Result<()> {
    let mut socket = upgraded.await?;
    while let Some(mut frame) = socket.next().await {
        for left in (0..batch).rev() {
            if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
                socket.feed(frame).await?;
            }
            if left == 0 {
                break;
            }
            let Some(Some(next)) = socket.next().now_or_never() else { break };
            frame = next;
        }
        socket.flush().await?;
    }
    Ok(())
}
