//! What strangers do is told at level debug: they cannot fill a log that is kept. Nor can they forge a
//! record, for what they say is escaped.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use serde::{Deserialize, Serialize};
use tidewire::rooms::Backplane;
use tidewire::{Hub, RequestContext, Server, WebSocketOptions};

use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{Tcp, echo_server};

/// All that was logged: level, text, and fields.
struct Records(Mutex<Vec<(log::Level, String, Fields)>>);

type Fields = BTreeMap<String, String>;

static RECORDS: Records = Records(Mutex::new(Vec::new()));

struct Visitor<'a>(&'a mut Fields);

impl<'a> VisitSource<'a> for Visitor<'_> {
    fn visit_pair(&mut self, key: Key<'a>, value: Value<'a>) -> Result<(), log::kv::Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

impl Log for Records {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = format!("{}: {}", record.target(), record.args());
        let mut fields = Fields::new();
        record.key_values().visit(&mut Visitor(&mut fields)).unwrap();
        self.0.lock().unwrap().push((record.level(), text, fields));
    }

    fn flush(&self) {}
}

/// The server of this test; a logger is for a whole process.
#[test]
fn a_server_that_keeps_its_log() {
    serve(|| {
        log::set_logger(&RECORDS).unwrap();
        log::set_max_level(LevelFilter::Trace);
        let mut server = echo_server(WebSocketOptions::default().max_message_size(100));
        server.get("/log", |_: RequestContext| async {
            let records = RECORDS.0.lock().unwrap();
            let ours = records.iter().filter(|(_, text, _)| text.starts_with("tidewire"));
            let loud: Vec<_> =
                records.iter().filter(|(level, ..)| *level < log::Level::Debug).collect();
            let failed = records.iter().find(|(_, text, _)| text.contains("the reason"));
            let failed = failed.map(|(level, text, _)| (level, text));
            Ok(format!("{} of tidewire\n{failed:?}\n{loud:?}", ours.count()))
        });
        server.get("/fails", |_: RequestContext| async {
            Err::<(), _>(tidewire::HandlerError::boxed("the reason".into()))
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
    "GET /fails HTTP/1.1\r\nHost: x\r\n\r\n",
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
    let (quiet, rest) = log.split_once(" of tidewire\n").unwrap();
    assert!(quiet.parse::<usize>().unwrap() >= frames().len(), "{log}");
    let (failed, loud) = rest.split_once('\n').unwrap();
    // The client is told the status, and the log why.
    assert_eq!(failed, r#"Some((Debug, "tidewire::handler: handler failed: the reason"))"#);
    assert_eq!(loud, "[]");
}

/// The server of the test below.
#[test]
fn a_server_whose_folder_is_gone() {
    serve(|| {
        log::set_logger(&RECORDS).unwrap();
        log::set_max_level(LevelFilter::Trace);
        let folder = std::env::temp_dir().join(format!("tidewire-gone-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut server = Server::new();
        server.at("/files").serve_dir(&folder).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        server.get("/log", |_: RequestContext| async {
            let records = RECORDS.0.lock().unwrap();
            let told = records.iter().filter(|(_, text, _)| text.contains("cannot serve"));
            let told: Vec<_> = told.map(|(level, text, _)| format!("{level} {text}")).collect();
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
        log::set_logger(&RECORDS).unwrap();
        log::set_max_level(LevelFilter::Trace);
        let mut server = Server::new();
        let hub = Hub::with_backplane(Unsteady::default());
        server.get("/", move |ctx: RequestContext| speak(ctx, hub.clone()));
        server.get("/fails", |_: RequestContext| async {
            Err::<(), _>(tidewire::HandlerError::boxed(FORGED.into()))
        });
        server.get("/log", |_: RequestContext| async {
            #[derive(Serialize)]
            struct Told<'a>(&'a str, &'a str, &'a Fields);

            let records = RECORDS.0.lock().unwrap();
            let told =
                records.iter().map(|(level, text, fields)| Told(level.as_str(), text, fields));
            Ok(serde_json::to_string(&told.collect::<Vec<_>>())?)
        });
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
    let records: Vec<(String, String, Fields)> = serde_json::from_str(&log).unwrap();

    let is_raw = |text: &str| text.contains(|char: char| char.is_control() || char == '\u{2028}');
    let mut forged = 0;
    for (_, text, fields) in records.iter().filter(|(_, text, _)| text.starts_with("tidewire")) {
        assert!(!is_raw(text), "{text:?}");
        assert!(!fields.values().any(|value| is_raw(value)), "{text}: {fields:?}");
        forged += usize::from(text.contains("[ERROR] forged\\r\\u{1b}[31m\\u{85}\\u{2028}"));
    }
    // The room and the broker's error, the JSON, the handler's error.
    assert!(forged >= 3, "only {forged} in {records:?}");

    // A hundred failures to publish, three subscriptions that ended, nine payloads: one record each.
    let loud = records.iter().filter(|(level, text, _)| {
        matches!(&**level, "WARN" | "INFO") && text.starts_with("tidewire::rooms")
    });
    let loud: Vec<_> = loud.map(|(_, text, _)| text).collect();
    assert_eq!(loud.len(), 3, "{loud:?}");
    for told in ["takes no messages", "subscriptions", "payloads"] {
        assert_eq!(loud.iter().filter(|text| text.contains(told)).count(), 1, "{told}: {loud:?}");
    }
}

/// What a record may show as it is: numbers, times, addresses, and names that are ours.
const HARMLESS: [&str; 17] = [
    "websockets",
    "closed",
    "lost",
    "dropped",
    "left",
    "peer",
    "addrs",
    "code",
    "pause",
    "PAUSE",
    "ended",
    "skipped",
    "unreadable",
    // Which executor it is, and what it does, in words of ours.
    "who",
    "how",
    // The route of a stalled handler, in words of the application, and for how long.
    "label",
    "elapsed",
];

#[test]
fn every_record_of_the_crate_escapes_foreign_text_and_contains_the_logger() {
    let mut records = 0;
    for (path, source) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let lines: Vec<_> = source.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
            let Some((_, record)) = line.split_once("log::") else { continue };
            if !levels.iter().any(|level| record.starts_with(level)) {
                continue;
            }
            records += 1;
            let shown = record.split('{').skip(1).filter_map(|rest| rest.split([':', '}']).next());
            let is_harmless = shown.into_iter().all(|name| HARMLESS.contains(&name));
            // Just before the record that tells it.
            let before = &lines[number.saturating_sub(9)..number];
            let is_escaped = before.iter().any(|line| line.contains(" = Escaped("))
                || before.iter().any(|line| line.contains(" = (Escaped("));
            assert!(is_harmless || is_escaped, "{path}:{}: {}", number + 1, line.trim());
            // A logger that panics ends nothing.
            let near = lines[number.saturating_sub(3)..=number].concat();
            let is_contained = ["tell(", "attempt(", "let told = ||", "let tell = |"];
            let is_contained = is_contained.iter().any(|it| near.contains(it));
            assert!(is_contained, "{path}:{}: {}", number + 1, line.trim());
        }
    }
    assert!(records > 25, "only {records} were found");
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
