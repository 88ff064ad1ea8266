//! What strangers do is told at level debug: they cannot fill a log that is kept. Nor can they forge a
//! record, for what they say is escaped.

use std::io::{self, Read};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use tidewire::rooms::Backplane;
use tidewire::{Hub, RequestContext, Server, WebSocketOptions};

use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::log_sink;
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{Tcp, echo_server};

/// The server of this test; a logger is for a whole process.
#[test]
fn a_server_that_keeps_its_log() {
    serve(|| {
        log_sink::keep_by_log();
        let mut server = echo_server(WebSocketOptions::default().max_message_size(100));
        server.get("/log", |_: RequestContext| async {
            let records = log_sink::lines();
            let ours = records.iter().filter(|(_, text)| text.starts_with("tidewire"));
            let is_loud = |level: &str| !matches!(level, "DEBUG" | "TRACE");
            let loud: Vec<_> = records.iter().filter(|(level, _)| is_loud(level)).collect();
            Ok(format!("{} of tidewire\n{loud:?}", ours.count()))
        });
        server.get("/refuses", |_: RequestContext| async {
            Err::<(), _>(tidewire::Reject::status(404, "no such thing").into())
        });
        server.at("/files").serve_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        server
    });
}

/// What is sent in place of a request.
const REQUESTS: [&str; 12] = [
    "\x16\x03\x01 is no HTTP\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /refuses HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /files/lib.rs HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /files/http HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /files/missing HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /files/..%2fCargo.toml HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /files/lib.rs HTTP/1.1\r\nHost: x\r\nRange: bytes=99999999-\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nHello",
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
];

/// What is sent after the upgrade.
fn frames() -> [Vec<u8>; 7] {
    [
        b"\x81\x05Hello".to_vec(),
        masked(0xf1, "reserved"),
        masked(TEXT, [0xff]),
        masked(BINARY, [0; 101]),
        masked(CLOSE, close(1005, "")),
        masked(CLOSE, close(4000, "bye")),
        masked(BINARY, [0; 100])[..50].to_vec(),
    ]
}

#[test]
fn nothing_that_a_client_does_is_logged_above_debug() {
    let process = Process::start("log_levels::a_server_that_keeps_its_log");
    for request in REQUESTS {
        let mut client = Tcp::connect(process.addr);
        client.send(request);
        client.head();
    }
    for sent in frames() {
        let mut client = Tcp::upgraded(process.addr);
        client.send(sent);
        client.socket.shutdown(Shutdown::Write).unwrap();
        client.socket.read_to_end(&mut vec![]).unwrap();
    }
    let mut client = Tcp::connect(process.addr);
    client.send("GET /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.head();
    let mut log = String::new();
    client.socket.read_to_string(&mut log).unwrap();
    let (quiet, loud) = log.split_once(" of tidewire\n").unwrap();
    assert!(quiet.parse::<usize>().unwrap() >= frames().len(), "{log}");
    assert_eq!(loud, "[]");
}

/// The server of the test below.
#[test]
fn a_server_whose_folder_is_gone() {
    serve(|| {
        log_sink::keep_by_log();
        let folder = std::env::temp_dir().join(format!("tidewire-gone-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut server = Server::new();
        server.at("/files").serve_dir(&folder).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        server.get("/log", |_: RequestContext| async {
            let records = log_sink::lines();
            // Also those of the 500 itself, which would be a second record.
            let told = records
                .iter()
                .filter(|(_, text)| text.contains("cannot serve") || text.contains("status=500"));
            let told: Vec<_> = told.map(|(level, text)| format!("{level} {text}")).collect();
            Ok(told.join("\n"))
        });
        server
    });
}

#[test]
fn a_failure_of_the_disk_is_logged_at_warn_once_and_cannot_be_repeated_by_a_client() {
    let process = Process::start("log_levels::a_server_whose_folder_is_gone");
    let ask = |path: &str| {
        let mut client = Tcp::connect(process.addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let mut answer = String::new();
        client.socket.read_to_string(&mut answer).unwrap();
        answer
    };
    for path in ["/files/a%0aforged", "/files/b", "/files/missing/", "/files/c"] {
        assert!(ask(path).starts_with("HTTP/1.1 500 "), "{path}");
    }
    let answer = ask("/log");
    let records: Vec<_> = answer.split_once("\r\n\r\n").unwrap().1.lines().collect();
    let levels: Vec<_> = records.iter().filter_map(|record| record.split(' ').next()).collect();
    assert_eq!(levels, ["WARN", "DEBUG", "DEBUG", "DEBUG"], "{records:?}");
    assert!(records[0].contains("a\\nforged"), "{records:?}");
}

/// A line that a stranger would like to see in the log.
const FORGED: &str = "x\n[ERROR] forged\r\x1b[31m\u{85}\u{2028}";

/// A broker that is down every other time, and whose payloads cannot be read.
#[derive(Clone, Default)]
struct Unsteady(Arc<AtomicBool>);

impl Backplane for Unsteady {
    fn publish(&self, _: Arc<str>, _: Bytes) -> BoxFuture<'static, io::Result<()>> {
        let is_up = self.0.fetch_not(Ordering::SeqCst);
        async move { if is_up { Ok(()) } else { Err(io::Error::other(FORGED)) } }.boxed()
    }

    fn subscribe(&self, _: Arc<str>) -> BoxStream<'static, Bytes> {
        let payloads = [&b""[..], b"\x01\x01\0\0\0\0\0\0\0\0\0\xff", FORGED.as_bytes()];
        stream::iter(payloads.map(Bytes::from_static)).boxed()
    }
}

/// What a handler may expect from its peer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Greeting {
    Hello { name: String },
}

/// The first message is the name of a room, and the second JSON.
async fn speak(mut ctx: RequestContext, hub: Hub) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    let name = ws.recv().await?.and_then(|message| message.into_text().ok());
    let room = hub.room(&name.unwrap_or_default());
    for _ in 0..200 {
        room.broadcast("to those who are elsewhere");
        async_std::task::yield_now().await;
    }
    ws.send("said").await?;
    let Some(Greeting::Hello { name }) = ws.recv_json().await? else { return Ok(()) };
    ws.send(name).await?;
    Ok(())
}

/// The server of the test below.
#[test]
fn a_server_whose_peers_choose_the_logged_text() {
    serve(|| {
        log_sink::keep_by_log();
        let mut server = Server::new();
        let hub = Hub::with_backplane(Unsteady::default());
        server.get("/", move |ctx: RequestContext| speak(ctx, hub.clone()));
        server.get("/fails", |_: RequestContext| async {
            Err::<(), _>(tidewire::HandlerError::boxed(FORGED.into()))
        });
        log_sink::show_at(&mut server, "/log");
        server
    });
}

#[test]
fn no_text_of_a_client_or_a_broker_forges_a_record_or_is_logged_each_time() {
    let process = Process::start("log_levels::a_server_whose_peers_choose_the_logged_text");
    let json = |kind: &str| serde_json::json!({ "type": kind, "name": FORGED }).to_string();
    for (room, kind) in [(FORGED, FORGED), ("another", "hello"), ("a\tthird", "\0")] {
        let mut client = Tcp::upgraded(process.addr);
        client.send(masked(TEXT, room));
        client.expect(plain(TEXT, "said"));
        client.send(masked(TEXT, json(kind)));
        client.socket.shutdown(Shutdown::Write).unwrap();
        client.socket.read_to_end(&mut vec![]).unwrap();
    }
    for request in [
        "GET /fails HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/lib.rs HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/http HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/missing HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/..%2fCargo.toml HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/lib.rs HTTP/1.1\r\nHost: x\r\nRange: bytes=99999999-\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\x1b[31m: \u{85}\r\n\r\n",
        "G\x1b[31mT \u{85} HTTP/1.1\r\n\r\n",
    ] {
        let mut client = Tcp::connect(process.addr);
        client.send(request);
        client.head();
    }
    let mut client = Tcp::connect(process.addr);
    client.send("GET /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.head();
    let mut log = String::new();
    client.socket.read_to_string(&mut log).unwrap();
    let records: Vec<(String, String)> = serde_json::from_str(&log).unwrap();

    let is_raw = |text: &str| text.contains(|char: char| char.is_control() || char == '\u{2028}');
    let mut forged = 0;
    for (_, text) in &records {
        assert!(!is_raw(text), "{text:?}");
        forged += usize::from(text.contains("[ERROR] forged\\r\\u{1b}[31m\\u{85}\\u{2028}"));
    }
    // The room and the broker's error, the JSON, the handler's error.
    assert!(forged >= 3, "only {forged} in {records:?}");

    // A hundred failures to publish, three subscriptions that ended, nine payloads: one record each.
    let loud = records.iter().filter(|(level, text)| {
        matches!(&**level, "WARN" | "INFO") && text.starts_with("tidewire::rooms")
    });
    let loud: Vec<_> = loud.map(|(_, text)| text).collect();
    assert_eq!(loud.len(), 3, "{loud:?}");
    for told in ["takes no messages", "subscriptions", "payloads"] {
        assert_eq!(loud.iter().filter(|text| text.contains(told)).count(), 1, "{told}: {loud:?}");
    }
}

/// Fields take escaped text, numbers, times, addresses, and texts of the program itself.
const FIELDS: [&str; 8] = [
    "$number",
    "&'static str",
    "SocketAddr",
    "Duration",
    "Escaped<T>",
    "EscapedText",
    "Option<T>",
    // A number.
    "ConnectionId",
];

#[test]
fn every_record_of_the_crate_escapes_foreign_text_and_contains_the_logger() {
    let mut records = 0;
    let mut fields = Vec::new();
    for (path, source) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let is_macro = path.ends_with("/records.rs");
        for (number, line) in source.lines().enumerate() {
            let place = format!("{path}:{}: {}", number + 1, line.trim());
            if line.trim_start().starts_with("//") {
                continue;
            }
            // One macro alone writes records. What it takes as a field is a type that escapes, or needs no escape.
            records += usize::from(line.contains("record!(") || line.contains("told!("));
            assert!(is_macro || !line.contains("tracing::"), "{place}");
            assert!(!line.contains("log::debug!") && !line.contains("log::error!"), "{place}");
            let implemented = line.split_once("Field for ").filter(|it| it.0.contains("impl"));
            fields.extend(implemented.map(|(_, of)| of.trim_end_matches(" {").to_owned()));
        }
        if is_macro {
            // A logger that panics ends nothing; and a message is shown as it is, so it has no values in it.
            let written = source.matches("::tracing::$level!(").count();
            let contained = source.matches("$crate::foreign::tell(|| {\n            ::tracing::");
            assert_eq!((written, contained.count()), (2, 2));
            assert_eq!(source.matches("$message:literal").count(), 2);
            assert_eq!(source.matches("message = $message").count(), 2);
            let valued = source.matches("$crate::records::Field::value(&$value)").count();
            assert_eq!((valued, source.matches("$value").count()), (2, 4));
        }
    }
    assert!(records > 40, "only {records} were found");
    fields.sort_unstable();
    let mut expected = FIELDS.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(fields, expected);
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.map(|path| {
        if path.is_dir() {
            return sources(&path);
        }
        vec![(path.display().to_string(), std::fs::read_to_string(&path).unwrap())]
    });
    found.flatten().collect()
}
