//! HTTP as a client sees it: bytes in, wire text out.
//!
//! The server is a real one on a port of its own; the client is a blocking socket, so that a test
//! says exactly which bytes leave in which segment.

mod accept;
mod body;
mod client;
mod closing;
mod connections;
mod deadline;
mod files;
mod listen;
mod malformed;
mod message;
mod methods;
mod panics;
mod routing;
mod ways;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tidewire::Server;

/// Longest wait for anything in these tests.
const WITHIN: Duration = Duration::from_secs(5);

/// Serves `server` on a free port for as long as the tests run.
pub(crate) fn serve<State: Clone + Send + Sync + 'static>(server: Server<State>) -> SocketAddr {
    let bound = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap();
    let addr = bound.local_addr();
    async_std::task::spawn(bound.serve());
    addr
}

/// A server with one route, `/`, that answers `pong`.
pub(crate) fn pong() -> Server {
    let mut server = Server::new();
    server.at("/").get(|_| async { Ok("pong") });
    server
}

/// What `pong` looks like on the wire, without the date.
pub(crate) const PONG: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain;charset=utf-8\r\ncontent-length: 4\r\n\r\npong";

/// A client that speaks bytes.
pub(crate) struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&addr, WITHIN).unwrap())
    }

    fn of(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        socket.set_write_timeout(Some(WITHIN)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, read: Vec::new() }
    }

    /// Connects and sends, in one line for tests that need one exchange.
    pub(crate) fn to(addr: SocketAddr, request: impl AsRef<[u8]>) -> Self {
        Self::connect(addr).send(request)
    }

    /// Sends bytes in one write.
    fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.socket.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Ends this direction of the connection and goes on reading.
    fn half_close(self) -> Self {
        self.socket.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// The next response, without its date.
    pub(crate) fn response(&mut self) -> String {
        let head = self.head();
        let body = match header(&head, "content-length") {
            Some(len) => {
                let len = len.parse().unwrap();
                self.read_while(|read| read.len() < len);
                self.read.drain(..len).collect()
            }
            None if header(&head, "transfer-encoding") == Some("chunked") => {
                self.take_through(b"0\r\n\r\n")
            }
            None => Vec::new(),
        };
        head + &String::from_utf8(body).unwrap()
    }

    /// The head of the next response, without its date.
    fn head(&mut self) -> String {
        let head = String::from_utf8(self.take_through(b"\r\n\r\n")).unwrap();
        let lines = head.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("date: ")).collect()
    }

    /// The first line of the next response.
    pub(crate) fn status(&mut self) -> String {
        self.response().lines().next().unwrap_or_default().to_owned()
    }

    /// Everything until the server ends the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.read);
        self.socket.read_to_end(&mut rest).unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// As [`rest`](Self::rest), without the dates.
    fn rest_without_date(&mut self) -> String {
        let rest = self.rest();
        rest.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
    }

    /// Bytes up to and including the next `mark`.
    fn take_through(&mut self, mark: &[u8]) -> Vec<u8> {
        let end = |read: &[u8]| read.windows(mark.len()).position(|bytes| bytes == mark);
        self.read_while(|read| end(read).is_none());
        let end = end(&self.read).unwrap() + mark.len();
        self.read.drain(..end).collect()
    }

    fn read_while(&mut self, incomplete: impl Fn(&[u8]) -> bool) {
        let mut buf = [0; 4096];
        while incomplete(&self.read) {
            let len = self.socket.read(&mut buf).unwrap();
            let so_far = String::from_utf8_lossy(&self.read);
            assert!(len > 0, "the connection ended after {so_far:?}");
            self.read.extend_from_slice(&buf[..len]);
        }
    }
}

/// The value of a header in the text of a head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
