//! What the systems that tidewire stands on do, over TCP, to the letter.
//!
//! Each test is named after its row in the list of their examples: D of dasHV, C of cnetmod, P of
//! pymongoose, A of Alusus. Where the row is a program in `examples/`, that program is what is tested: in
//! this process if nothing is printed, else as a program. What C9 and A2 say of a page is tried in a
//! browser, by `tests/interop`.

#![allow(dead_code, reason = "what only the `main` of an example needs")]

mod alusus;
mod cnetmod;
mod das;
mod mongoose;
mod program;

#[path = "../../../examples/broadcast.rs"]
mod broadcast;

#[path = "../../../examples/chat.rs"]
mod chat;

#[path = "../../../examples/chat_seed.rs"]
mod chat_seed;

#[path = "../../../examples/das_chat.rs"]
mod das_chat;

use std::io::Read;
use std::net::SocketAddr;

use self::program::Program;
use crate::http::serve;
use crate::support::frames::{CLOSE, PING, Seen, TEXT, close, masked};
use crate::support::tcp::Tcp;

const NORMAL: u16 = 1000;

/// A WebSocket client that says and hears text.
struct Client(Tcp);

impl Client {
    fn open(addr: SocketAddr, path: &str) -> Self {
        Self(Tcp::upgraded_at(addr, path))
    }

    fn says(&mut self, text: &str) {
        self.0.send(masked(TEXT, text));
    }

    /// The next message is this one.
    fn hears(&mut self, text: &str) {
        assert_eq!(self.next(), text);
    }

    fn next(&mut self) -> String {
        let frame = self.data_frame();
        assert_eq!(frame.head, TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// The next frame that is no ping: a heartbeat may come at any time.
    fn data_frame(&mut self) -> Seen {
        loop {
            let frame = self.0.frame();
            if frame.head != PING {
                return frame;
            }
        }
    }

    /// Closes, and hears nothing more than the answer.
    fn closes(mut self) {
        self.0.send(masked(CLOSE, close(NORMAL, "")));
        let frame = self.data_frame();
        assert_eq!(frame.close_code(), Some(NORMAL), "{frame:?}");
        self.0.expect_end();
    }
}

fn all_hear<const N: usize>(clients: [&mut Client; N], text: &str) {
    for client in clients {
        client.hears(text);
    }
}

/// The body of the answer to a request.
fn get(addr: SocketAddr, path: &str) -> String {
    let mut client = Tcp::connect(addr);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let mut answer = String::new();
    client.socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}
