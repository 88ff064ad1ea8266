//! `echo`: so many messages under way per connection, and each echo is followed by a new one.
//!
//! Echoes that arrive in one `read` are answered by one `write`, so a server that batches its
//! answers meets a client that batches its questions.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::client::{self, PATIENCE, Poller};
use crate::histogram::Histogram;
use crate::messages::Messages;
use crate::process::{Accounts, Costs};
use crate::reader::{Echoes, Reader};

/// Bytes asked of one `read`.
const READ: usize = 256 << 10;

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut load = Load::open(args)?;
    let window = match args.messages {
        None => load.measure_for(args)?,
        Some(messages) => load.measure_count(args, messages)?,
    };
    println!("{}", window.json(args, &load));
    // The connections stay until whoever counts system calls has stopped counting.
    if args.gate { wait_for_line() } else { Ok(()) }
}

fn wait_for_line() -> io::Result<()> {
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}

struct Load {
    poller: Poller,
    connections: Vec<Connection>,
    messages: Messages,
    /// What the server answered to the extension that was offered.
    extensions: String,
    buffer: Vec<u8>,
    latencies: Histogram,
    begin: Instant,
    /// Messages echoed so far.
    received: u64,
    /// Bytes read so far.
    bytes: u64,
    /// Messages sent and not echoed yet.
    under_way: u64,
    /// Messages that may still be sent; `None` is without end.
    budget: Option<u64>,
}

impl Load {
    fn open(args: &Args) -> io::Result<Self> {
        let messages = Messages::new(args);
        let poller = Poller::new(args.spin)?;
        let mut connections = Vec::with_capacity(args.connections);
        let mut extensions = String::new();
        for number in 0..args.connections {
            let (stream, answer) = client::open(args, number)?;
            poller.add(&stream, number)?;
            // Each begins elsewhere in the cycle, lest the server compress the same text for all of
            // them one after another, which the processor learns by heart.
            let next = number * messages.count() / args.connections;
            let reader = Reader::new(Echoes::of(args.deflate, number == 0), next);
            connections.push(Connection::new(stream, reader, next, messages.start(next)));
            extensions = answer;
        }
        Ok(Self {
            poller,
            connections,
            messages,
            extensions,
            buffer: vec![0; READ],
            latencies: Histogram::new(),
            begin: Instant::now(),
            received: 0,
            bytes: 0,
            under_way: 0,
            budget: None,
        })
    }

    /// Warms up, then measures between two instants while the load goes on.
    fn measure_for(&mut self, args: &Args) -> io::Result<Window> {
        self.start(args.in_flight)?;
        self.run_until(self.begin.elapsed() + args.warm_up)?;
        self.latencies = Histogram::new();
        let before = Reading::take(self, args)?;
        self.run_until(self.begin.elapsed() + args.duration)?;
        Ok(Reading::take(self, args)?.since(&before))
    }

    /// Warms up with one round, then measures exactly `messages`, from silence to silence.
    fn measure_count(&mut self, args: &Args, messages: u64) -> io::Result<Window> {
        self.budget = Some(self.connections.len() as u64 * u64::from(args.in_flight));
        self.start(args.in_flight)?;
        self.run_dry()?;
        if args.gate {
            println!("ready");
            wait_for_line()?;
        }
        self.latencies = Histogram::new();
        self.budget = Some(messages);
        let before = Reading::take(self, args)?;
        self.start(args.in_flight)?;
        self.run_dry()?;
        Ok(Reading::take(self, args)?.since(&before))
    }

    fn start(&mut self, in_flight: u32) -> io::Result<()> {
        for number in 0..self.connections.len() {
            let now = self.now();
            self.send(number, in_flight, now)?;
        }
        Ok(())
    }

    fn run_until(&mut self, end: Duration) -> io::Result<()> {
        self.run_while(|load| load.begin.elapsed() < end)
    }

    fn run_dry(&mut self) -> io::Result<()> {
        self.run_while(|load| load.under_way > 0)
    }

    fn run_while(&mut self, goes_on: impl Fn(&Self) -> bool) -> io::Result<()> {
        let mut progress = Instant::now();
        while goes_on(self) {
            if self.turn()? > 0 {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                return Err(stalled(self.received));
            }
        }
        Ok(())
    }

    /// One wait, and what it brings; returns how many sockets were ready.
    fn turn(&mut self) -> io::Result<usize> {
        let count = self.poller.wait()?;
        for at in 0..count {
            let (number, writes, reads) = self.poller.ready(at);
            if reads {
                self.receive(number)?;
            }
            if writes {
                self.write(number)?;
            }
        }
        Ok(count)
    }

    fn receive(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let len = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            outcome => outcome?,
        };
        self.bytes += len as u64;
        let echoes = connection.reader.read(&self.buffer[..len], &self.messages)?;
        if connection.reader.is_closed() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        if echoes == 0 {
            return Ok(());
        }
        self.received += u64::from(echoes);
        self.under_way -= u64::from(echoes);
        let now = self.now();
        self.connections[number].note_echoes(echoes, now, &mut self.latencies);
        self.send(number, echoes, now)
    }

    fn send(&mut self, number: usize, wanted: u32, now: u64) -> io::Result<()> {
        let mut count = wanted;
        if let Some(budget) = &mut self.budget {
            count = count.min(u32::try_from(*budget).unwrap_or(u32::MAX));
            *budget -= u64::from(count);
        }
        if count == 0 {
            return Ok(());
        }
        self.under_way += u64::from(count);
        let connection = &mut self.connections[number];
        connection.sent.push_back(Sent { at: now, count });
        let (next, bytes) = self.messages.step(connection.next, count);
        connection.next = next;
        connection.unsent += bytes;
        if connection.is_blocked { Ok(()) } else { self.write(number) }
    }

    fn write(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let was_blocked = connection.is_blocked;
        connection.write(&self.messages)?;
        if connection.is_blocked != was_blocked {
            self.poller.watch(&connection.stream, number, connection.is_blocked)?;
        }
        Ok(())
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        nanoseconds(self.begin.elapsed())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn stalled(received: u64) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("no echo for {PATIENCE:?}, after {received}"))
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// What is under way, oldest first.
    sent: VecDeque<Sent>,
    /// The message after those that are sent or waiting for the socket.
    next: usize,
    /// Bytes that the socket has not taken yet.
    unsent: usize,
    /// Where in the cycle of messages the next write begins.
    offset: usize,
    is_blocked: bool,
}

/// Messages that were written together.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: u64,
    count: u32,
}

impl Connection {
    fn new(stream: TcpStream, reader: Reader, next: usize, offset: usize) -> Self {
        Self { stream, reader, sent: VecDeque::new(), next, unsent: 0, offset, is_blocked: false }
    }

    fn note_echoes(&mut self, mut echoes: u32, now: u64, latencies: &mut Histogram) {
        while echoes > 0
            && let Some(sent) = self.sent.front_mut()
        {
            let count = sent.count.min(echoes);
            latencies.add(now.saturating_sub(sent.at), u64::from(count));
            echoes -= count;
            sent.count -= count;
            if sent.count == 0 {
                self.sent.pop_front();
            }
        }
    }

    fn write(&mut self, messages: &Messages) -> io::Result<()> {
        self.is_blocked = false;
        while self.unsent > 0 {
            let ready = messages.bytes_from(self.offset);
            let len = ready.len().min(self.unsent);
            match self.stream.write(&ready[..len]) {
                Ok(sent) => {
                    self.unsent -= sent;
                    self.offset = (self.offset + sent) % messages.cycle_len();
                    if sent == len {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.is_blocked = true;
            return Ok(());
        }
        Ok(())
    }
}

/// The counts and accounts at one instant.
#[derive(Debug)]
struct Reading {
    received: u64,
    bytes: u64,
    accounts: Accounts,
}

impl Reading {
    fn take(load: &Load, args: &Args) -> io::Result<Self> {
        let accounts = Accounts::read(args)?;
        Ok(Self { received: load.received, bytes: load.bytes, accounts })
    }

    fn since(&self, before: &Self) -> Window {
        Window {
            messages: self.received - before.received,
            bytes: self.bytes - before.bytes,
            costs: self.accounts.since(&before.accounts),
        }
    }
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug)]
struct Window {
    messages: u64,
    /// Of their echoes, headers included.
    bytes: u64,
    costs: Costs,
}

impl Window {
    fn json(&self, args: &Args, load: &Load) -> String {
        let deflate = args.deflate.map_or(String::new(), |_| {
            format!(
                r#", "extensions": {:?}, "wire_in": {:.1}, "wire_out": {:.1}"#,
                load.extensions,
                load.messages.cycle_len() as f64 / load.messages.count() as f64,
                self.bytes as f64 / self.messages.max(1) as f64
            )
        });
        format!(
            r#"{{"mode": "echo", "connections": {}, "bytes": {}, "in_flight": {}, "messages": {}, "messages_per_second": {:.0}, "p50_us": {:.1}, "p99_us": {:.1}, {}{deflate}}}"#,
            args.connections,
            args.bytes,
            args.in_flight,
            self.messages,
            self.messages as f64 / self.costs.seconds,
            load.latencies.quantile(0.5),
            load.latencies.quantile(0.99),
            self.costs.json("message", self.messages),
        )
    }
}
