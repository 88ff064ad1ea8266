//! `idle`: what an upgraded connection costs in memory while nothing happens on it.
//!
//! Measured twice: just upgraded, and after one message each, which is what a connection in use
//! looks like between its messages.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::args::Args;
use crate::client::{self, PATIENCE};
use crate::messages::Messages;
use crate::process;
use crate::reader::{Echoes, Reader};

/// Connections opened before the first reading, so that what a server allocates once is in it.
const FIRST: usize = 100;
/// Pause between two looks at the server's memory, and how many equal ones are enough.
const PAUSE: Duration = Duration::from_millis(250);
const EQUAL: usize = 4;

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let pid = args.pid.ok_or_else(|| io::Error::other("idle wants --pid"))?;
    let messages = Messages::new(args);

    let (mut first, answer) = open(args, FIRST)?;
    first.iter_mut().try_for_each(|stream| echo(args, stream, &messages))?;
    let before = settled(pid)?;
    let (mut streams, _) = open(args, args.connections)?;
    let opened = settled(pid)?;
    streams.iter_mut().try_for_each(|stream| echo(args, stream, &messages))?;
    let used = settled(pid)?;

    let each = |now: u64| (now as f64 - before as f64) / args.connections as f64;
    println!(
        r#"{{"mode": "idle", "connections": {}, "bytes": {}, "rss_before": {before}, "rss_opened": {opened}, "rss_used": {used}, "bytes_per_connection": {:.0}, "bytes_per_used_connection": {:.0}, "extensions": {answer:?}}}"#,
        args.connections,
        args.bytes,
        each(opened),
        each(used),
    );
    Ok(())
}

/// Blocking streams, and what the server answered to the offer on the last of them.
fn open(args: &Args, count: usize) -> io::Result<(Vec<TcpStream>, String)> {
    let mut streams = Vec::with_capacity(count);
    let mut last = String::new();
    for number in 0..count {
        let (stream, answer) = client::open(args, number)?;
        stream.set_nonblocking(false)?;
        streams.push(stream);
        last = answer;
    }
    Ok((streams, last))
}

fn echo(args: &Args, stream: &mut TcpStream, messages: &Messages) -> io::Result<()> {
    stream.write_all(messages.frame())?;
    // The first message of each connection, which has nothing to refer to.
    let mut reader = Reader::new(Echoes::of(args.deflate, true), 0);
    let mut buffer = [0; 4096];
    loop {
        let len = match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => len,
        };
        if reader.read(&buffer[..len], messages)? > 0 {
            return Ok(());
        }
    }
}

/// The server's memory once it has stopped changing.
fn settled(pid: u32) -> io::Result<u64> {
    let mut last = (process::resident(pid)?, 0);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        thread::sleep(PAUSE);
        let now = process::resident(pid)?;
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        if last.1 == EQUAL {
            break;
        }
    }
    Ok(last.0)
}
