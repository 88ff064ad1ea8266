//! Short messages that become very long ones: memory stays bounded.
//!
//! Memory is that of a process, so the server is one: this test binary again, for each test.

use std::fs;

use tidewire::WebSocketOptions;
use tidewire::deflate::DeflateOptions;

use crate::support::deflate::codec::Deflater;
use crate::support::deflate::{DEFLATED, TAIL};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, TEXT, close, masked, plain};
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{OPENING, Tcp, echo_server};

/// Largest message of these servers, in bytes: the default.
const MAX: usize = 1 << 20;

/// What a bomb may cost, in bytes.
const BOUND: usize = 2 * MAX;

/// An echo in a process of its own.
struct Target(Process);

impl Target {
    fn start() -> Self {
        let test = "connection::deflate::bombs::compressed_echo_in_a_process_of_its_own";
        let target = Self(Process::start(test));
        // What is made once is made before anything is measured, and so is the code that is read from the disk.
        target.serves();
        target.refuses();
        target
    }

    /// A client with which compression and takeover are agreed on.
    fn client(&self) -> Tcp {
        let mut client = Tcp::connect(self.0.addr);
        let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        client.send(OPENING.replace("\r\n\r\n", offer));
        let head = client.head();
        assert!(head.contains("sec-websocket-extensions: permessage-deflate\r\n"), "{head}");
        client
    }

    /// A client that announces more than is allowed, without compression, is told by 1009.
    fn refuses(&self) {
        let mut client = self.client();
        let beyond = u64::try_from(MAX + 1).unwrap().to_be_bytes();
        client.send([&[BINARY, 0xff], &beyond[..], &[0; 4]].concat());
        assert_eq!(client.frame().close_code(), Some(1009));
        client.expect_end();
    }

    /// A polite client is served, to the end.
    fn serves(&self) {
        let mut client = self.client();
        client.send(masked(TEXT | DEFLATED, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
        client.expect(plain(TEXT, "Hello"));
        client.send(masked(CLOSE, close(1000, "")));
        client.expect_hex("88 02 03e8");
        client.expect_end();
    }

    /// Forgets the largest amount of memory so far, and returns the present one.
    fn memory(&self) -> usize {
        fs::write(self.0.proc("clear_refs"), "5").unwrap();
        self.status("VmRSS:")
    }

    /// The largest amount of memory since, in bytes.
    fn largest_memory(&self) -> usize {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> usize {
        let status = fs::read_to_string(self.0.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }
}

/// The server of these tests. Does nothing when run as a test.
#[test]
fn compressed_echo_in_a_process_of_its_own() {
    let deflate =
        DeflateOptions::default().server_context_takeover(true).client_context_takeover(true);
    serve(|| echo_server(WebSocketOptions::default().deflate(deflate)));
}

/// Compressed zeros, so many MiB of them, and some letters more if that is not enough.
fn bomb(mebibytes: usize) -> Vec<u8> {
    // Each MiB refers to none before it, so one is made and repeated.
    let mebibyte = Deflater::new(9, 15, false).full_flush(&vec![0; 1 << 20]);
    let mut bomb = mebibyte.repeat(mebibytes);
    assert!(bomb.ends_with(&TAIL));
    bomb.truncate(bomb.len() - TAIL.len());
    bomb
}

/// Sends frames to a server, which closes with 1009 and has at no time grown by more than the bound.
fn is_refused(bomb: &[u8]) {
    let target = Target::start();
    let mut client = target.client();
    let before = target.memory();
    client.send(bomb);
    assert_eq!(client.frame().close_code(), Some(1009));
    client.expect_end();
    let growth = target.largest_memory().saturating_sub(before);
    eprintln!("{growth} bytes for {} that were sent", bomb.len());
    assert!(growth < BOUND, "{growth} bytes");
    target.serves();
}

#[test]
fn a_kibibyte_that_becomes_more_than_is_allowed_is_refused() {
    // The compressed letter is the byte beyond the limit.
    let beyond = [bomb(1), TAIL.to_vec(), b"\x4a\x04\x00".to_vec()].concat();
    assert!(beyond.len() < 1100, "{} bytes", beyond.len());
    is_refused(&masked(BINARY | DEFLATED, beyond));
}

#[test]
fn messages_that_become_256_mebibytes_cost_twice_the_limit_at_most() {
    let bomb = bomb(256);
    assert!((250 << 10..300 << 10).contains(&bomb.len()), "{} bytes", bomb.len());
    is_refused(&masked(BINARY | DEFLATED, &bomb));
    is_refused(&masked(TEXT | DEFLATED, &bomb));
    is_refused(&in_frames(&bomb));
}

/// A message in frames of 1000 bytes.
fn in_frames(payload: &[u8]) -> Vec<u8> {
    let mut pieces = payload.chunks(1000).peekable();
    let (mut frames, mut head) = (vec![], TEXT);
    while let Some(piece) = pieces.next() {
        let fin = if pieces.peek().is_none() { FIN } else { 0 };
        let rsv1 = if head == TEXT { DEFLATED } else { 0 };
        frames.extend(masked((head & !FIN) | fin | rsv1, piece));
        head = CONTINUATION;
    }
    frames
}

#[test]
fn a_message_of_last_blocks_without_end_costs_no_more() {
    // Each of them ends a stream and begins another: 100,000 empty ones, then a letter.
    let empty = b"\x03\x00".repeat(100_000);
    let target = Target::start();
    let mut client = target.client();
    let before = target.memory();
    client.send(masked(TEXT | DEFLATED, [&*empty, b"\x4a\x04\x00"].concat()));
    client.expect(plain(TEXT, "a"));
    let growth = target.largest_memory().saturating_sub(before);
    assert!(growth < BOUND, "{growth} bytes");
}
