//! Counters of a connection, its name, and how it ended.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::write::Counts;
use crate::proto::{CloseCode, CloseFrame, State};
use crate::records::Field;

/// Counters of one connection, since it was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Messages received whole.
    pub messages_in: u64,
    /// Messages queued, by `send` or as the last frame of `send_frame`.
    pub messages_out: u64,
    /// Messages among those received that were compressed (RFC 7692).
    pub compressed_in: u64,
    /// Messages among those queued that are compressed; one in fragments counts from the first on.
    pub compressed_out: u64,
    /// Frames received, control frames included.
    pub frames_in: u64,
    /// Frames queued, control frames included.
    pub frames_out: u64,
    /// Bytes received in the payloads of data frames, decompressed: what `recv` has returned counts,
    /// if messages are compressed.
    pub payload_bytes_in: u64,
    /// Bytes queued in the payloads of data frames, before compression.
    pub payload_bytes_out: u64,
    /// Bytes read from the stream, compressed and with headers.
    pub wire_bytes_in: u64,
    /// Bytes the stream has taken, compressed and with headers.
    pub wire_bytes_out: u64,
    /// Pings received.
    pub pings_in: u64,
    /// Pings queued, those of a heartbeat included.
    pub pings_out: u64,
    /// Pongs received, asked for or not.
    pub pongs_in: u64,
    /// Pongs queued, asked for or not.
    pub pongs_out: u64,
    /// How long the latest answered ping of a heartbeat was under way; `None` before.
    pub rtt: Option<Duration>,
    /// When the connection was opened.
    pub since: Instant,
}

/// The counters of a connection. Its `Outbox` counts the frames on their way out.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) messages_in: u64,
    pub(super) compressed_in: u64,
    pub(super) frames_in: u64,
    pub(super) payload_bytes_in: u64,
    pub(super) wire_bytes_in: u64,
    pub(super) wire_bytes_out: u64,
    pub(super) pings_in: u64,
    pub(super) pongs_in: u64,
    /// How often the stream has taken bytes that it had refused before.
    pub(super) room_made: u64,
    pub(super) rtt: Option<Duration>,
    since: Instant,
}

impl Tally {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            messages_in: 0,
            compressed_in: 0,
            frames_in: 0,
            payload_bytes_in: 0,
            wire_bytes_in: 0,
            wire_bytes_out: 0,
            pings_in: 0,
            pongs_in: 0,
            room_made: 0,
            rtt: None,
            since,
        }
    }

    /// With what was queued.
    pub(super) fn stats(&self, queued: &Counts) -> ConnectionStats {
        ConnectionStats {
            messages_in: self.messages_in,
            messages_out: queued.messages,
            compressed_in: self.compressed_in,
            compressed_out: queued.compressed,
            frames_in: self.frames_in,
            frames_out: queued.frames,
            payload_bytes_in: self.payload_bytes_in,
            payload_bytes_out: queued.payload_bytes,
            wire_bytes_in: self.wire_bytes_in,
            wire_bytes_out: self.wire_bytes_out,
            pings_in: self.pings_in,
            pings_out: queued.pings,
            pongs_in: self.pongs_in,
            pongs_out: queued.pongs,
            rtt: self.rtt,
            since: self.since,
        }
    }
}

/// Which side ended the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
pub enum Initiator {
    /// This side: it sent the first close frame, or gave the peer up.
    Local,
    /// The peer: it sent the first close frame, or its stream ended.
    Remote,
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "this side",
            Self::Remote => "the peer",
        })
    }
}

/// The end of a connection (RFC 6455 §7.1.5 and §7.1.6).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CloseInfo {
    /// The code of the first close frame; `None` if it had none, or if there was no close frame.
    pub code: Option<CloseCode>,
    /// The reason of the first close frame.
    pub reason: String,
    /// The side that ended the connection.
    pub initiator: Initiator,
    /// Whether close frames went both ways (§7.1.4).
    pub clean: bool,
}

/// The code as [reported](CloseInfo::reported_code), its side, and the reason if there is one:
/// `1001 by the peer, deploying`.
impl fmt::Display for CloseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.reported_code(), self.initiator)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ", {}", self.reason) }
    }
}

impl CloseInfo {
    pub(super) fn new(state: &State, initiator: Initiator) -> Self {
        let frame = match initiator {
            Initiator::Local => state.sent_close(),
            Initiator::Remote => state.received_close(),
        };
        Self {
            code: frame.map(CloseFrame::code),
            reason: frame.map(CloseFrame::reason).unwrap_or_default().to_owned(),
            initiator,
            // Ours follows the messages that wait for an answer.
            clean: state.is_closed() || state.received_close_first(),
        }
    }

    /// The code as the RFC reports it: 1005 for a close frame without one, 1006 for no close frame
    /// at all (§7.1.5).
    #[must_use]
    pub fn reported_code(&self) -> u16 {
        match self.code {
            Some(code) => code.into(),
            None if self.clean => 1005,
            None => 1006,
        }
    }
}

/// The number of a connection: another one for each that this process has opened, in the order in
/// which they were.
///
/// A connection of a server has it from its first request on, so some belong to connections that never
/// became WebSockets. It is the field `connection` of log records.
///
/// ```
/// # fn run(ws: &tidewire::WebSocket) {
/// println!("connection {} is open", ws.id());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(NonZeroU64);

impl ConnectionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Zero comes after centuries.
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX))
    }
}

impl From<ConnectionId> for u64 {
    fn from(id: ConnectionId) -> Self {
        id.0.get()
    }
}

impl Field for ConnectionId {
    type Value<'a> = u64;

    fn value(&self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_shows_its_code_its_side_and_its_reason() {
        let mut info = CloseInfo {
            code: Some(CloseCode::GOING_AWAY),
            reason: "deploying".to_owned(),
            initiator: Initiator::Remote,
            clean: true,
        };
        assert_eq!(info.to_string(), "1001 by the peer, deploying");
        info = CloseInfo { code: None, reason: String::new(), initiator: Initiator::Local, ..info };
        assert_eq!(info.to_string(), "1005 by this side");
        info.clean = false;
        assert_eq!(info.to_string(), "1006 by this side");
    }
}
