//! What the systems that tidewire stands on do with many clients, over TCP, to the letter.
//!
//! Each test is named after its row in the list of their examples: D of dasHV, C of cnetmod, P of
//! pymongoose. Where the row is a program in `examples/`, that program is what is tested.

#![allow(dead_code, reason = "what only the `main` of an example needs")]
#![expect(clippy::duplicate_mod, reason = "each example brings what all examples share")]

use std::io::Read;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewire::{Hub, RequestContext, Server, WebSocketOptions};

use crate::http::serve;
use crate::ws::frames::{BINARY, CLOSE, TEXT, close, masked};
use crate::ws::tcp::Tcp;

#[path = "../../examples/broadcast.rs"]
mod broadcast;

#[path = "../../examples/chat.rs"]
mod chat;

#[path = "../../examples/chat_seed.rs"]
mod chat_seed;

#[path = "../../examples/das_chat.rs"]
mod das_chat;

const NORMAL: u16 = 1000;

/// A WebSocket client that says and hears text.
struct Client(Tcp);

impl Client {
    fn open(addr: SocketAddr, path: &str) -> Self {
        Self(Tcp::upgraded_at(addr, path))
    }

    fn says(&mut self, text: &str) {
        self.0.send(masked(TEXT, text));
    }

    /// The next message is this one.
    fn hears(&mut self, text: &str) {
        assert_eq!(self.next(), text);
    }

    fn next(&mut self) -> String {
        let frame = self.0.frame();
        assert_eq!(frame.head, TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// Closes, and hears nothing more than the answer.
    fn closes(mut self) {
        self.0.send(masked(CLOSE, close(NORMAL, "")));
        let frame = self.0.frame();
        assert_eq!(frame.close_code(), Some(NORMAL), "{frame:?}");
        self.0.expect_end();
    }
}

fn all_hear<const N: usize>(clients: [&mut Client; N], text: &str) {
    for client in clients {
        client.hears(text);
    }
}

/// The body of the answer to a request.
fn get(addr: SocketAddr, path: &str) -> String {
    let mut client = Tcp::connect(addr);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let mut answer = String::new();
    client.socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

#[test]
fn d1_a_chat_of_numbered_users_beside_http_routes() {
    let addr = serve(das_chat::server());
    let mut alice = Client::open(addr, "/chat");
    alice.hears("welcome user_1");
    alice.says("hello server!");
    alice.hears("echo: hello server!");

    let mut bob = Client::open(addr, "/chat");
    bob.hears("welcome user_2");
    alice.hears("user_2 joined");
    bob.says("hi everyone!");
    bob.hears("echo: hi everyone!");
    alice.hears("user_2: hi everyone!");
    assert_eq!(get(addr, "/clients"), "2");
    assert_eq!(get(addr, "/ping"), "pong");

    let mut carol = Client::open(addr, "/chat");
    carol.hears("welcome user_3");
    all_hear([&mut alice, &mut bob], "user_3 joined");
    carol.closes();
    all_hear([&mut alice, &mut bob], "user_3 left");

    let closed = Instant::now();
    alice.closes();
    bob.hears("user_1 left");
    bob.closes();
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
}

#[test]
fn c2_every_message_goes_to_all_including_the_sender() {
    let addr = serve(broadcast::server());
    // Who hears itself is in the room.
    let mut one = Client::open(addr, "/ws");
    one.says("1");
    one.hears("1");
    let mut two = Client::open(addr, "/ws");
    two.says("2");
    all_hear([&mut one, &mut two], "2");
    let mut three = Client::open(addr, "/ws");
    three.says("3");
    all_hear([&mut one, &mut two, &mut three], "3");

    two.0.send(masked(BINARY, [0, 255]));
    for client in [&mut one, &mut two, &mut three] {
        let frame = client.0.frame();
        assert_eq!((frame.head, frame.payload), (BINARY, vec![0, 255]));
    }
}

#[test]
fn c8_a_chat_room_tells_who_joins_talks_and_leaves() {
    let addr = serve(chat_seed::server());
    let mut ada = Client::open(addr, "/ws?user=ada");
    ada.hears("ada joined");
    let mut bob = Client::open(addr, "/ws?user=bob");
    all_hear([&mut ada, &mut bob], "bob joined");
    ada.says("hi");
    all_hear([&mut ada, &mut bob], "ada: hi");
    bob.closes();
    ada.hears("bob left");
}

#[test]
fn p1_an_echo_that_counts_its_clients() {
    let (print, printed) = channel();
    let addr = serve(echo_server(print));
    let next = |printed: &Receiver<String>| printed.recv_timeout(Duration::from_secs(5)).unwrap();

    let mut one = Client::open(addr, "/ws");
    one.says("t");
    one.hears("Echo: t");
    assert_eq!(next(&printed), "Client connected: 1 total");
    let mut two = Client::open(addr, "/ws");
    two.says("");
    two.hears("Echo: ");
    assert_eq!(next(&printed), "Client connected: 2 total");
    one.closes();
    assert_eq!(next(&printed), "Client disconnected: 1 remaining");
    // A client that is just gone counts as well.
    drop(two);
    assert_eq!(next(&printed), "Client disconnected: 0 remaining");
}

fn echo_server(print: Sender<String>) -> Server<Hub> {
    let mut server = Server::with_state(Hub::new());
    server.get("/ws", move |mut ctx: RequestContext<Hub>| {
        let print = print.clone();
        async move {
            let clients = ctx.state().room("clients");
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let member = clients.join(&ws);
            print.send(format!("Client connected: {} total", clients.len()))?;
            while let Ok(Some(message)) = ws.recv().await {
                let text = message.as_text().unwrap_or_default();
                ws.send(format!("Echo: {text}")).await?;
            }
            drop(member);
            print.send(format!("Client disconnected: {} remaining", clients.len()))?;
            Ok(())
        }
    });
    server
}

#[test]
fn p4_a_broadcast_excludes_the_sender() {
    let addr = serve(broadcast::server());
    // Somebody who hears all, to tell when who is there.
    let mut all = Client::open(addr, "/ws");
    all.says("0");
    all.hears("0");
    let mut one = Client::open(addr, "/except");
    one.says("1");
    all.hears("User says: 1");
    let mut two = Client::open(addr, "/except");
    two.says("2");
    all_hear([&mut all, &mut one], "User says: 2");

    one.says("t");
    all_hear([&mut all, &mut two], "User says: t");
    // Had the first message gone to its sender as well, it would come before the second.
    two.says("u");
    all_hear([&mut all, &mut one], "User says: u");
    all.says("v");
    all_hear([&mut all, &mut one, &mut two], "v");
}

#[test]
fn p7_username_and_room_are_state_of_the_connection() {
    let addr = serve(chat_seed::server());
    let mut ada = Client::open(addr, "/rooms/tea");
    ada.says("hi");
    ada.hears("Anonymous: hi");
    let mut bob = Client::open(addr, "/rooms/tea");
    bob.says("hi ada");
    all_hear([&mut ada, &mut bob], "Anonymous: hi ada");
    ada.says("/name ada");
    ada.says("hi again");
    all_hear([&mut ada, &mut bob], "ada: hi again");
    bob.says("me too");
    all_hear([&mut ada, &mut bob], "Anonymous: me too");
    let mut elsewhere = Client::open(addr, "/rooms/coffee");
    elsewhere.says("alone");
    elsewhere.hears("Anonymous: alone");
}

#[test]
fn p8_a_json_chat_room() {
    let addr = serve(chat::server());
    let mut ada = Client::open(addr, "/ws");
    ada.hears(r#"{"type":"join","username":"User1","count":1}"#);
    let mut bob = Client::open(addr, "/ws");
    all_hear([&mut ada, &mut bob], r#"{"type":"join","username":"User2","count":2}"#);

    ada.says(r#"{"type":"message","text":"Grüße \"quoted\""}"#);
    hear_message([&mut ada, &mut bob], r#""username":"User1","text":"Grüße \"quoted\"""#);
    bob.says(r#"{"type":"setname","username":"Bob"}"#);
    all_hear([&mut ada, &mut bob], r#"{"type":"rename","old":"User2","new":"Bob"}"#);
    bob.says(r#"{"type":"message","text":"hi"}"#);
    hear_message([&mut ada, &mut bob], r#""username":"Bob","text":"hi""#);

    bob.closes();
    ada.hears(r#"{"type":"leave","username":"Bob","count":1}"#);
    let mut carol = Client::open(addr, "/ws");
    all_hear([&mut ada, &mut carol], r#"{"type":"join","username":"User3","count":2}"#);
    // Not every client says good-bye.
    drop(carol);
    ada.hears(r#"{"type":"leave","username":"User3","count":1}"#);
}

#[test]
fn p8_an_invalid_message_is_answered_to_its_sender_alone() {
    let addr = serve(chat::server());
    let mut ada = Client::open(addr, "/ws");
    ada.hears(r#"{"type":"join","username":"User1","count":1}"#);
    let mut bob = Client::open(addr, "/ws");
    all_hear([&mut ada, &mut bob], r#"{"type":"join","username":"User2","count":2}"#);

    for invalid in [
        "nonsense",
        "",
        "5",
        "[]",
        "{}",
        r#"{"text":"no type"}"#,
        r#"{"type":null}"#,
        r#"{"type":0,"text":"no name of a type"}"#,
        r#"{"type":"message"}"#,
        r#"{"type":"message","text":5}"#,
        r#"{"type":"setname"}"#,
        r#"{"type":"setname","username":" \u200b\t"}"#,
        r#"{"type":"enter"}"#,
        &"[".repeat(1000),
    ] {
        ada.says(invalid);
        ada.hears(r#"{"error":"Invalid message"}"#);
    }
    ada.0.send(masked(BINARY, [0xff]));
    ada.hears(r#"{"error":"Invalid message"}"#);

    // What comes next, to either, is the message: an unknown type has no answer.
    ada.says(r#"{"type":"typing","text":5}"#);
    ada.says(r#"{"type":"message","text":"after all that"}"#);
    hear_message([&mut ada, &mut bob], r#""username":"User1","text":"after all that""#);
}

#[test]
fn p8_rooms_are_additional_message_types() {
    let addr = serve(chat::server());
    let mut ada = Client::open(addr, "/ws");
    ada.hears(r#"{"type":"join","username":"User1","count":1}"#);
    let mut bob = Client::open(addr, "/ws?room=tea&username=Bob");
    bob.hears(r#"{"type":"join","username":"Bob","count":1}"#);
    ada.says(r#"{"type":"rooms"}"#);
    ada.hears(concat!(
        r#"{"type":"rooms","rooms":[{"room":"lobby","count":1},"#,
        r#"{"room":"tea","count":1}]}"#
    ));

    // Invisible characters do not make another name, nor does the case.
    ada.says(r#"{"type":"setname","username":"  bo\u200bb "}"#);
    ada.hears(r#"{"type":"rename","old":"User1","new":"bob"}"#);
    ada.says(r#"{"type":"setname","username":"BOB"}"#);
    ada.hears(r#"{"type":"rename","old":"bob","new":"BOB"}"#);
    ada.says(r#"{"type":"enter","room":" tea "}"#);
    ada.hears(r#"{"type":"enter","room":"tea"}"#);
    all_hear([&mut ada, &mut bob], r#"{"type":"join","username":"BOB (2)","count":2}"#);
    ada.says(r#"{"type":"who"}"#);
    ada.hears(concat!(
        r#"{"type":"who","room":"tea","username":"BOB (2)","#,
        r#""members":["BOB (2)","Bob"]}"#
    ));

    // A room is gone with its last member, and so is what takes the name there.
    bob.says(r#"{"type":"enter","room":"lobby"}"#);
    bob.hears(r#"{"type":"enter","room":"lobby"}"#);
    bob.hears(r#"{"type":"join","username":"Bob","count":1}"#);
    ada.hears(r#"{"type":"leave","username":"Bob","count":1}"#);
    ada.says(r#"{"type":"setname","username":"Bob"}"#);
    ada.hears(r#"{"type":"rename","old":"BOB (2)","new":"Bob"}"#);
    ada.closes();
    bob.says(r#"{"type":"rooms"}"#);
    bob.hears(r#"{"type":"rooms","rooms":[{"room":"lobby","count":1}]}"#);
}

#[test]
fn p8_names_are_cut_to_32_characters() {
    let addr = serve(chat::server());
    let mut ada = Client::open(addr, "/ws");
    ada.hears(r#"{"type":"join","username":"User1","count":1}"#);
    ada.says(&format!(r#"{{"type":"setname","username":"{}"}}"#, "é".repeat(33)));
    ada.hears(&format!(r#"{{"type":"rename","old":"User1","new":"{}"}}"#, "é".repeat(32)));
}

/// All are told the same message, which was said now.
fn hear_message<const N: usize>(clients: [&mut Client; N], said: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for client in clients {
        let told = client.next();
        let timestamp = told
            .strip_prefix(&format!(r#"{{"type":"message",{said},"timestamp":"#))
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or_else(|| panic!("{told}"));
        assert!(timestamp.contains('.'), "{told}");
        let timestamp: f64 = timestamp.parse().unwrap();
        assert!((timestamp - now).abs() < 10.0, "{told}");
    }
}
