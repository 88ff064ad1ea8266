//! sockudo-ws 3.1 on tokio, with permessage-deflate, 15 bits and no threshold, and its own opening
//! handshake.
//!
//! The path ends with what happens to the contexts, `-deflate` (no takeover) or `-takeover`, and
//! begins with the handler: `/echo-` sends every answer by itself, `/batched-` feeds them to the
//! stream, which writes before it waits for more, `/plain-` compresses no answer.

use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use peers::server;
use sockudo_ws::deflate::negotiate_server_deflate;
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::{CompressedWebSocketStream, Config, DeflateConfig, Error, Message, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task;

fn main() -> std::io::Result<()> {
    // The crate asks for this before a runtime begins.
    sockudo_ws::init_clock();
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Without tokio's budget, as yawc and tokio-websockets are run.
        task::spawn(task::unconstrained(connection(stream)));
    }
}

async fn connection(mut stream: TcpStream) -> Result<()> {
    let Opening { deflate, is_batched, leftover } = open(&mut stream).await?;
    let config = Config::builder().max_payload_length(server::MAX_MESSAGE).build();
    let leftover = Some(leftover);
    let mut socket =
        CompressedWebSocketStream::server_with_leftover(stream, config, deflate, leftover);
    while let Some(message) = socket.next().await.transpose()? {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            if is_batched {
                socket.feed(message).await?;
            } else {
                socket.send(message).await?;
            }
        }
    }
    Ok(())
}

/// What a handshake has settled.
struct Opening {
    deflate: DeflateConfig,
    is_batched: bool,
    /// Bytes behind the request.
    leftover: Bytes,
}

async fn open(stream: &mut TcpStream) -> Result<Opening> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(Error::ConnectionClosed);
        }
        let Some((request, len)) = parse_request(&head)? else { continue };
        let takeover = request.path.ends_with("-takeover");
        let policy = DeflateConfig {
            server_no_context_takeover: !takeover,
            client_no_context_takeover: !takeover,
            compression_level: server::deflate_level(),
            compression_threshold: if request.path.starts_with("/plain-") { usize::MAX } else { 0 },
            ..DeflateConfig::default()
        };
        let agreed = negotiate_server_deflate(request.extensions.unwrap_or_default(), &policy)
            .ok_or(Error::HandshakeFailed("no offer of permessage-deflate"))?;
        let accept = generate_accept_key(request.key);
        let answer = build_response(&accept, None, Some(&agreed.to_response_header()));
        stream.write_all(&answer).await?;
        return Ok(Opening {
            deflate: agreed.config,
            is_batched: request.path.starts_with("/batched-"),
            leftover: Bytes::copy_from_slice(&head[len..]),
        });
    }
}
