//! Clients that would write into the log.

use std::io::Read;
use std::net::{Shutdown, SocketAddr};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::{OPENING, SECRETS, SERVERS, expect_harmless, records};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::server_process::Process;
use crate::support::tcp::{Tcp, until};

/// A text that would be a line of its own in the log, and red.
const FORGED: &str = "x\n[ERROR] forged\r\x1b[31m\u{85}\u{2028}";

/// Asks with it at each place of a head, and returns how often.
fn ask_with_all(addr: SocketAddr) -> usize {
    let percent = percent_encode(FORGED.as_bytes(), NON_ALPHANUMERIC);
    let raw = FORGED.replace(['\n', '\r'], "");
    let heads = [
        // In a path, encoded and not; in the name of a file.
        format!("GET /{percent}"),
        format!("GET /http/{percent}"),
        format!("GET /files/{percent}"),
        "GET /\u{85}\u{2028}".to_owned(),
        format!("GET /{raw}"),
        format!("GET /http/fails?{percent}"),
        format!("{raw} /"),
    ];
    let lines = [
        String::new(),
        format!("X-A: {raw}\r\n"),
        format!("Origin: {raw}\r\n{OPENING}"),
        format!("Sec-WebSocket-Protocol: {raw}\r\n{OPENING}"),
        format!("Sec-WebSocket-Extensions: {raw}\r\n{OPENING}"),
        format!("{OPENING}Host: {raw}\r\n"),
        format!("{raw}: x\r\n"),
        format!("Range: bytes={raw}\r\nIf-None-Match: {raw}\r\n"),
    ];
    let mut asked = 0;
    for head in &heads {
        for line in &lines {
            let mut client = Tcp::connect(addr);
            client.send(format!("{head} HTTP/1.1\r\nHost: x\r\n{SECRETS}{line}\r\n"));
            client.socket.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.socket.read_to_end(&mut answer).unwrap();
            asked += usize::from(answer.starts_with(b"HTTP/1.1 "));
        }
    }
    assert_eq!(asked, heads.len() * lines.len());
    asked
}

#[test]
fn nothing_that_a_peer_sends_writes_a_line_or_a_control_character_into_the_log() {
    for server in SERVERS {
        let process = Process::start(server);
        let addr = process.addr;
        let percent = percent_encode(FORGED.as_bytes(), NON_ALPHANUMERIC);
        let asked = ask_with_all(addr);
        let frames = [
            masked(TEXT, FORGED),
            masked(TEXT, serde_json::json!({ FORGED: FORGED }).to_string()),
            masked(CLOSE, close(4000, FORGED)),
            masked(0xf1, FORGED),
        ];
        for way in ["echo", "said", "json", "fails", "kicked"] {
            for frame in &frames {
                let mut client = Tcp::connect(addr);
                let target = format!("/ws/{way}?token=s3cret&{percent}");
                client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{SECRETS}{OPENING}\r\n"));
                assert!(client.head().starts_with("HTTP/1.1 101 "));
                client.send(frame);
                client.socket.shutdown(Shutdown::Write).unwrap();
                client.socket.read_to_end(&mut vec![]).unwrap();
            }
        }
        let is_there = |(_, text): &(String, String)| text.contains("[ERROR] forged\\r\\u{1b}[31m");
        until("the panics are told", || records(addr).iter().any(is_there));
        expect_harmless(addr, asked);
    }
}
