//! A real server behind a socket in the file system, from any bytes: requests, handshakes and frames. It
//! answers or closes, always in HTTP first, and goes on serving others.

#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidewire::deflate::DeflateOptions;
use tidewire::server::Listeners;
use tidewire::{RequestContext, Server, WebSocketOptions};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("tidewire-fuzz-{}.sock", std::process::id()));
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let options = WebSocketOptions::default().deflate(DeflateOptions::default());
        let mut ws = ctx.upgrade_to_websocket(options).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    server.get("/text/:name", |ctx: RequestContext| async move {
        let name = ctx.param::<String>("name").map_err(|error| error.to_string());
        let (raw, cookie) = (ctx.param_raw("name"), ctx.cookie("name"));
        Ok(format!("{name:?} {raw:?} {cookie:?} {:?}", ctx.peer_addr()))
    });
    server.post("/echo", |mut ctx: RequestContext| async move { ctx.body_bytes().await });
    let bound = server.bind_to(Listeners::new().unix(&path).unwrap()).unwrap();
    async_std::task::spawn(bound.serve());
    path
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let pieces = pieces(choice)?;
    let mut client = UnixStream::connect(&*SOCKET).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    for piece in &pieces {
        // A server that has heard enough need not take the rest.
        if client.write_all(piece).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer).map_err(|error| error.kind()) {
        Ok(_) | Err(ErrorKind::ConnectionReset) => {}
        Err(error) => panic!("{error} after {:?}", answer.escape_ascii().to_string()),
    }
    let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.");
    assert!(is_http, "{}", answer.escape_ascii());
    Ok(())
}

/// Requests in words that matter, bytes that are none, and frames, in a few writes.
fn pieces(choice: &mut Unstructured<'_>) -> Result<Vec<Vec<u8>>> {
    let mut pieces = vec![vec![]];
    while !choice.is_empty() {
        let word = *choice.choose(WORDS)?;
        let (Some(piece), false) = (pieces.last_mut(), word == "|") else {
            pieces.push(vec![]);
            continue;
        };
        match word {
            "?" => piece.push(choice.arbitrary()?),
            "??" => {
                let len = choice.int_in_range(0..=40)?.min(choice.len());
                piece.extend(choice.bytes(len)?);
            }
            word => piece.extend(word.as_bytes()),
        }
    }
    Ok(pieces)
}

const WORDS: &[&str] = &[
    "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "GET /text/a HTTP/1.1\r\nHost: x\r\n",
    "POST /echo HTTP/1.1\r\nHost: x\r\n",
    "\r\n",
    "\r\n\r\n",
    "|",
    "?",
    "??",
    "GET ",
    "POST ",
    "OPTIONS ",
    "CONNECT ",
    "/",
    "/ws",
    "/text/",
    "%20",
    "%",
    "*",
    "http://x/",
    "x:80",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "Host: x\r\n",
    "Host: ",
    "Content-Length: ",
    "0",
    "5",
    "Transfer-Encoding: chunked\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Forwarded: for=1.2.3.4\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "Sec-WebSocket-Protocol: a, b\r\n",
    "Origin: http://x\r\n",
    "\r\n\u{1}\u{2}",
    ": ",
    "hello",
];
