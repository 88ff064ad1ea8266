//! What strangers do is told at level debug: they cannot fill a log that is kept.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use tidewire::{RequestContext, WebSocketOptions};

use super::frames::{BINARY, CLOSE, TEXT, close, masked};
use super::process::{Process, serve};
use super::tcp::{Tcp, echo_server};

/// All that was logged.
struct Records(Mutex<Vec<(log::Level, String)>>);

static RECORDS: Records = Records(Mutex::new(Vec::new()));

impl Log for Records {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = format!("{}: {}", record.target(), record.args());
        self.0.lock().unwrap().push((record.level(), text));
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
            let ours = records.iter().filter(|(_, text)| text.starts_with("tidewire"));
            let loud: Vec<_> =
                records.iter().filter(|(level, _)| *level < log::Level::Debug).collect();
            let failed = records.iter().find(|(_, text)| text.contains("the reason"));
            Ok(format!("{} of tidewire\n{failed:?}\n{loud:?}", ours.count()))
        });
        server.get("/fails", |_: RequestContext| async {
            Err::<(), _>(tide::Error::from_str(503, "the reason"))
        });
        server
    });
}

/// What is sent in place of a request.
const REQUESTS: [&str; 7] = [
    "\x16\x03\x01 is no HTTP\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /fails HTTP/1.1\r\nHost: x\r\n\r\n",
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
    let process = Process::start("ws::quiet::a_server_that_keeps_its_log");
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
