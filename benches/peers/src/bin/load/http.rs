//! `http`: `GET` on connections that stay open, one request under way on each.
//!
//! Every answer must have status 200 and a body of the length that was asked for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use peers::wire;

use crate::args::Args;
use crate::client::{PATIENCE, Poller};
use crate::histogram::Histogram;
use crate::process::Accounts;

/// Bytes asked of one `read`: a whole answer, unless its head is a long one.
const READ: usize = 4 << 10;

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut load = Load::open(args)?;
    for number in 0..args.connections {
        load.ask(number)?;
    }
    load.run_for(args.warm_up)?;
    load.latencies = Histogram::new();
    let (answered, before) = (load.answered, Accounts::read(args)?);
    load.run_for(args.duration)?;
    let costs = Accounts::read(args)?.since(&before);
    let requests = load.answered - answered;
    println!(
        r#"{{"mode": "http", "connections": {}, "bytes": {}, "requests": {requests}, "requests_per_second": {:.0}, "p50_us": {:.1}, "p99_us": {:.1}, {}}}"#,
        args.connections,
        args.bytes,
        requests as f64 / costs.seconds,
        load.latencies.quantile(0.5),
        load.latencies.quantile(0.99),
        costs.json("request", requests),
    );
    Ok(())
}

struct Load {
    poller: Poller,
    connections: Vec<Connection>,
    request: String,
    /// Bytes of every answer's body.
    body: usize,
    buffer: Vec<u8>,
    latencies: Histogram,
    answered: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    asked: Instant,
    /// The start of an answer whose end has not come yet.
    partial: Vec<u8>,
}

impl Load {
    fn open(args: &Args) -> io::Result<Self> {
        let poller = Poller::new(args.spin)?;
        let mut connections = Vec::with_capacity(args.connections);
        for number in 0..args.connections {
            let stream = TcpStream::connect(args.address(number))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poller.add(&stream, number)?;
            connections.push(Connection { stream, asked: Instant::now(), partial: Vec::new() });
        }
        Ok(Self {
            poller,
            connections,
            request: format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", args.path, args.address(0)),
            body: args.bytes,
            buffer: vec![0; READ],
            latencies: Histogram::new(),
            answered: 0,
        })
    }

    fn run_for(&mut self, duration: Duration) -> io::Result<()> {
        let (begun, mut progress) = (Instant::now(), Instant::now());
        while begun.elapsed() < duration {
            let count = self.poller.wait()?;
            for at in 0..count {
                let (number, _, _) = self.poller.ready(at);
                self.receive(number)?;
            }
            if count > 0 {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                let message = format!("no answer for {PATIENCE:?}, after {}", self.answered);
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
        }
        Ok(())
    }

    fn ask(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        connection.asked = Instant::now();
        // The socket is empty, for the server has answered all that was in it.
        connection.stream.write_all(self.request.as_bytes())
    }

    fn receive(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let len = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            outcome => outcome?,
        };
        connection.partial.extend_from_slice(&self.buffer[..len]);
        if !is_answer(&connection.partial, self.body)? {
            return Ok(());
        }
        connection.partial.clear();
        let waited = connection.asked.elapsed().as_nanos();
        self.latencies.add(u64::try_from(waited).unwrap_or(u64::MAX), 1);
        self.answered += 1;
        self.ask(number)
    }
}

/// Whether `bytes` are a whole answer; an error if they are another one than was asked for.
fn is_answer(bytes: &[u8], body: usize) -> io::Result<bool> {
    let Some(head_len) = wire::head_len(bytes) else { return Ok(false) };
    let head = String::from_utf8_lossy(&bytes[..head_len]);
    let content_len = wire::header(&head, "content-length").and_then(|len| len.parse().ok());
    let is_right = head.starts_with("HTTP/1.1 200 ") && content_len == Some(body);
    if is_right && bytes.len() <= head_len + body {
        return Ok(bytes.len() == head_len + body);
    }
    let text = String::from_utf8_lossy(bytes);
    Err(io::Error::new(ErrorKind::InvalidData, format!("not 200 with {body} bytes: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for len in 0..answer.len() {
            assert!(!is_answer(&answer[..len], 5).unwrap(), "{len}");
        }
        assert!(is_answer(answer, 5).unwrap());
    }

    #[test]
    fn another_answer_is_an_error() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        ] {
            assert!(is_answer(answer.as_bytes(), 5).is_err(), "{answer}");
        }
    }
}
