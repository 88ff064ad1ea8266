//! The bytes that go over a backplane: a message and the hub that published it.
//!
//! | bytes | hold |
//! | --- | --- |
//! | 0 | the version, 1 |
//! | 1 | the kind: 1 text, 2 binary |
//! | 2 | flags: 1 never to be compressed, 2 to be compressed, 4 with a position |
//! | 3 to 10 | the origin: the number of the hub that published it |
//! | 11 to 26 | with flag 4, the position: epoch and offset, 8 bytes each |
//! | the rest | the message |
//!
//! Numbers are big-endian. A payload with an unknown version, kind or flag comes from a later version of
//! this crate, or from another program. It is skipped, since the unknown flag could be the one that keeps
//! a secret from being compressed. An addition therefore uses a new kind or flag if processes of this
//! version may miss such payloads, and a new version if the layout changes. The position stands at a fixed
//! place, so that a broker that numbers messages can fill it in.
//!
//! Payloads are not trusted. They do not announce a length, so they cannot make a reader allocate memory.
//! Text is checked to be UTF-8.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::Message;

const VERSION: u8 = 1;

const TEXT: u8 = 1;
const BINARY: u8 = 2;

const UNCOMPRESSED: u8 = 1;
const COMPRESSED: u8 = 2;
const POSITION: u8 = 4;

/// Bytes before the message, or before the position if there is one.
const HEAD: usize = 11;

/// The position of a message in the history of its room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Position {
    /// Changes whenever the history begins anew.
    pub(super) epoch: u64,
    /// Grows by one with each message.
    pub(super) offset: u64,
}

/// A payload whose head has been read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Payload {
    /// The hub that published it.
    pub(super) origin: u64,
    pub(super) position: Option<Position>,
    kind: Kind,
    /// Whether to compress the message; `None` if the publisher has not decided.
    compression: Option<bool>,
    body: Bytes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Text,
    Binary,
}

/// The reason why a payload is skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    Truncated { len: usize },
    Version(u8),
    Kind(u8),
    Flags(u8),
    NotUtf8,
}

impl Payload {
    /// Reads the head of a payload.
    pub(super) fn decode(payload: &Bytes) -> Result<Self, Unreadable> {
        let truncated = Unreadable::Truncated { len: payload.len() };
        let (head, mut rest) = payload.split_first_chunk::<HEAD>().ok_or(truncated)?;
        let [version, kind, flags, origin @ ..] = *head;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let kind = match kind {
            TEXT => Kind::Text,
            BINARY => Kind::Binary,
            _ => return Err(Unreadable::Kind(kind)),
        };
        let compression = match flags & !POSITION {
            0 => None,
            UNCOMPRESSED => Some(false),
            COMPRESSED => Some(true),
            _ => return Err(Unreadable::Flags(flags)),
        };
        let mut position = None;
        if flags & POSITION != 0 {
            let (epoch, after) = rest.split_first_chunk().ok_or(truncated)?;
            let (offset, after) = after.split_first_chunk().ok_or(truncated)?;
            let [epoch, offset] = [epoch, offset].map(|number| u64::from_be_bytes(*number));
            position = Some(Position { epoch, offset });
            rest = after;
        }
        let origin = u64::from_be_bytes(origin);
        Ok(Self { origin, position, kind, compression, body: payload.slice_ref(rest) })
    }

    /// Returns the message, as it was published.
    pub(super) fn into_message(self) -> Result<Message, Unreadable> {
        let message = match self.kind {
            Kind::Text => Message::from_utf8(self.body).map_err(|_| Unreadable::NotUtf8)?,
            Kind::Binary => Message::binary(self.body),
        };
        Ok(match self.compression {
            None => message,
            Some(true) => message.compressed(),
            Some(false) => message.uncompressed(),
        })
    }
}

/// Writes a message as a payload.
pub(super) fn encode(origin: u64, position: Option<Position>, message: &Message) -> Bytes {
    let compression = match message.compression() {
        None => 0,
        Some(false) => UNCOMPRESSED,
        Some(true) => COMPRESSED,
    };
    let flags = if position.is_some() { compression | POSITION } else { compression };
    let mut payload = BytesMut::with_capacity(HEAD + 16 + message.len());
    payload.put_u8(VERSION);
    payload.put_u8(if message.is_text() { TEXT } else { BINARY });
    payload.put_u8(flags);
    payload.put_u64(origin);
    if let Some(Position { epoch, offset }) = position {
        payload.put_u64(epoch);
        payload.put_u64(offset);
    }
    payload.extend_from_slice(message.as_bytes());
    payload.freeze()
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { len } => write!(f, "{len} bytes are too few"),
            Self::Version(version) => write!(f, "version {version} is unknown"),
            Self::Kind(kind) => write!(f, "kind {kind} is unknown"),
            Self::Flags(flags) => write!(f, "flags {flags:#04x} are unknown"),
            Self::NotUtf8 => f.write_str("the text is not UTF-8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: u64 = 0x0102_0304_0506_0708;
    const THERE: Position = Position { epoch: 0xe0, offset: 0x0f };

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn a_published_message_is_read_again_with_all_its_properties() {
        for (message, position, hex) in [
            (Message::from("Hi"), None, "01 01 00 0102030405060708 4869"),
            (Message::from("ß"), None, "01 01 00 0102030405060708 c39f"),
            (Message::from(""), None, "01 01 00 0102030405060708"),
            (Message::binary(vec![0, 255]), None, "01 02 00 0102030405060708 00ff"),
            (Message::from("Hi").uncompressed(), None, "01 01 01 0102030405060708 4869"),
            (Message::from("Hi").compressed(), None, "01 01 02 0102030405060708 4869"),
            (Message::binary(vec![7]).uncompressed(), None, "01 02 01 0102030405060708 07"),
            (
                Message::from("Hi"),
                Some(THERE),
                "01 01 04 0102030405060708 00000000000000e0 000000000000000f 4869",
            ),
            (
                Message::from("Hi").uncompressed(),
                Some(THERE),
                "01 01 05 0102030405060708 00000000000000e0 000000000000000f 4869",
            ),
        ] {
            let payload = encode(ORIGIN, position, &message);
            assert_eq!(payload, bytes(hex), "{message:?}");
            let read = Payload::decode(&payload).unwrap();
            assert_eq!((read.origin, read.position), (ORIGIN, position), "{hex}");
            let again = read.into_message().unwrap();
            assert_eq!(again, message, "{hex}");
            assert_eq!(again.compression(), message.compression(), "{hex}");
        }
    }

    #[test]
    fn a_payload_that_this_version_does_not_know_is_skipped() {
        for (hex, unreadable) in [
            ("", Unreadable::Truncated { len: 0 }),
            ("01 01 00 01020304050607", Unreadable::Truncated { len: 10 }),
            ("01 01 04 0102030405060708", Unreadable::Truncated { len: 11 }),
            (
                "01 01 04 0102030405060708 00000000000000e0 0000000000000f",
                Unreadable::Truncated { len: 26 },
            ),
            ("00 01 00 0102030405060708 4869", Unreadable::Version(0)),
            ("02 01 00 0102030405060708 4869", Unreadable::Version(2)),
            // `{"message":1}`, of another program on the same broker.
            ("7b 22 6d 6573736167652a3a 317d", Unreadable::Version(0x7b)),
            ("01 00 00 0102030405060708 4869", Unreadable::Kind(0)),
            ("01 03 00 0102030405060708 4869", Unreadable::Kind(3)),
            ("01 ff 00 0102030405060708 4869", Unreadable::Kind(0xff)),
            // Two flags that contradict each other.
            ("01 01 03 0102030405060708 4869", Unreadable::Flags(3)),
            ("01 01 08 0102030405060708 4869", Unreadable::Flags(8)),
            ("01 01 80 0102030405060708 4869", Unreadable::Flags(0x80)),
            ("01 01 ff 0102030405060708 4869", Unreadable::Flags(0xff)),
        ] {
            assert_eq!(Payload::decode(&bytes(hex)), Err(unreadable), "{hex}");
            assert!(!unreadable.to_string().is_empty());
        }
        let read = Payload::decode(&bytes("01 01 00 0102030405060708 ff")).unwrap();
        assert_eq!(read.into_message(), Err(Unreadable::NotUtf8));
    }

    #[test]
    fn any_bytes_are_skipped_or_equal_the_payload_of_their_message() {
        // An xorshift with a fixed seed.
        let mut state = 6455_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let mut readable = 0_u32;
        for _ in 0..200_000 {
            let mut payload: Vec<u8> = (0..random() % 40).map(|_| random()).collect();
            // Most of them with a head that is nearly right.
            for (byte, most) in payload.iter_mut().zip([2, 4, 16]) {
                if random() % 4 > 0 {
                    *byte %= most;
                }
            }
            let payload = Bytes::from(payload);
            let Ok(read) = Payload::decode(&payload) else { continue };
            let (origin, position) = (read.origin, read.position);
            let Ok(message) = read.into_message() else { continue };
            assert_eq!(encode(origin, position, &message), payload);
            readable += 1;
        }
        assert!(readable > 1_000, "{readable}");
    }
}
