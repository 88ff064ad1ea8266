//! What every server under test does the same way: its address, its first line, its limits.

use std::env;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

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

/// Says where the server listens, in the line the runner waits for.
fn announce(scheme: &str, address: SocketAddr) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {scheme}://{address}")?;
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
    let listener = TcpListener::bind(address())?;
    listener.set_nonblocking(true)?;
    set_tcp_nodelay(&listener, true)?;
    announce(scheme, listener.local_addr()?)?;
    Ok(listener)
}
