//! A room with axum 0.8 and `tokio::sync::broadcast`, on tokio.
//!
//! Whoever is at `/room` sends each message by itself, as axum's chat example does; `/room-batched`
//! feeds the socket with what is there, and flushes once nothing is left.

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures_util::SinkExt;
use peers::server;
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

/// Messages that a member may be behind.
const CAPACITY: usize = 4096;

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let room = broadcast::channel(CAPACITY).0;
    let route = |is_batched| {
        let room = room.clone();
        any(move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(move |socket| member(socket, room, is_batched))
        })
    };
    let app = Router::new().route("/room", route(false)).route("/room-batched", route(true));
    axum::serve(TcpListener::from_std(server::listen()?)?, app).await
}

async fn member(mut socket: WebSocket, room: Sender<Message>, is_batched: bool) {
    let mut heard = room.subscribe();
    loop {
        let is_open = select! {
            said = socket.recv() => match said {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    room.send(message).is_ok()
                }
                Some(Ok(_)) => true,
                _ => false,
            },
            message = heard.recv() => match message {
                Ok(message) if is_batched => feed(&mut socket, message, &mut heard).await,
                Ok(message) => socket.send(message).await.is_ok(),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => false,
            },
        };
        if !is_open {
            return;
        }
    }
}

async fn feed(socket: &mut WebSocket, first: Message, heard: &mut Receiver<Message>) -> bool {
    let mut next = Some(first);
    while let Some(message) = next {
        if socket.feed(message).await.is_err() {
            return false;
        }
        next = heard.try_recv().ok();
    }
    socket.flush().await.is_ok()
}
