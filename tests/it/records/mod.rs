//! Nothing fails in silence, and nothing that is secret is told: the records of failures and refusals, by `tracing` and by
//! `log`, and the access log.
//!
//! | module | shows |
//! | --- | --- |
//! | `app` | the application, which fails in all ways |
//! | `answers` | one record for each failure and each refusal |
//! | `hostile` | clients that would write into the log |
//! | `access_log` | the access log |

mod access_log;
mod answers;
mod app;
mod hostile;

use std::io::Read;
use std::net::{Shutdown, SocketAddr};

use crate::support::frames::{TEXT, masked};
use crate::support::tcp::Tcp;

const SERVERS: [&str; 2] = [
    "records::app::a_server_whose_log_is_kept_by_tracing",
    "records::app::a_server_whose_log_is_kept_by_log",
];

type Records = Vec<(String, String)>;

/// All records of the server so far.
fn records(addr: SocketAddr) -> Records {
    let mut client = Tcp::connect(addr);
    client.send("GET /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.head();
    let mut log = String::new();
    client.socket.read_to_string(&mut log).unwrap();
    serde_json::from_str(&log).unwrap()
}

/// The records of a failure or a refusal: none of the access log, none that an end alone brings about, and none of a panic
/// hook that has blocked its thread on a busy machine.
fn of_answers(addr: SocketAddr) -> Records {
    let mut records = records(addr);
    records.retain(|(_, text)| {
        let others = [
            "tidewire::access: ",
            "tidewire::instance::sockets: ",
            "connection failed",
            "tidewire::runtime::worker::stall: ",
        ];
        !others.iter().any(|other| text.contains(other))
    });
    records
}

/// The lines of an opening handshake.
const OPENING: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Secrets that each request carries.
const SECRETS: &str = "Authorization: Bearer s3cret\r\nCookie: session=s3cret\r\n";

/// Asks, and returns the status.
fn ask(addr: SocketAddr, line: &str, more: &str) -> u16 {
    let mut client = Tcp::connect(addr);
    let host = if more == "no-host" { "" } else { "Host: x\r\n" };
    let (lines, body) = match more {
        "" | "no-host" => (String::new(), ""),
        "origin" => (format!("Origin: http://y\r\n{OPENING}"), ""),
        "opening" => (OPENING.to_owned(), ""),
        "short" => ("Content-Length: 7\r\n".to_owned(), "1"),
        body => (format!("Content-Length: {}\r\n", body.len()), body),
    };
    client.send(format!("{line} HTTP/1.1\r\n{host}{SECRETS}{lines}\r\n{body}"));
    let head = client.head();
    head["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

/// Opens a WebSocket, sends, and returns the close code.
fn talk(addr: SocketAddr, path: &str, sent: &str) -> u16 {
    let mut client = Tcp::connect(addr);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{SECRETS}{OPENING}\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 101 "), "{path}");
    match sent {
        "" => {}
        "unmasked" => client.send(b"\x81\x05Hello"),
        "cut" => {
            client.socket.shutdown(Shutdown::Both).unwrap();
            return 0;
        }
        text => client.send(masked(TEXT, text)),
    }
    client.frame().close_code().unwrap()
}

/// Of all records so far, of which there are this many at least, none has a secret or a character that a terminal obeys.
fn expect_harmless(addr: SocketAddr, least: usize) {
    let all = records(addr);
    assert!(all.len() > least, "{}", all.len());
    for (_, text) in &all {
        let is_raw = |char: char| char.is_control() || char == '\u{2028}';
        assert!(!text.contains(is_raw), "{text:?}");
        assert!(!text.contains("s3cret") && !text.contains("token"), "{text}");
    }
}
