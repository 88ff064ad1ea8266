//! A chat among numbered users, and HTTP routes that inspect it meanwhile.
//!
//! ```text
//! cargo run --release --example das_chat
//! websocat ws://127.0.0.1:8080/chat
//! curl http://127.0.0.1:8080/clients
//! curl http://127.0.0.1:8080/ping
//! ```

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewire::{Hub, RequestContext, Result, Room, Server, WebSocket, WebSocketOptions};

#[derive(Clone)]
pub(crate) struct Chat {
    room: Room,
    /// The number of users so far, so that no number is given twice.
    users: Arc<AtomicUsize>,
}

#[async_std::main]
async fn main() -> Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server().bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

pub(crate) fn server() -> Server<Chat> {
    let chat = Chat { room: Hub::new().room("chat"), users: Arc::default() };
    let mut server = Server::with_state(chat);
    server.get("/chat", visit);
    server.get("/clients", |ctx: RequestContext<Chat>| async move {
        Ok(ctx.state().room.len().to_string())
    });
    server.get("/ping", |_ctx: RequestContext<Chat>| async { Ok("pong") });
    server
}

async fn visit(mut ctx: RequestContext<Chat>) -> tidewire::HandlerResult {
    let Chat { room, users } = ctx.state().clone();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let user = format!("user_{}", users.fetch_add(1, Ordering::Relaxed) + 1);
    let member = room.join(&ws);
    room.broadcast_except(ws.id(), format!("{user} joined"));
    let end = talk(&mut ws, &room, &user).await;
    // The others are told, after any kind of end.
    drop(member);
    room.broadcast(format!("{user} left"));
    Ok(end?)
}

async fn talk(ws: &mut WebSocket, room: &Room, user: &str) -> Result<()> {
    ws.send(format!("welcome {user}")).await?;
    while let Some(message) = ws.recv().await? {
        if let Some(text) = message.as_text() {
            room.broadcast_except(ws.id(), format!("{user}: {text}"));
            ws.send(format!("echo: {text}")).await?;
        }
    }
    Ok(())
}
