//! Frames for tests, written and read without the crate's own code ([RFC 6455 §5.2]).
//!
//! [RFC 6455 §5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.2

use std::fmt::Write as _;

/// The masking key of RFC 6455 §5.7.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const CONTINUATION: u8 = 0x80;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;
/// A head without this bit is that of a fragment which is not the last.
pub(crate) const FIN: u8 = 0x80;

/// Bytes from their hexadecimal digits; blanks do not matter.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The first of some bytes, for messages of failed tests.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for byte in bytes.iter().take(64) {
        let _ = write!(shown, "{byte:02x}");
    }
    if bytes.len() > 64 { format!("{shown}… ({} bytes)", bytes.len()) } else { shown }
}

/// A frame as a server sends it.
pub(crate) fn plain(head: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(head, 0, payload.as_ref())
}

/// A frame as a client sends it.
pub(crate) fn masked(head: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(head, 0x80, payload.as_ref())
}

/// The payload of a close frame.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

fn frame(head: u8, mask: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        len @ 0..=125 => frame.push(mask | u8::try_from(len).unwrap()),
        len @ 126..=65_535 => {
            frame.push(mask | 0x7e);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(mask | 0x7f);
            frame.extend(u64::try_from(len).unwrap().to_be_bytes());
        }
    }
    if mask == 0 {
        frame.extend(payload);
    } else {
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    frame
}

/// A frame that was read: its first byte, and its payload, unmasked.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) head: u8,
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    pub(crate) fn is_control(&self) -> bool {
        self.head & 0x08 != 0
    }

    /// The code of a close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.head, CLOSE, "{self:?}");
        Some(u16::from_be_bytes(*self.payload.first_chunk()?))
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x} {}", self.head, shown(&self.payload))
    }
}

/// Takes one frame off the front of `bytes`; `None` if it is not whole.
///
/// # Panics
///
/// If it breaks a rule of §5.1, §5.2 or §5.5.
pub(crate) fn take_frame(bytes: &mut &[u8], is_masked: bool) -> Option<Seen> {
    let (&[head, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(head & 0x70, 0, "reserved bits in {}", shown(bytes));
    assert!(matches!(head & 0x0f, 0..=2 | 8..=10), "reserved opcode in {}", shown(bytes));
    assert_eq!(second & 0x80 != 0, is_masked, "mask of {}", shown(bytes));
    let (len, least, rest) = match second & 0x7f {
        126 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*len)), 126, rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*len), 1 << 16, rest)
        }
        len => (u64::from(len), 0, rest),
    };
    assert!(len >= least, "length of {}", shown(bytes));
    if head & 0x08 != 0 {
        assert!(head & FIN != 0 && len <= 125, "control frame {}", shown(bytes));
    }
    let (key, rest) = if is_masked { rest.split_first_chunk()? } else { (&[0; 4], rest) };
    let (payload, rest) = rest.split_at_checked(usize::try_from(len).unwrap())?;
    *bytes = rest;
    let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some(Seen { head, payload })
}

/// What one side said, from its first byte to its last.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    /// Messages, joined, each with the head that it would have as one frame.
    pub(crate) messages: Vec<Seen>,
    pub(crate) pings: Vec<Vec<u8>>,
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) close: Option<Seen>,
}

impl Transcript {
    /// Reads all that one side sent.
    ///
    /// # Panics
    ///
    /// If that breaks a rule of §5, §7.4 or §8.1, or ends inside a frame.
    pub(crate) fn of(mut bytes: &[u8], is_masked: bool) -> Self {
        let (mut transcript, mut begun) = (Self::default(), None);
        while let Some(seen) = take_frame(&mut bytes, is_masked) {
            assert!(transcript.close.is_none(), "{seen:?} after the close frame");
            match seen.head & 0x0f {
                0x8 => transcript.take_close(seen),
                0x9 => transcript.pings.push(seen.payload),
                0xa => transcript.pongs.push(seen.payload),
                _ => transcript.take_data(seen, &mut begun),
            }
        }
        assert!(bytes.is_empty(), "the stream ended inside {}", shown(bytes));
        transcript
    }

    fn take_close(&mut self, seen: Seen) {
        if let Some(code) = seen.close_code() {
            let may_travel = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert!(may_travel, "close code {code}");
            assert!(std::str::from_utf8(&seen.payload[2..]).is_ok(), "reason of {seen:?}");
        } else {
            assert!(seen.payload.is_empty(), "{seen:?}");
        }
        self.close = Some(seen);
    }

    fn take_data(&mut self, seen: Seen, begun: &mut Option<Seen>) {
        let is_last = seen.head & FIN != 0;
        let message = match (seen.head & 0x0f, begun.take()) {
            (0, Some(first)) => {
                Seen { head: first.head, payload: [first.payload, seen.payload].concat() }
            }
            (0, None) => panic!("{seen:?} continues nothing"),
            (_, None) => Seen { head: seen.head | FIN, ..seen },
            (_, Some(first)) => panic!("{seen:?} inside the message {first:?}"),
        };
        if !is_last {
            *begun = Some(message);
            return;
        }
        let is_text = message.head == TEXT;
        assert!(!is_text || std::str::from_utf8(&message.payload).is_ok(), "text {message:?}");
        self.messages.push(message);
    }
}

#[test]
fn the_tests_own_frames_are_those_of_section_5_7() {
    assert_eq!(plain(TEXT, "Hello"), hex("81 05 48 65 6c 6c 6f"));
    assert_eq!(masked(TEXT, "Hello"), hex("81 85 37 fa 21 3d 7f 9f 4d 51 58"));
    assert_eq!(plain(PING, "Hello"), hex("89 05 48 65 6c 6c 6f"));
    assert_eq!(plain(BINARY, [0; 256])[..4], hex("82 7e 01 00"));
    assert_eq!(plain(BINARY, vec![0; 65_536])[..10], hex("82 7f 00 00 00 00 00 01 00 00"));
    let both = [masked(TEXT & !FIN, "Hel"), masked(CONTINUATION, "lo")].concat();
    let joined = Seen { head: TEXT, payload: b"Hello".to_vec() };
    assert_eq!(Transcript::of(&both, true).messages, [joined]);
}
