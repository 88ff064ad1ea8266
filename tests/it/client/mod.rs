//! The client, against this crate's server and against servers that a test has written by hand.

mod handshake;
mod reconnect;
mod redirect;
mod route;
mod run;
#[cfg(feature = "tls")]
mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use tidewire::Error;
use tidewire::client::ConnectError;

use crate::support::peer::WITHIN;

/// A server of one connection after the other: it answers each opening handshake as it was told, and
/// hands the socket to whoever waits for it.
struct Scripted {
    addr: SocketAddr,
    serving: JoinHandle<Vec<Visit>>,
}

/// What came of one connection.
struct Visit {
    /// The head of the request.
    head: String,
    socket: TcpStream,
}

impl Scripted {
    /// Answers with these responses, of which `ACCEPT` is replaced by the accept key.
    fn new<T: Into<Vec<u8>>>(responses: impl IntoIterator<Item = T>) -> Self {
        Self::start(responses, false)
    }

    /// As [`new`](Self::new), and ends each stream behind its response.
    fn ending<T: Into<Vec<u8>>>(responses: impl IntoIterator<Item = T>) -> Self {
        Self::start(responses, true)
    }

    fn start<T: Into<Vec<u8>>>(responses: impl IntoIterator<Item = T>, ends: bool) -> Self {
        let responses: Vec<Vec<u8>> = responses.into_iter().map(Into::into).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let serve = |response: Vec<u8>| {
                let visit = serve_one(&listener, &response);
                if ends {
                    visit.socket.shutdown(Shutdown::Write).unwrap();
                }
                visit
            };
            responses.into_iter().map(serve).collect()
        });
        Self { addr, serving }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    /// The connections, once there were as many as there are responses.
    fn visits(self) -> Vec<Visit> {
        self.serving.join().unwrap()
    }
}

fn serve_one(listener: &TcpListener, response: &[u8]) -> Visit {
    let mut socket = listener.accept().unwrap().0;
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let head = read_head(&mut socket);
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = key.map(|key| derive_accept_key(key.as_bytes())).unwrap_or_default();
    // The frames behind a head are no text.
    let at = response.windows(6).position(|part| part == b"ACCEPT");
    let response = match at {
        Some(at) => [&response[..at], accept.as_bytes(), &response[at + 6..]].concat(),
        None => response.to_vec(),
    };
    socket.write_all(&response).unwrap();
    Visit { head, socket }
}

fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// A valid answer, with these lines added and these bytes behind it.
fn accepting(lines: &str, frames: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: ACCEPT\r\n{lines}\r\n"
    );
    [head.as_bytes(), frames].concat()
}

/// Why there is no connection.
#[track_caller]
fn refusal<T>(outcome: Result<T, Error>) -> Arc<ConnectError> {
    match outcome {
        Err(Error::Connect(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a connection, where there should be none"),
    }
}
