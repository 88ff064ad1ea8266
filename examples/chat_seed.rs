//! The smallest chats: one room for all, and rooms whose members are local variables.
//!
//! ```text
//! cargo run --release --example chat_seed
//! websocat ws://127.0.0.1:8080/ws?user=ada
//! websocat ws://127.0.0.1:8080/rooms/tea
//! ```
//!
//! At `/ws` all clients see joins, leaves and messages, with names. At `/rooms/NAME` a client has no name until
//! it sends `/name ada`.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! serde = { version = "1", features = ["derive"] }
//! ```

use std::env;
use std::time::Instant;

use serde::Deserialize;
use tidewire::{Hub, RequestContext, Result, Room, Server, WebSocket, WebSocketOptions};

#[async_std::main]
async fn main() -> Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server().bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

pub(crate) fn server() -> Server<Hub> {
    let mut server = Server::with_state(Hub::new());
    server.get("/ws", visit);
    server.get("/rooms/:room", visit_unnamed);
    server
}

#[derive(Deserialize)]
struct Query {
    user: String,
}

async fn visit(mut ctx: RequestContext<Hub>) -> tidewire::HandlerResult {
    let Query { user } = ctx.query()?;
    let room = ctx.state().room("chat");
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let member = room.join(&ws);
    room.broadcast(format!("{user} joined"));
    let end = talk(&mut ws, &room, &user).await;
    // The others are told, after any kind of end.
    drop(member);
    room.broadcast(format!("{user} left"));
    Ok(end?)
}

async fn talk(ws: &mut WebSocket, room: &Room, user: &str) -> Result<()> {
    while let Some(message) = ws.recv().await? {
        if let Some(text) = message.as_text() {
            room.broadcast(format!("{user}: {text}"));
        }
    }
    Ok(())
}

async fn visit_unnamed(mut ctx: RequestContext<Hub>) -> tidewire::HandlerResult {
    let room = ctx.state().room(&ctx.param::<String>("room")?);
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    // Local variables are the state of a connection, and end with it.
    let _member = room.join(&ws);
    let joined_at = Instant::now();
    let mut username: Option<String> = None;

    while let Some(message) = ws.recv().await? {
        let Some(text) = message.as_text() else { continue };
        if let Some(name) = text.strip_prefix("/name ") {
            username = Some(name.trim().to_owned());
        } else {
            room.broadcast(format!("{}: {text}", username.as_deref().unwrap_or("Anonymous")));
        }
    }
    let name = username.as_deref().unwrap_or("Anonymous");
    println!("{name} was in {} for {:?}", room.name(), joined_at.elapsed());
    Ok(())
}
