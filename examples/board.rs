//! Boards of notes that several people share: the program of the tutorial, `guide::building`.
//!
//! Dependencies:
//!
//! ```toml
//! [dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! getrandom = "0.4"
//! serde = { version = "1", features = ["derive"] }
//! tidewire = "0.1"
//!
//! [dev-dependencies]
//! serde_json = "1"
//! tidewire = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```text
//! cargo run --release --example board
//! curl -i -d '{"name":"ada"}' http://127.0.0.1:8080/login
//! cargo run --example client -- --header 'Cookie: session=…' ws://127.0.0.1:8080/boards/plans
//! ```

use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidewire::server::ServerOptions;
use tidewire::tide::{Response, StatusCode};
use tidewire::{HandlerResult, Hub, Message, Reject, RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server().bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

fn server() -> Server<App> {
    let options =
        ServerOptions::default().trusted_proxies(["127.0.0.1"]).client_ip_header("X-Forwarded-For");
    let app = App { sessions: Arc::default(), boards: Hub::with_rooms(|_name| Board::default()) };
    let mut server = Server::with_state(app);
    server.options(options);
    server.post("/login", login);
    server.get("/boards/:board", board);
    server
}

/// What handlers share. Clones are of the same things.
#[derive(Clone)]
struct App {
    /// Who is logged in, by the token in the cookie.
    sessions: Arc<Mutex<HashMap<String, String>>>,
    /// A room for each board. A member is a name, and the state of a room is its board.
    boards: Hub<String, Board>,
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

async fn login(mut ctx: RequestContext<App>) -> HandlerResult<Response> {
    let Login { name } = ctx.body_json().await?;
    if name.is_empty() || name.len() > 40 {
        return Err(Reject::status(400, "a name has 1 to 40 bytes").into());
    }
    // A real program checks a password here.
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let token = format!("{:032x}", u128::from_le_bytes(bytes));
    let cookie = format!("session={token}; Path=/; HttpOnly; SameSite=Lax");
    let sessions = &ctx.state().sessions;
    sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(token, name);
    Ok(Response::builder(StatusCode::NoContent).header("Set-Cookie", cookie).build())
}

/// The name of the user who sent a request.
fn user(ctx: &RequestContext<App>) -> HandlerResult<String> {
    let token = ctx.cookie("session").unwrap_or_default();
    let sessions = ctx.state().sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let name = sessions.get(token).cloned();
    Ok(name.ok_or(Reject::status(401, "log in first"))?)
}

#[derive(Default)]
struct Board {
    notes: Vec<Note>,
}

#[derive(Clone, Serialize)]
struct Note {
    by: String,
    text: String,
}

/// What a page may send.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Asked {
    Add { text: String },
    Clear,
}

/// What a page is told.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    // The board as it is: what one who comes is told first.
    Board { notes: Vec<Note> },
    Added { note: Note },
    Cleared { by: String },
    Full,
}

impl From<Told> for Message {
    fn from(told: Told) -> Self {
        // Texts and lists always have a JSON form.
        Self::json(&told).unwrap_or_else(|_| Self::text("{}"))
    }
}

async fn board(mut ctx: RequestContext<App>) -> HandlerResult {
    let name = user(&ctx)?;
    let room = ctx.state().boards.room(&ctx.param::<String>("board")?);
    let options = WebSocketOptions::default().max_message_size(4096);
    let mut ws = ctx.upgrade_to_websocket(options).await?.typed::<Asked, Told>();

    // In one step: nothing that is added is missed, and nothing comes twice.
    let member = room.join_then(ws.sender(), name, |board, member| {
        member.send(Told::Board { notes: board.notes.clone() });
    })?;
    while let Some(asked) = ws.recv().await? {
        let by = member.user().to_string();
        // All changes of a board are in one order, and all members are told in that order.
        let is_done = room.update(|board, room| match asked {
            Asked::Add { .. } if board.notes.len() >= 100 => false,
            Asked::Add { text } => {
                let note = Note { by, text };
                board.notes.push(note.clone());
                room.broadcast(Told::Added { note });
                true
            }
            Asked::Clear => {
                board.notes.clear();
                room.broadcast(Told::Cleared { by });
                true
            }
        })?;
        if !is_done {
            ws.send(&Told::Full).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewire::testing::{TestClient, TestSocket};

    use super::*;

    /// A client who is logged in: it keeps the cookie.
    async fn log_in(client: &TestClient, name: &str) -> tidewire::Result<()> {
        let response = client.post("/login").json(&json!({ "name": name })).send().await?;
        response.assert_status(204);
        Ok(())
    }

    async fn open(client: &TestClient, name: &str) -> tidewire::Result<TestSocket> {
        log_in(client, name).await?;
        client.connect("/boards/plans").await
    }

    #[async_std::test]
    async fn who_comes_late_is_told_the_board_and_then_what_is_new() -> tidewire::Result<()> {
        let client = TestClient::new(&server());
        let mut ada = open(&client, "ada").await?;
        ada.expect_json(json!({ "type": "board", "notes": [] })).await;
        ada.send_json(&json!({ "type": "add", "text": "tea" })).await?;
        let note = json!({ "by": "ada", "text": "tea" });
        ada.expect_json(json!({ "type": "added", "note": note })).await;

        let mut grace = open(&client, "grace").await?;
        grace.expect_json(json!({ "type": "board", "notes": [note] })).await;
        grace.send_json(&json!({ "type": "clear" })).await?;
        for ws in [&mut ada, &mut grace] {
            ws.expect_json(json!({ "type": "cleared", "by": "grace" })).await;
        }
        Ok(())
    }

    #[async_std::test]
    async fn a_stranger_and_a_message_that_makes_no_sense_are_refused() -> tidewire::Result<()> {
        let client = TestClient::new(&server());
        let refused = client.websocket("/boards/plans").refused().await;
        refused.assert_status(401).assert_text("log in first");
        client.post("/login").body("{}").send().await?.assert_status(400);

        let mut ada = open(&client, "ada").await?;
        ada.expect_json(json!({ "type": "board", "notes": [] })).await;
        ada.send("make it so").await?;
        ada.expect_close(1007).await;
        Ok(())
    }
}
