//! What every server under test does the same way: its address, its first line, its limits, its threads.

use std::env;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use rustix::net::sockopt::set_tcp_nodelay;

/// Longest message a server must echo: 1 MiB is the largest cell, with room above.
pub const MAX_MESSAGE: usize = 16 << 20;

/// The first argument, or a port that the system chooses.
#[must_use]
pub fn address() -> String {
    env::args().nth(1).unwrap_or_else(|| String::from("127.0.0.1:0"))
}

/// The second argument: at which level a peer with permessage-deflate compresses, 6 by default.
#[must_use]
pub fn deflate_level() -> u32 {
    env::args().nth(2).map_or(6, |level| level.parse().expect("a level from 1 to 9"))
}

/// How many threads serve: `PEER_THREADS`, 1 by default.
#[must_use]
pub fn threads() -> usize {
    env::var("PEER_THREADS").map_or(1, |count| count.parse().expect("PEER_THREADS is a number"))
}

/// Runs a peer on tokio: on the current-thread runtime, or with more [`threads`] on as many workers.
#[cfg(feature = "peers")]
pub fn run_on_tokio(serve: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    use tokio::runtime::Builder;
    let mut runtime = match threads() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    runtime.worker_threads(threads()).enable_all().build()?.block_on(serve)
}

/// Runs one loop on each of the [`threads`], each with a listener of its own.
///
/// All addresses are announced, and the load connects to one after the other: so every thread has as
/// many connections as the others. The kernel spreads those to one port at random (`SO_REUSEPORT`).
pub fn run_loops(serve: fn(TcpListener) -> io::Result<()>) -> io::Result<()> {
    let listeners: Vec<_> = (0..threads()).map(|_| bind()).collect::<io::Result<_>>()?;
    let addresses: Vec<_> =
        listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    announce("http", &addresses)?;
    let loops: Vec<_> =
        listeners.into_iter().map(|listener| thread::spawn(move || serve(listener))).collect();
    loops.into_iter().try_for_each(|it| it.join().expect("a loop does not panic"))
}

/// Says where the server listens, in the line the runner waits for.
fn announce(scheme: &str, addresses: &[SocketAddr]) -> io::Result<()> {
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {scheme}://{}", addresses.join(","))?;
    stdout.flush()
}

/// A non-blocking listener on the first argument, announced.
///
/// Linux hands `TCP_NODELAY` down to accepted sockets, so even a peer that never sets it has it.
pub fn listen() -> io::Result<TcpListener> {
    listen_for("http")
}

/// The same for a peer that speaks TLS.
pub fn listen_tls() -> io::Result<TcpListener> {
    listen_for("https")
}

fn listen_for(scheme: &str) -> io::Result<TcpListener> {
    let listener = bind()?;
    announce(scheme, &[listener.local_addr()?])?;
    Ok(listener)
}

fn bind() -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address())?;
    listener.set_nonblocking(true)?;
    set_tcp_nodelay(&listener, true)?;
    Ok(listener)
}
