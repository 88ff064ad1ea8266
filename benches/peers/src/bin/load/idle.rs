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
use crate::process;
use crate::reader::Reader;

/// Connections opened before the first reading, so that what a server allocates once is in it.
const FIRST: usize = 100;
/// Pause between two looks at the server's memory, and how many equal ones are enough.
const PAUSE: Duration = Duration::from_millis(250);
const EQUAL: usize = 4;

/// Runs the mode and prints its line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let pid = args.pid.ok_or_else(|| io::Error::other("idle wants --pid"))?;
    let payload = client::payload(args.bytes);
    let message = client::message(args, &payload);

    let mut first = open(args, FIRST)?;
    first.iter_mut().try_for_each(|stream| echo(stream, &message, &payload))?;
    let before = settled(pid)?;
    let mut streams = open(args, args.connections)?;
    let opened = settled(pid)?;
    streams.iter_mut().try_for_each(|stream| echo(stream, &message, &payload))?;
    let used = settled(pid)?;

    let each = |now: u64| (now as f64 - before as f64) / args.connections as f64;
    println!(
        r#"{{"mode": "idle", "connections": {}, "bytes": {}, "rss_before": {before}, "rss_opened": {opened}, "rss_used": {used}, "bytes_per_connection": {:.0}, "bytes_per_used_connection": {:.0}}}"#,
        args.connections,
        args.bytes,
        each(opened),
        each(used),
    );
    Ok(())
}

fn open(args: &Args, count: usize) -> io::Result<Vec<TcpStream>> {
    let blocking = |stream: TcpStream| stream.set_nonblocking(false).map(|()| stream);
    (0..count).map(|_| client::open(args).and_then(blocking)).collect()
}

fn echo(stream: &mut TcpStream, message: &[u8], payload: &[u8]) -> io::Result<()> {
    stream.write_all(message)?;
    let mut reader = Reader::default();
    let mut buffer = [0; 4096];
    loop {
        let len = match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => len,
        };
        if reader.read(&buffer[..len], payload)? > 0 {
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
