//! dasHV: a chat beside HTTP routes, and a server in the background.

use std::time::{Duration, Instant};

use super::{Client, Program, all_hear, das_chat, get, serve};

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
fn d2_a_server_in_the_background_of_a_program() {
    let mut program = Program::start("background", &["127.0.0.1:0"]);
    let url = program.next_line();
    let port =
        url.strip_prefix("serving ws://127.0.0.1:").and_then(|rest| rest.strip_suffix("/ws"));
    assert!(port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)), "{url}");
    program.prints("Received: Hello from the foreground!");
    program.prints("Server ended");
    program.ends_well();
}
