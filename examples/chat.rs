//! A chat with rooms, names, lists of members, and a page for users.
//!
//! ```text
//! cargo run --release --example chat
//! ```
//!
//! Then open <http://127.0.0.1:8080/>, in two windows.
//!
//! Messages on `/ws` are JSON. Each client starts in the room `lobby`, as `User1`, `User2` and so on. A client
//! that does not ask for another room or name does not need to know that there are any.
//!
//! | a client sends | the room is sent, the client included |
//! | --- | --- |
//! | (it joins) | `{"type":"join","username":"User1","count":1}` |
//! | `{"type":"message","text":"Hi"}` | `{"type":"message","username":"User1","text":"Hi","timestamp":1.5}` |
//! | `{"type":"setname","username":"Ada"}` | `{"type":"rename","old":"User1","new":"Ada"}` |
//! | (it leaves) | `{"type":"leave","username":"Ada","count":0}` |
//!
//! | a client sends | only this client is sent |
//! | --- | --- |
//! | `{"type":"enter","room":"tea"}` | `{"type":"enter","room":"tea"}`, between a `leave` here and a `join` there |
//! | `{"type":"who"}` | `{"type":"who","room":"tea","username":"Ada","members":["Ada"]}` |
//! | `{"type":"rooms"}` | `{"type":"rooms","rooms":[{"room":"tea","count":1}]}` |
//! | invalid JSON, or a missing key | `{"error":"Invalid message"}` |
//! | another type | nothing |
//!
//! `/ws?room=tea&username=Ada` starts in that room, with that name. Names of users and rooms are trimmed and cut
//! to 32 characters. The second Ada in a room is `Ada (2)`.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! serde = { version = "1", features = ["derive"] }
//! ```

use std::collections::HashSet;
use std::env;
use std::iter;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidewire::deflate::DeflateOptions;
use tidewire::limits::{ConnectionLimit, RateLimit};
use tidewire::rooms::{Membership, RoomOptions, SlowConsumer};
use tidewire::tide::{Body, http::mime};
use tidewire::{Error, Hub, Message, RequestContext, Room, Sender, Server, WebSocketOptions};

const LOBBY: &str = "lobby";

/// Largest number of characters in the name of a user or a room.
const MAX_NAME: usize = 32;

/// Largest number of rooms in the answer to `rooms`.
const MAX_ROOMS: usize = 100;

const INVALID: &str = r#"{"error":"Invalid message"}"#;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server().bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

pub(crate) fn server() -> Server<Chat> {
    let mut server = Server::with_state(Chat::new());
    server.connection_limit(&ConnectionLimit::per_address(5_000));
    server.connection_limit(&ConnectionLimit::new(10_000));
    server.get("/", page);
    server.get("/ws", visit);
    server.get("/metrics", tidewire::server::metrics);
    server
}

/// Options for the connections. The longest message of the page fits into the size, with any characters, and no user
/// types faster than the rate.
fn options() -> WebSocketOptions {
    WebSocketOptions::default()
        .max_message_size(32 << 10)
        .deflate(DeflateOptions::default())
        .rate_limit(RateLimit::default())
}

async fn page(_ctx: RequestContext<Chat>) -> tidewire::HandlerResult<Body> {
    let mut page = Body::from(include_str!("chat.html"));
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn visit(mut ctx: RequestContext<Chat>) -> tidewire::HandlerResult {
    let wish: Wish = ctx.query().unwrap_or_default();
    let mut ws = ctx.upgrade_to_websocket(options()).await?;
    let mut guest = Guest::arrive(ctx.state(), ws.sender(), wish);
    loop {
        match ws.recv_json().await {
            Ok(Some(Said::Message { text })) => guest.say(&text),
            Ok(Some(Said::Setname { username })) => guest.rename(username),
            Ok(Some(Said::Enter { room: Name(room) })) => {
                guest.leave();
                ws.send(Told::Enter { room: &room }).await?;
                guest.enter(&room);
            }
            Ok(Some(Said::Who)) => guest.who(),
            Ok(Some(Said::Rooms)) => ws.send(ctx.state().rooms()).await?,
            Ok(Some(Said::Other)) => {}
            Ok(None) => return Ok(()),
            Err(Error::Json(_)) => ws.send(INVALID).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The wishes of a client in the address that it connects to.
#[derive(Default, Deserialize)]
struct Wish {
    room: Option<Name>,
    username: Option<Name>,
}

/// A message of a client.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said {
    Message {
        text: String,
    },
    Setname {
        username: Name,
    },
    Enter {
        room: Name,
    },
    Who,
    Rooms,
    #[serde(other)]
    Other,
}

/// A message to clients.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Told<'a> {
    Join { username: &'a str, count: usize },
    Message { username: &'a str, text: &'a str, timestamp: f64 },
    Rename { old: &'a str, new: &'a str },
    Leave { username: &'a str, count: usize },
    Enter { room: &'a str },
    Who { room: &'a str, username: &'a str, members: Vec<&'a str> },
    Rooms { rooms: Vec<Listed> },
}

#[derive(Serialize)]
struct Listed {
    room: String,
    count: usize,
}

impl From<Told<'_>> for Message {
    fn from(told: Told<'_>) -> Self {
        // Strings and numbers always have a JSON form.
        Self::json(&told).unwrap_or_else(|_| Self::from(INVALID))
    }
}

/// The name of a user or a room: one line, not blank, and not too long.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let visible: String = name.chars().filter(|char| !is_invisible(*char)).collect();
        let words: Vec<&str> = visible.split_whitespace().collect();
        let name: String = words.join(" ").chars().take(MAX_NAME).collect();
        if name.is_empty() {
            return Err("the name is blank");
        }
        Ok(Self(name.trim_end().to_owned()))
    }
}

/// Whether the character is invisible, so that names that differ only in it look the same.
fn is_invisible(char: char) -> bool {
    (char.is_control() && !char.is_whitespace())
        || matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The rooms, with the names of their members.
#[derive(Clone)]
pub(crate) struct Chat {
    hub: Hub<String>,
    /// The number of users so far, so that no number is given twice.
    users: Arc<AtomicU64>,
    /// Held by a client that joins, leaves or changes its name, so that counts are right and names unique. It is not
    /// needed to send messages.
    door: Arc<Mutex<()>>,
}

impl Chat {
    fn new() -> Self {
        // A client that missed a join or leave would have a wrong list of members. So it is closed, and reconnects.
        let options = RoomOptions::default().slow_consumer(SlowConsumer::Close);
        Self { hub: Hub::with_options(options), users: Arc::default(), door: Arc::default() }
    }

    fn door(&self) -> MutexGuard<'_, ()> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms(&self) -> Told<'static> {
        let rooms = self.hub.rooms().into_iter().take(MAX_ROOMS);
        let rooms = rooms.map(|room| Listed { room: room.name().to_owned(), count: room.len() });
        Told::Rooms { rooms: rooms.collect() }
    }
}

/// A connection and its place in a room. When it is dropped, it leaves, and the others are told.
struct Guest {
    chat: Chat,
    ws: Sender,
    /// The name that the client has asked for.
    wanted: String,
    /// The name in this room.
    name: String,
    room: Room<String>,
    place: Option<Membership<String>>,
}

impl Guest {
    fn arrive(chat: &Chat, ws: Sender, wish: Wish) -> Self {
        let number = chat.users.fetch_add(1, Ordering::Relaxed) + 1;
        let wanted = wish.username.map_or_else(|| format!("User{number}"), |Name(name)| name);
        let room = chat.hub.room(wish.room.as_ref().map_or(LOBBY, |Name(room)| room));
        let mut guest =
            Self { chat: chat.clone(), ws, wanted, name: String::new(), room, place: None };
        guest.join();
        guest
    }

    fn enter(&mut self, room: &str) {
        self.room = self.chat.hub.room(room);
        self.join();
    }

    fn join(&mut self) {
        let _door = self.chat.door();
        self.name = self.vacant_name();
        self.place = Some(self.room.join_with(self.ws.clone(), self.name.clone()));
        self.room.broadcast(Told::Join { username: &self.name, count: self.room.len() });
    }

    fn rename(&mut self, Name(wanted): Name) {
        let _door = self.chat.door();
        self.wanted = wanted;
        let new = self.vacant_name();
        let old = mem::replace(&mut self.name, new);
        // A client that joins again gives up its earlier place, and misses nothing in between.
        self.place = Some(self.room.join_with(self.ws.clone(), self.name.clone()));
        self.room.broadcast(Told::Rename { old: &old, new: &self.name });
    }

    /// The wanted name, with a number if another member of the room has it.
    fn vacant_name(&self) -> String {
        let mut others = self.room.members();
        others.retain(|(id, _)| *id != self.ws.id());
        let taken: HashSet<String> = others.iter().map(|(_, name)| name.to_lowercase()).collect();
        let numbered = (2..=taken.len() + 1).map(|number| format!("{} ({number})", self.wanted));
        // One of these names is free, because there are more of them than other members.
        iter::once(self.wanted.clone())
            .chain(numbered)
            .find(|name| !taken.contains(&name.to_lowercase()))
            .unwrap_or_default()
    }

    fn leave(&mut self) {
        let _door = self.chat.door();
        if self.place.take().is_some() {
            self.room.broadcast(Told::Leave { username: &self.name, count: self.room.len() });
        }
    }

    fn say(&self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = now.as_secs_f64();
        self.room.broadcast(Told::Message { username: &self.name, text, timestamp });
    }

    /// Sends the client the list of members, in order with the joins and leaves that it is sent.
    fn who(&self) {
        let _door = self.chat.door();
        let members = self.room.members();
        let told = Told::Who {
            room: self.room.name(),
            username: &self.name,
            members: members.iter().map(|(_, name)| name.as_str()).collect(),
        };
        self.room.send_to(self.ws.id(), told);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
    }
}
