//! A room with sockudo-ws 3.1 and its `PubSub`, on tokio.
//!
//! Whoever is at `/room` sends each message by itself; `/room-batched` feeds the stream with what is
//! there, and flushes once nothing is left. `/room-deflate` and `/room-deflate-batched` are the same with
//! permessage-deflate as in `sockudo_deflate.rs`: for each member, for the `PubSub` passes on messages.

use std::sync::Arc;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use peers::server;
use sockudo_ws::deflate::{DeflateNegotiation, negotiate_server_deflate};
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::pubsub::PubSub;
use sockudo_ws::{CompressedWebSocketStream, DeflateConfig, WebSocketStream};
use sockudo_ws::{Config, Error, Message, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::{select, task};

const TOPIC: &str = "room";

fn main() -> std::io::Result<()> {
    // The crate asks for this before a runtime begins.
    sockudo_ws::init_clock();
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::from_std(server::listen()?)?;
    let room = Arc::new(PubSub::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let room = Arc::clone(&room);
        // Without tokio's budget, as yawc and tokio-websockets are run.
        task::spawn(task::unconstrained(async move {
            let (tell, mut heard) = mpsc::unbounded_channel();
            let id = room.create_subscriber(tell);
            room.subscribe(id, TOPIC);
            let result = connection(stream, &room, &mut heard).await;
            room.remove_subscriber(id);
            result
        }));
    }
}

async fn connection(
    mut stream: TcpStream,
    room: &PubSub,
    heard: &mut UnboundedReceiver<Message>,
) -> Result<()> {
    let Opening { deflate, is_batched } = open(&mut stream).await?;
    let config = Config::builder().max_payload_length(server::MAX_MESSAGE).build();
    if let Some(deflate) = deflate {
        let socket = CompressedWebSocketStream::server(stream, config, deflate);
        return member(socket, room, heard, is_batched).await;
    }
    member(WebSocketStream::server(stream, config), room, heard, is_batched).await
}

async fn member<S>(
    mut socket: S,
    room: &PubSub,
    heard: &mut UnboundedReceiver<Message>,
    is_batched: bool,
) -> Result<()>
where
    S: Stream<Item = Result<Message>> + Sink<Message, Error = Error> + Unpin,
{
    loop {
        select! {
            said = socket.next() => match said.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => {
                    room.publish(TOPIC, message);
                }
                Some(_) => {}
                None => return Ok(()),
            },
            Some(message) = heard.recv() => {
                if is_batched {
                    let mut next = Some(message);
                    while let Some(message) = next {
                        socket.feed(message).await?;
                        next = heard.try_recv().ok();
                    }
                    socket.flush().await?;
                } else {
                    socket.send(message).await?;
                }
            }
        }
    }
}

/// What a handshake has settled.
struct Opening {
    deflate: Option<DeflateConfig>,
    is_batched: bool,
}

/// Answers the opening handshake, behind which the load sends nothing before it has the answer.
async fn open(stream: &mut TcpStream) -> Result<Opening> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(Error::ConnectionClosed);
        }
        let Some((request, _)) = parse_request(&head)? else { continue };
        let offer = request.extensions.unwrap_or_default();
        let agreed = request.path.starts_with("/room-deflate").then(|| {
            negotiate_server_deflate(offer, &no_takeover())
                .ok_or(Error::HandshakeFailed("no offer of permessage-deflate"))
        });
        let agreed = agreed.transpose()?;
        let extension = agreed.as_ref().map(DeflateNegotiation::to_response_header);
        let accept = generate_accept_key(request.key);
        stream.write_all(&build_response(&accept, None, extension.as_deref())).await?;
        let is_batched = request.path.ends_with("-batched");
        return Ok(Opening { deflate: agreed.map(|agreed| agreed.config), is_batched });
    }
}

fn no_takeover() -> DeflateConfig {
    DeflateConfig {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        compression_level: server::deflate_level(),
        compression_threshold: 0,
        ..DeflateConfig::default()
    }
}
