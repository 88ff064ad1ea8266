//! cnetmod: one connection is one coroutine.

use std::fs;
use std::io::ErrorKind;

use super::{Client, NORMAL, Program, all_hear, broadcast, chat_seed, get, serve};
use crate::support::frames::{BINARY, CLOSE, PING, PONG, close, masked};
use crate::support::tcp::{OPENING, Tcp};

#[test]
fn c1_an_echo_that_prints() {
    let mut program = Program::start("echo", &["127.0.0.1:0"]);
    let mut plain = Tcp::connect(program.addr);
    plain.send("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(plain.head().starts_with("HTTP/1.1 400 "));

    let mut client = Client::open(program.addr, "/ws");
    program.prints("WebSocket client connected");
    client.says("hello");
    client.hears("hello");
    program.prints("Received: hello");
    client.0.send(masked(BINARY, [0, 255]));
    let frame = client.0.frame();
    assert_eq!((frame.head, frame.payload), (BINARY, vec![0, 255]));
    program.prints("Received: 2 bytes");
    client.closes();
    program.prints("WebSocket client disconnected");
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
fn c3_a_loop_over_frames() {
    let mut program = Program::start("frames", &["127.0.0.1:0"]);
    let mut client = Client::open(program.addr, "/ws");
    client.says("hi");
    program.prints("Text: hi");
    client.0.send(masked(BINARY, [1, 2, 3]));
    program.prints("Binary: 3 bytes");
    client.0.send(masked(PING, "are you there?"));
    program.prints("Ping received");
    client.0.send(masked(PONG, ""));
    program.prints("Pong received");
    client.0.send(masked(CLOSE, close(NORMAL, "")));
    program.prints("Close frame received");
    // One pong, with the payload of the ping, then the close frame and the end.
    let pong = client.0.frame();
    assert_eq!((pong.head, pong.payload), (PONG, b"are you there?".to_vec()));
    assert_eq!(client.0.frame().close_code(), Some(NORMAL));
    client.0.expect_end();
}

#[test]
fn c4_a_heartbeat_beside_the_handler() {
    let mut program = Program::start("heartbeat", &["127.0.0.1:0", "0.05"]);
    let mut client = Tcp::upgraded_at(program.addr, "/ws");
    for _ in 0..3 {
        let ping = client.frame();
        assert_eq!(ping.head, PING);
        client.send(masked(PONG, ping.payload));
    }
    // From here on nobody answers.
    program.prints("Heartbeat failed, connection lost");
}

#[test]
fn c5_compression_is_agreed_on_only_if_the_client_offers_it() {
    let source = include_str!("../../../examples/deflate.rs");
    assert!(source.contains(".level(6)"));
    let program = Program::start("deflate", &["127.0.0.1:0"]);
    for (offer, answer) in [
        ("", None),
        ("Sec-WebSocket-Extensions: x-other\r\n", None),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
            Some("permessage-deflate; "),
        ),
    ] {
        let head = opened(&program, offer);
        let agreed = line_of(&head, "sec-websocket-extensions");
        assert_eq!(agreed.is_some(), answer.is_some(), "{head}");
        assert!(agreed.is_none_or(|agreed| agreed.starts_with("permessage-deflate; ")), "{head}");
    }
}

#[test]
fn c6_subprotocols_are_searched_for_those_that_are_spoken() {
    let program = Program::start("subprotocols", &["127.0.0.1:0"]);
    for (offer, choice) in [
        ("chat", Some("chat")),
        ("binary", Some("binary")),
        ("soap, chat, binary", Some("chat")),
        ("soap", None),
        ("chatter", None),
    ] {
        let head = opened(&program, &format!("Sec-WebSocket-Protocol: {offer}\r\n"));
        assert_eq!(line_of(&head, "sec-websocket-protocol").as_deref(), choice, "{head}");
    }
    let head = opened(&program, "");
    assert_eq!(line_of(&head, "sec-websocket-protocol"), None, "{head}");
}

/// The head of the answer to an opening handshake with this line.
fn opened(program: &Program, line: &str) -> String {
    let mut client = Tcp::connect(program.addr);
    let opening = OPENING.replacen("GET / ", "GET /ws ", 1);
    client.send(opening.replacen("Host: x\r\n", &format!("Host: x\r\n{line}"), 1));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head
}

fn line_of(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut named = lines.filter(|line| line.0.eq_ignore_ascii_case(name));
    named.next().map(|line| line.1.to_owned())
}

#[test]
fn c7_request_n_plus_1_gets_no_101_until_a_permit_frees() {
    let program = Program::start("limits", &["127.0.0.1:0", "1"]);
    let mut inside = Tcp::upgraded_at(program.addr, "/ws");
    // However a connection ends, the next one gets its permit.
    let endings: [fn(Tcp); 4] = [
        |client| Client(client).closes(),
        |mut client| {
            client.send(masked(0x83, "a reserved opcode"));
            assert_eq!(client.frame().close_code(), Some(1002));
        },
        drop,
        |client| client.socket.shutdown(std::net::Shutdown::Write).unwrap(),
    ];
    for end in endings {
        let mut waiting = Tcp::connect(program.addr);
        waiting.send(OPENING.replacen("GET / ", "GET /ws ", 1));
        while !get(program.addr, "/").contains("/ws: 0 available, 1 in use, 1 waiting\n") {}
        waiting.socket.set_nonblocking(true).unwrap();
        let seen = std::io::Read::read(&mut waiting.socket, &mut [0; 1]);
        assert_eq!(seen.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "no 101 yet");
        waiting.socket.set_nonblocking(false).unwrap();
        end(inside);
        assert!(waiting.head().starts_with("HTTP/1.1 101 "));
        inside = waiting;
    }
}

#[test]
fn c8_a_chat_room_tells_of_joins_messages_and_leaves() {
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
fn c9_a_page_that_talks_to_the_echo() {
    let program = Program::start("echo", &["127.0.0.1:0"]);
    let page = get(program.addr, "/");
    for part in [
        "new WebSocket(",
        "\"Hello, Server!\"",
        "\"Connected\"",
        "`Received: $",
        "\"Disconnected\"",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo.html"));
    assert_eq!(page, source.unwrap());
}
