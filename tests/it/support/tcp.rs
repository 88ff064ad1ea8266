//! A client of a real server: a blocking socket, and an opening handshake by hand.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server};

use super::frames::{Seen, hex, shown, take_frame};
use super::peer::{WITHIN, echo};

/// The opening handshake of RFC 6455 §1.3.
pub(crate) const OPENING: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\n\r\n";

/// Serves on a free port for as long as the tests run.
pub(crate) fn bind(server: Server) -> SocketAddr {
    let bound = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap();
    let addr = bound.local_addr();
    async_std::task::spawn(bound.serve());
    addr
}

/// A server with an echo at `/`.
pub(crate) fn echo_server(options: impl Into<UpgradeOptions>) -> Server {
    let options = options.into();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let ws = ctx.upgrade_to_websocket(options).await?;
            drop(ctx);
            echo(ws).await?;
            Ok(())
        }
    });
    server
}

/// Waits for something that the server does on its own.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    until_equal(what, &true, is_so);
}

/// Waits until something that the server changes on its own is as expected.
pub(crate) fn until_equal<T: PartialEq + Debug>(what: &str, expected: &T, now: impl Fn() -> T) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let found = now();
        if found == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {found:?} instead of {expected:?}");
        thread::yield_now();
    }
}

/// The client's end, of a plain connection or of an encrypted one.
#[derive(Debug)]
pub(crate) struct Tcp<S = TcpStream> {
    pub(crate) socket: S,
}

impl Tcp {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&addr, WITHIN).unwrap();
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        socket.set_write_timeout(Some(WITHIN)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// Connects, and opens a WebSocket at `/`.
    pub(crate) fn upgraded(addr: SocketAddr) -> Self {
        Self::upgraded_at(addr, "/")
    }

    /// Connects, and opens a WebSocket at `path`.
    pub(crate) fn upgraded_at(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect(addr);
        client.upgrade(path);
        client
    }
}

impl<S: Read + Write> Tcp<S> {
    /// Opens a WebSocket at `path`.
    pub(crate) fn upgrade(&mut self, path: &str) {
        self.send(OPENING.replacen('/', path, 1));
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// The head of a response.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1));
        }
        String::from_utf8(head).unwrap()
    }

    /// Sends bytes in one write.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
        self.socket.flush().unwrap();
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut read = vec![0; len];
        self.socket.read_exact(&mut read).unwrap();
        read
    }

    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let read = self.read(expected.len());
        assert!(read == expected, "{} instead of {}", shown(&read), shown(expected));
    }

    pub(crate) fn expect_hex(&mut self, expected: &str) {
        self.expect(hex(expected));
    }

    /// The server ends the stream, with nothing before; an encrypted one with a `close_notify`.
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{} instead of the end", shown(&rest));
    }

    /// The next frame of the server.
    pub(crate) fn frame(&mut self) -> Seen {
        let mut bytes = Vec::new();
        loop {
            if let Some(seen) = take_frame(&mut &*bytes, false) {
                return seen;
            }
            bytes.extend(self.read(1));
        }
    }

    /// The next frame of the server, a long one: as [`frame`](Self::frame), in few reads.
    pub(crate) fn long_frame(&mut self) -> Seen {
        let mut bytes = self.read(2);
        let more = match bytes[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        bytes.extend(self.read(more));
        let len = match more {
            0 => usize::from(bytes[1]),
            _ => bytes[2..].iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
        };
        bytes.extend(self.read(len));
        take_frame(&mut &*bytes, false).unwrap()
    }
}
