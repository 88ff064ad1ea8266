//! The frames that a connection has sent, as its peer sees them (RFC 6455 §5.2).

/// Begins the payload of each ping of the peer; a number follows.
const PING_MARK: u8 = b'P';

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The beginning of a frame of which the rest has not come.
    partial: Vec<u8>,
    /// Bytes in all.
    pub(super) bytes: u64,
    /// The last frames of messages.
    pub(super) messages: usize,
    /// Whether the latest data frame is not the last of its message.
    pub(super) is_inside: bool,
    /// Pings that have no answer yet.
    pub(super) unanswered: Vec<Vec<u8>>,
    pub(super) pings: usize,
    /// The number of the ping of the peer that the latest pong answers.
    pub(super) pong: Option<u32>,
    /// Whether there was a close frame.
    pub(super) has_closed: bool,
    /// The opcodes of all whole frames.
    opcodes: Vec<u8>,
}

impl Seen {
    /// The opcodes of all frames that have begun.
    pub(super) fn opcodes(&self) -> impl Iterator<Item = u8> {
        let begun = self.partial.first().map(|first| first & 15);
        self.opcodes.iter().copied().chain(begun)
    }

    /// # Panics
    ///
    /// If these bytes are none that a peer may get.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.partial.extend(bytes);
        let mut rest = &*std::mem::take(&mut self.partial);
        while let Some((opcode, fin, payload, after)) = split(rest) {
            self.frame(opcode, fin, payload);
            rest = after;
        }
        self.partial = rest.to_vec();
    }

    fn frame(&mut self, opcode: u8, fin: bool, payload: Vec<u8>) {
        assert!(!self.has_closed, "frame {opcode} after the close frame");
        self.opcodes.push(opcode);
        match opcode {
            0..=2 => {
                assert_eq!(opcode == 0, self.is_inside, "a message inside another");
                self.is_inside = !fin;
                self.messages += usize::from(fin);
            }
            8 => self.has_closed = true,
            9 => {
                self.pings += 1;
                self.unanswered.push(payload);
            }
            10 => self.pong = ping_number(&payload).or(self.pong),
            _ => panic!("opcode {opcode}"),
        }
    }
}

/// The payload of a ping of the peer, of so many bytes in all.
pub(super) fn ping(number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![PING_MARK];
    payload.extend(number.to_be_bytes());
    payload.resize(len, b'.');
    payload
}

fn ping_number(payload: &[u8]) -> Option<u32> {
    let rest = payload.strip_prefix(&[PING_MARK])?;
    rest.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// The first frame: opcode, whether it is the last of its message, payload, and what follows.
fn split(bytes: &[u8]) -> Option<(u8, bool, Vec<u8>, &[u8])> {
    let ([first, second], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match second & 0x7f {
        126 => {
            rest.split_first_chunk().map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest))?
        }
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        len => (len.into(), rest),
    };
    let (key, rest) = match second & 0x80 {
        0 => ([0; 4], rest),
        _ => rest.split_first_chunk().map(|(key, rest)| (*key, rest))?,
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    Some((first & 15, first & 0x80 != 0, payload.collect(), rest))
}
