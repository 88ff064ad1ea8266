//! A room with sockudo-ws 3.1 and its `PubSub`, on a current-thread tokio.
//!
//! Whoever is at `/room` sends each message by itself; `/room-batched` feeds the stream with what is
//! there, and flushes once nothing is left.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use peers::server;
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::pubsub::PubSub;
use sockudo_ws::{Config, Error, Message, Result, WebSocketStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::{select, task};

const TOPIC: &str = "room";

fn main() -> std::io::Result<()> {
    // The crate asks for this before a runtime begins.
    sockudo_ws::init_clock();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
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
            let result = member(stream, &room, &mut heard).await;
            room.remove_subscriber(id);
            result
        }));
    }
}

async fn member(
    mut stream: TcpStream,
    room: &PubSub,
    heard: &mut UnboundedReceiver<Message>,
) -> Result<()> {
    let is_batched = open(&mut stream).await?;
    let config = Config::builder().max_payload_length(server::MAX_MESSAGE).build();
    let mut socket = WebSocketStream::server(stream, config);
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

/// Answers the opening handshake, behind which the load sends nothing before it has the answer; is the
/// path that of batches?
async fn open(stream: &mut TcpStream) -> Result<bool> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(Error::ConnectionClosed);
        }
        let Some((request, _)) = parse_request(&head)? else { continue };
        let accept = generate_accept_key(request.key);
        stream.write_all(&build_response(&accept, None, None)).await?;
        return Ok(request.path.ends_with("-batched"));
    }
}
