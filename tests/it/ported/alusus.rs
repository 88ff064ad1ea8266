//! Alusus: a connection is accepted or refused, and greeted.

use super::{Client, NORMAL, Program};
use crate::support::frames::{CLOSE, close, masked};
use crate::support::tcp::{OPENING, Tcp};

/// The head and the body of an answer.
fn answer(program: &Program, request: &str) -> String {
    let mut client = Tcp::connect(program.addr);
    client.send(request);
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client.socket, &mut answer).unwrap();
    answer
}

#[test]
fn a1_a_connection_is_accepted_greeted_and_answered() {
    let mut program = Program::start("accept", &["127.0.0.1:0"]);
    for path in ["/", "/any/other"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let page = answer(&program, &request);
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.to_lowercase().contains("\r\ncontent-type: text/html"), "{page}");
        assert!(page.ends_with("<h1>WebSocket Server</h1>"), "{page}");
    }
    let mut client = Client::open(program.addr, "/websocket");
    program.prints("WebSocket client connected");
    program.prints("WebSocket ready");
    client.hears("Welcome!");
    client.says("t");
    client.hears("t");
    program.prints("Received: t");
    client.closes();
    program.prints("WebSocket client disconnected");
}

#[test]
fn a1_a_connection_that_is_refused_gets_its_status_and_no_101() {
    let program = Program::start("accept", &["127.0.0.1:0"]);
    let opening = OPENING.replacen("GET / ", "GET /websocket ", 1);
    let lines = "Host: x\r\nUser-Agent: BadBot/1\r\n";
    let mut client = Tcp::connect(program.addr);
    client.send(opening.replacen("Host: x\r\n", lines, 1));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[test]
fn a1_the_handler_can_close_at_any_message() {
    let program = Program::start("accept", &["127.0.0.1:0"]);
    let mut client = Client::open(program.addr, "/websocket");
    client.hears("Welcome!");
    client.says("bye");
    let frame = client.0.frame();
    assert_eq!(frame.close_code(), Some(NORMAL), "{frame:?}");
    client.0.send(masked(CLOSE, close(NORMAL, "")));
    client.0.expect_end();
}

#[test]
fn a2_messages_from_and_to_a_browser() {
    let program = Program::start("accept", &["127.0.0.1:0"]);
    let opening = OPENING.replacen("GET / ", "GET /websocket ", 1);
    let mut client = Client(Tcp::connect(program.addr));
    // A browser says which page it has open.
    client.0.send(opening.replacen("Host: x\r\n", "Host: x\r\nOrigin: null\r\n", 1));
    assert!(client.0.head().starts_with("HTTP/1.1 101 "));
    client.says("Hello Server!");
    client.hears("Welcome!");
    client.hears("Hello Server!");
    client.closes();
}
