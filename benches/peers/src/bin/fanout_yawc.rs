//! A room with yawc 0.5, permessage-deflate as in `yawc_deflate.rs`, and `tokio::sync::broadcast`, on
//! tokio. It is compressed for each member, for the crate has no other way.
//!
//! Whoever is at `/room-deflate` sends each message by itself, with contexts of its own. With `-pooled`
//! behind it they are borrowed from the crate's pool, and with `-batched` at the end the socket is fed
//! with what is there, and flushed once nothing is left.

use std::future::ready;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::server;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};
use tokio::{select, task};
use yawc::{CompressionLevel, DeflateOptions, DeflatePool, HttpWebSocket};
use yawc::{Frame, OpCode, Options, UpgradeFut, WebSocket};

/// Messages that a member may be behind.
const CAPACITY: usize = 4096;
/// Contexts kept by the pool, as in the crate's documentation.
const POOL: usize = 64;

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let room = broadcast::channel(CAPACITY).0;
    let pool = DeflatePool::new(POOL);
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (room, pool) = (room.clone(), pool.clone());
        let service = service_fn(move |mut request| ready(answer(&mut request, &room, &pool)));
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        task::spawn(connection);
    }
}

fn answer(
    request: &mut Request<Incoming>,
    room: &Sender<Frame>,
    pool: &DeflatePool,
) -> yawc::Result<Response<Empty<Bytes>>> {
    let path = request.uri().path();
    let is_batched = path.ends_with("-batched");
    let deflate = DeflateOptions {
        level: CompressionLevel::new(server::deflate_level()),
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        compression_threshold: 0,
        pool: path.contains("-pooled").then(|| pool.clone()),
        ..DeflateOptions::default()
    };
    let options = Options::default().with_limits(server::MAX_MESSAGE, 2 * server::MAX_MESSAGE);
    let options = Options { compression: Some(deflate), ..options };
    let (response, upgraded) = WebSocket::upgrade_with_options(request, options)?;
    // Without tokio's budget, as the crate's documentation does it.
    task::spawn(task::unconstrained(member(upgraded, room.clone(), is_batched)));
    Ok(response)
}

async fn member(upgraded: UpgradeFut, room: Sender<Frame>, is_batched: bool) -> yawc::Result<()> {
    let mut socket = upgraded.await?;
    let mut heard = room.subscribe();
    loop {
        select! {
            said = socket.next() => match said {
                Some(frame) if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) => {
                    // Whoever says something hears it, so somebody does.
                    let _ = room.send(frame);
                }
                Some(_) => {}
                None => return Ok(()),
            },
            frame = heard.recv() => match frame {
                Ok(frame) if is_batched => feed(&mut socket, frame, &mut heard).await?,
                Ok(frame) => socket.send(frame).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

async fn feed(
    socket: &mut HttpWebSocket,
    first: Frame,
    heard: &mut Receiver<Frame>,
) -> yawc::Result<()> {
    let mut next = Some(first);
    while let Some(frame) = next {
        socket.feed(frame).await?;
        next = heard.try_recv().ok();
    }
    socket.flush().await
}
