//! pymongoose: text, JSON and rooms.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire::{Hub, Message, RequestContext, Server, WebSocketOptions};

use super::{Client, Program, all_hear, broadcast, chat, chat_seed, serve};
use crate::support::frames::{BINARY, TEXT, masked};
use crate::support::tcp::Tcp;

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
fn p2_pages_and_sockets_on_one_port() {
    let program = Program::start("http_and_ws", &["127.0.0.1:0"]);
    let answer = |path: &str| {
        let mut client = Tcp::connect(program.addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut client.socket, &mut answer).unwrap();
        answer
    };
    let page = answer("/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.to_lowercase().contains("\r\ncontent-type: text/html"), "{page}");
    for path in ["/nothing", "/nothing/at/all", "/ws2"] {
        let missing = answer(path);
        assert!(missing.starts_with("HTTP/1.1 404 "), "{missing}");
        assert!(missing.ends_with("\r\n\r\nNot Found"), "{missing}");
    }
    let mut client = Client::open(program.addr, "/ws");
    client.hears("You are visitor 1.");
    client.says("hi");
    client.hears("hi");
}

#[test]
fn p3_text_json_and_binary_are_sent_as_they_are() {
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send("Hello, WebSocket!").await?;
        ws.send_json(&serde_json::json!({"type": "update", "value": 42})).await?;
        ws.send(Message::binary(vec![0, 1, 2, 0xff])).await?;
        while ws.recv().await?.is_some() {}
        Ok(())
    });
    let mut client = Client::open(serve(server), "/ws");
    client.hears("Hello, WebSocket!");
    let update: serde_json::Value = serde_json::from_str(&client.next()).unwrap();
    assert_eq!(update, serde_json::json!({"type": "update", "value": 42}));
    let frame = client.0.frame();
    assert_eq!((frame.head, frame.payload), (BINARY, vec![0, 1, 2, 0xff]));
    client.closes();
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
fn p5_text_and_binary_are_told_apart() {
    let mut program = Program::start("frames", &["127.0.0.1:0"]);
    let mut client = Client::open(program.addr, "/ws");
    // FIN is set on both: the type is the opcode, and not the first byte.
    client.0.send([masked(TEXT, "t"), masked(BINARY, [0xff; 300])].concat());
    program.prints("Text: t");
    program.prints("Binary: 300 bytes");
}

#[test]
fn p6_json_is_answered_and_other_text_is_not() {
    let mut program = Program::start("json", &["127.0.0.1:0"]);
    let mut client = Client::open(program.addr, "/ws");
    for invalid in ["nonsense", "5", "{}", r#"{"type":"unknown"}"#] {
        client.says(invalid);
        program.prints("Invalid JSON");
    }
    client.0.send(masked(BINARY, [0xff]));
    program.prints("Invalid JSON");
    // The connection is open, and this is the first answer.
    client.says(r#"{"type":"ping"}"#);
    let answer: serde_json::Value = serde_json::from_str(&client.next()).unwrap();
    assert_eq!(answer, serde_json::json!({"type": "pong"}));
    client.closes();
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

/// An echo that says so.
fn prefixed_echo() -> SocketAddr {
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(format!("Echo: {}", message.as_text().unwrap_or_default())).await?;
        }
        Ok(())
    });
    serve(server)
}

#[cfg(feature = "client")]
#[test]
fn p9_a_client_program() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::program::example;

    let mut client = Command::new(example("client"))
        .arg(format!("ws://{}/ws", prefixed_echo()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"Hello, Server!\n").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Received: Echo: Hello, Server!\n");
    assert!(output.status.success(), "{:?}", output.status);
}

#[cfg(all(feature = "client", feature = "tls"))]
#[test]
fn p11_an_encrypted_server_with_certificate_and_key_from_files() {
    use std::fs;

    use tidewire::tls::ClientTls;

    use crate::support::peer::within;
    use crate::tls::authority;

    let folder = std::env::temp_dir().join(format!("tidewire-p11-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.join(name));
    let identity = authority().issue("localhost");
    fs::write(&chain, &identity.certificate).unwrap();
    fs::write(&key, &identity.key).unwrap();
    let files = [chain.to_str().unwrap(), key.to_str().unwrap()];
    let program = Program::start("tls", &["127.0.0.1:0", files[0], files[1]]);
    fs::remove_dir_all(folder).unwrap();

    let url = format!("wss://localhost:{}/ws", program.addr.port());
    let client = tidewire::Client::new(url).tls(ClientTls::with_roots(authority().pem()).unwrap());
    within(async {
        let mut ws = client.connect().await.unwrap();
        ws.send("secret").await.unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("Echo: secret"));
    });
    // A client that does not encrypt is told so, and does not hang.
    let mut plain = Tcp::connect(program.addr);
    plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(plain.head().starts_with("HTTP/1.1 400 "));
}
