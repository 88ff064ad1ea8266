//! A room that passes the messages of each client on to the others.
//!
//! ```text
//! cargo run --release --example broadcast
//! websocat ws://127.0.0.1:8080/ws
//! ```
//!
//! All clients are in one room. A message of a client at `/ws` goes to all clients, its sender included. A
//! message of a client at `/except` goes to all clients but its sender, as `User says: …`.

use std::env;

use tidewire::websocket::ConnectionId;
use tidewire::{Hub, Message, RequestContext, Room, Server, WebSocket};
use tidewire::{Result, WebSocketOptions};

#[async_std::main]
async fn main() -> Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server().bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

pub(crate) fn server() -> Server<Room> {
    let mut server = Server::with_state(Hub::new().room("all"));
    server.get("/ws", |ctx| visit(ctx, to_all));
    server.get("/except", |ctx| visit(ctx, to_others));
    server
}

/// Passes a message on to the members of the room.
type PassOn = fn(&Room, ConnectionId, &Message);

fn to_all(room: &Room, _sender: ConnectionId, message: &Message) {
    room.broadcast(message.clone());
}

fn to_others(room: &Room, sender: ConnectionId, message: &Message) {
    if let Some(text) = message.as_text() {
        room.broadcast_except(sender, format!("User says: {text}"));
    }
}

async fn visit(mut ctx: RequestContext<Room>, pass_on: PassOn) -> tidewire::HandlerResult {
    let room = ctx.state().clone();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let member = room.join(&ws);
    println!("Client connected: {} total", room.len());
    let end = talk(&mut ws, &room, pass_on).await;
    drop(member);
    println!("Client disconnected: {} remaining", room.len());
    Ok(end?)
}

async fn talk(ws: &mut WebSocket, room: &Room, pass_on: PassOn) -> Result<()> {
    while let Some(message) = ws.recv().await? {
        pass_on(room, ws.id(), &message);
    }
    Ok(())
}
