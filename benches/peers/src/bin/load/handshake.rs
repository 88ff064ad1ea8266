//! `handshake`: connect, upgrade, one echo, closing handshake, end of stream, and again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use peers::wire;

use crate::args::Args;
use crate::client::{self, PATIENCE, Poller};
use crate::messages::Messages;
use crate::process::CpuTime;
use crate::reader::{Echoes, Reader};

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let mut load = Load::new(args)?;
    for number in 0..args.connections {
        load.begin(number)?;
    }
    let warm = Instant::now();
    load.run(|_| warm.elapsed() < args.warm_up)?;

    let server = |args: &Args| args.pid.map(CpuTime::of).transpose();
    let (begin, done, before) = (Instant::now(), load.done, server(args)?);
    match args.messages {
        Some(messages) => load.run(|load| load.done - done < messages)?,
        None => load.run(|_| begin.elapsed() < args.duration)?,
    }
    let (after, seconds) = (server(args)?, begin.elapsed().as_secs_f64());
    let cycles = load.done - done;
    let cpu = after.zip(before).map_or(String::new(), |(after, before)| {
        let spent = after.since(&before);
        format!(
            r#", "cpu_ns_per_cycle": {:.0}, "server_busy": {:.3}, "server_waiting": {:.3}"#,
            spent.running as f64 / cycles.max(1) as f64,
            spent.running as f64 / 1e9 / seconds,
            spent.waiting as f64 / 1e9 / seconds
        )
    });
    println!(
        r#"{{"mode": "handshake", "connections": {}, "bytes": {}, "seconds": {seconds:.3}, "cycles": {cycles}, "cycles_per_second": {:.0}{cpu}}}"#,
        args.connections,
        args.bytes,
        cycles as f64 / seconds,
    );
    Ok(())
}

struct Load<'a> {
    args: &'a Args,
    poller: Poller,
    slots: Vec<Option<Cycle>>,
    request: String,
    messages: Messages,
    close: Vec<u8>,
    done: u64,
}

/// One connection's life.
#[derive(Debug)]
struct Cycle {
    stream: TcpStream,
    step: Step,
    reader: Reader,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Upgrade,
    Echo,
    Close,
}

impl<'a> Load<'a> {
    fn new(args: &'a Args) -> io::Result<Self> {
        Ok(Self {
            args,
            poller: Poller::new(args.spin)?,
            slots: (0..args.connections).map(|_| None).collect(),
            request: wire::request(&args.address.to_string(), &args.path, None),
            messages: Messages::new(args),
            close: wire::masked_frame(wire::CLOSE, [1, 2, 3, 4], b"\x03\xe8"),
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
        // On loopback this returns at once: the kernel completes it, not the server.
        let mut stream = TcpStream::connect(self.args.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(self.request.as_bytes())?;
        stream.set_nonblocking(true)?;
        self.poller.add(&stream, number)?;
        let (step, reader) = (Step::Upgrade, Reader::new(Echoes::Plain, 0));
        self.slots[number] = Some(Cycle { stream, step, reader });
        Ok(())
    }

    fn advance(&mut self, number: usize) -> io::Result<()> {
        let Some(cycle) = &mut self.slots[number] else { return Ok(()) };
        let mut buffer = [0; 4096];
        let len = match cycle.stream.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A server may reset what it has closed; that is an end as well.
            Err(_) if matches!(cycle.step, Step::Close) => 0,
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..len];
        match cycle.step {
            Step::Close if len == 0 && cycle.reader.is_closed() => {
                self.done += 1;
                self.slots[number] = None;
                return self.begin(number);
            }
            _ if len == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            Step::Upgrade => {
                client::check_answer(bytes)?;
                cycle.stream.write_all(self.messages.frame())?;
                cycle.step = Step::Echo;
            }
            Step::Echo => {
                if cycle.reader.read(bytes, &self.messages)? > 0 {
                    cycle.stream.write_all(&self.close)?;
                    cycle.step = Step::Close;
                }
            }
            Step::Close => drop(cycle.reader.read(bytes, &self.messages)?),
        }
        Ok(())
    }
}
