//! `handshake`: connect, upgrade, one echo, closing handshake, end of stream, and again; all of it
//! through TLS if that is asked for.

use std::io::{self, ErrorKind};
use std::time::Instant;

use peers::wire;

use crate::args::Args;
use crate::client::{self, PATIENCE, Poller};
use crate::messages::Messages;
use crate::process::Accounts;
use crate::reader::{Echoes, Reader};
use crate::stream::{self, Connector, Stream};

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut load = Load::new(args)?;
    for number in 0..args.connections {
        load.begin(number)?;
    }
    let warm = Instant::now();
    load.run(|_| warm.elapsed() < args.warm_up)?;

    let (begin, done, before) = (Instant::now(), load.done, Accounts::read(args)?);
    match args.messages {
        Some(messages) => load.run(|load| load.done - done < messages)?,
        None => load.run(|_| begin.elapsed() < args.duration)?,
    }
    let costs = Accounts::read(args)?.since(&before);
    let cycles = load.done - done;
    println!(
        r#"{{"mode": "handshake", "tls": {}, "connections": {}, "bytes": {}, "cycles": {cycles}, "cycles_per_second": {:.0}, {}}}"#,
        args.tls,
        args.connections,
        args.bytes,
        cycles as f64 / costs.seconds,
        costs.json("cycle", cycles),
    );
    Ok(())
}

struct Load {
    connector: Connector,
    poller: Poller,
    slots: Vec<Option<Cycle>>,
    request: String,
    messages: Messages,
    close: Vec<u8>,
    buffer: Vec<u8>,
    done: u64,
}

/// One connection's life.
#[derive(Debug)]
struct Cycle {
    stream: Stream,
    step: Step,
    reader: Reader,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Upgrade,
    Echo,
    Close,
}

impl Load {
    fn new(args: &Args) -> io::Result<Self> {
        Ok(Self {
            connector: Connector::new(args)?,
            poller: Poller::new(args.spin)?,
            slots: (0..args.connections).map(|_| None).collect(),
            request: wire::request(&args.address(0).to_string(), &args.path, None),
            messages: Messages::new(args),
            close: wire::masked_frame(wire::CLOSE, [1, 2, 3, 4], b"\x03\xe8"),
            buffer: vec![0; stream::READ],
            done: 0,
        })
    }

    fn run(&mut self, goes_on: impl Fn(&Self) -> bool) -> io::Result<()> {
        let mut progress = Instant::now();
        while goes_on(self) {
            let count = self.poller.wait()?;
            for at in 0..count {
                let (number, _, _) = self.poller.ready(at);
                self.advance(number)?;
            }
            if count > 0 {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> io::Result<()> {
        let stream = self.connector.open(number, self.request.as_bytes())?;
        self.poller.add(stream.socket(), number)?;
        let (step, reader) = (Step::Upgrade, Reader::new(Echoes::Plain, 0));
        self.slots[number] = Some(Cycle { stream, step, reader });
        Ok(())
    }

    fn advance(&mut self, number: usize) -> io::Result<()> {
        let Some(cycle) = &mut self.slots[number] else { return Ok(()) };
        let len = match cycle.stream.read(&mut self.buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A server may reset what it has closed; that is an end as well.
            Err(_) if matches!(cycle.step, Step::Close) => 0,
            Err(error) => return Err(error),
        };
        let bytes = &self.buffer[..len];
        match cycle.step {
            Step::Close if len == 0 && cycle.reader.is_closed() => {
                self.done += 1;
                self.slots[number] = None;
                return self.begin(number);
            }
            _ if len == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            Step::Upgrade => {
                client::check_answer(bytes)?;
                cycle.stream.check_handshake()?;
                cycle.stream.write(self.messages.frame())?;
                cycle.step = Step::Echo;
            }
            Step::Echo => {
                if cycle.reader.read(bytes, &self.messages)? > 0 {
                    cycle.stream.write(&self.close)?;
                    cycle.step = Step::Close;
                }
            }
            Step::Close => drop(cycle.reader.read(bytes, &self.messages)?),
        }
        Ok(())
    }
}
