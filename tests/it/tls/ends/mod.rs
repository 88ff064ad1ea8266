//! How TLS ends: with a `close_notify` from this side, whatever ended the connection ([RFC 8446 §6.1]).
//!
//! Each row brings a connection to its end, in TLS 1.2 and 1.3, and the peer reads what comes. Two judges
//! look at that: rustls, and the bytes themselves. In TLS 1.2 the type of a record says openly that it
//! is an alert; in TLS 1.3 its length does. What Python's `ssl` and openssl say is in `tests/interop`.
//!
//! [RFC 8446 §6.1]: https://www.rfc-editor.org/rfc/rfc8446#section-6.1

#[cfg(feature = "client")]
mod client;
mod server;

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tidewire::tls::rustls::version::{TLS12, TLS13};
use tidewire::tls::rustls::{ConnectionCommon, SideData, StreamOwned, SupportedProtocolVersion};

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(100);

const VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("1.2", &TLS12), ("1.3", &TLS13)];

/// A record that is not encrypted: `close_notify`, as a warning.
const PLAIN_CLOSE_NOTIFY: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";

/// A socket that keeps a copy of what is read from it.
#[derive(Debug)]
struct Tap {
    socket: TcpStream,
    copy: Vec<u8>,
}

impl Tap {
    fn new(socket: TcpStream) -> Self {
        Self { socket, copy: Vec::new() }
    }
}

impl Read for Tap {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.socket.read(buf)?;
        self.copy.extend_from_slice(&buf[..len]);
        Ok(len)
    }
}

impl Write for Tap {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Reads to the end of TLS, and on to that of TCP: is a `close_notify` the last that comes?
fn ends_with_close_notify<C, S>(peer: &mut StreamOwned<C, Tap>) -> Result<(), String>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    peer.read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    match peer.sock.read_to_end(&mut Vec::new()) {
        // It was dropped with bytes that it had not read, such as a session ticket.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        end => drop(end.map_err(|error| error.to_string())?),
    }
    let (kind, len) = last_record(&peer.sock.copy);
    let is_alert = match peer.conn.protocol_version() {
        Some(version) if version == TLS12.version => kind == 0x15,
        // A level, a description, the true type and the tag (RFC 8446 §5.2, §6).
        _ => (kind, len) == (0x17, 2 + 1 + 16),
    };
    if is_alert { Ok(()) } else { Err(format!("a record of type {kind:#x} and {len} bytes")) }
}

/// Fails with all ends that were not as they should be.
#[track_caller]
fn expect_all<T: Display>(ends: impl IntoIterator<Item = (T, Result<(), String>)>) {
    let failed = ends.into_iter().filter_map(|(end, outcome)| Some((end, outcome.err()?)));
    let failed: Vec<_> = failed.map(|(end, error)| format!("{end}: {error}")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The type and the length of the last record.
fn last_record(mut records: &[u8]) -> (u8, usize) {
    let mut last = (0, 0);
    while let [kind, 3, _, high, low, rest @ ..] = records {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        last = (*kind, len);
        records = rest.get(len..).expect("the last record is whole");
    }
    assert!(records.is_empty(), "{records:02x?} is no record");
    last
}
