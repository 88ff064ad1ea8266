//! WebSocket bytes (RFC 6455 §4, §5), as far as a benchmark needs them.
//!
//! Nothing here checks what a peer says: these frames come from our own programs.

use tungstenite::handshake::derive_accept_key;

/// Final binary frame: the first byte of most frames here.
pub const BINARY: u8 = 0x82;
/// Final text frame.
pub const TEXT: u8 = 0x81;
/// The reserved bit of a compressed message's first frame (RFC 7692 §6).
pub const RSV1: u8 = 0x40;
/// Close frame.
pub const CLOSE: u8 = 0x88;
/// Ping frame.
pub const PING: u8 = 0x89;
/// Pong frame.
pub const PONG: u8 = 0x8a;

/// Longest header: two bytes, a 64-bit length and a masking key.
pub const MAX_HEADER: usize = 14;

/// The example key of RFC 6455 §1.3, which every connection of the load generator sends.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The accept key that belongs to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame header as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    /// Masking key, if the frame is masked.
    pub key: Option<[u8; 4]>,
    /// Bytes of the header.
    pub len: usize,
    /// Bytes of the payload.
    pub payload: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` until all of it is there.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = match second & 0x7f {
            126 => rest
                .split_first_chunk()
                .map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest)),
            127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
            len => Some((u64::from(len), rest)),
        }?;
        let (key, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(key, rest)| (Some(*key), rest))?,
        };
        let len = bytes.len() - rest.len();
        Some(Self { first, key, len, payload: usize::try_from(payload).ok()? })
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame(&self) -> usize {
        self.len + self.payload
    }
}

/// Writes the header of an unmasked frame so that it *ends* at `buf[end]`; returns its start.
pub fn put_header_before(buf: &mut [u8], end: usize, first: u8, payload: usize) -> usize {
    let start = end - header_len(payload);
    buf[start] = first;
    match end - start {
        2 => buf[start + 1] = u8::try_from(payload).expect("below 126"),
        4 => {
            let len = u16::try_from(payload).expect("below 65,536");
            buf[start + 1] = 126;
            buf[start + 2..end].copy_from_slice(&len.to_be_bytes());
        }
        _ => {
            buf[start + 1] = 127;
            buf[start + 2..end].copy_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    start
}

/// Bytes of an unmasked frame's header.
#[must_use]
pub fn header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// A whole masked frame.
#[must_use]
pub fn masked_frame(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; header_len(payload.len())];
    let end = frame.len();
    put_header_before(&mut frame, end, first, payload.len());
    frame[1] |= 0x80;
    frame.extend_from_slice(&key);
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key);
    frame
}

/// Masks or unmasks in place.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let wide = widen(key);
    let (chunks, rest) = payload.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Unmasks the payload at `from` while it moves down to `to`.
///
/// Front to back, so the ranges may overlap; 16 bytes at a time, so that it is one pass.
pub fn unmask_down(buf: &mut [u8], from: usize, to: usize, len: usize, key: [u8; 4]) {
    if from == to {
        return mask(&mut buf[from..from + len], key);
    }
    let wide = widen(key);
    let whole = len - len % 16;
    for at in (0..whole).step_by(16) {
        let chunk: [u8; 16] = buf[from + at..from + at + 16].try_into().expect("16 bytes");
        let chunk = u128::from_ne_bytes(chunk) ^ wide;
        buf[to + at..to + at + 16].copy_from_slice(&chunk.to_ne_bytes());
    }
    for at in whole..len {
        buf[to + at] = buf[from + at] ^ key[at % 4];
    }
}

fn widen(key: [u8; 4]) -> u128 {
    u128::from(u32::from_ne_bytes(key)) * 0x0000_0001_0000_0001_0000_0001_0000_0001
}

/// The opening handshake of a client, with the extension it offers.
#[must_use]
pub fn request(host: &str, path: &str, offer: Option<&str>) -> String {
    let extensions =
        offer.map_or(String::new(), |offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extensions}\r\n"
    )
}

/// The answer to a client's opening handshake, or `None` if it names no key.
#[must_use]
pub fn response(head: &str) -> Option<String> {
    let accept = derive_accept_key(header(head, "sec-websocket-key")?.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// The value of a header field in the head of a request or response.
#[must_use]
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Bytes of the head at the start of `bytes`, its empty line included.
#[must_use]
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_section_1_3_is_accepted() {
        let answer = response(&request("localhost", "/echo", None)).unwrap();
        assert_eq!(header(&answer, "Sec-WebSocket-Accept"), Some(ACCEPT));
    }

    #[test]
    fn headers_of_every_length_round_trip() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = masked_frame(BINARY, [1, 2, 3, 4], &vec![7; len]);
            let header = Header::parse(&frame).unwrap();
            assert_eq!((header.first, header.payload, header.frame()), (BINARY, len, frame.len()));
            assert!(Header::parse(&frame[..header.len - 1]).is_none());
        }
    }

    #[test]
    fn unmasking_downwards_equals_unmasking_in_place() {
        for len in [0, 1, 15, 16, 17, 33, 1000] {
            let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut frame = masked_frame(BINARY, [9, 8, 7, 6], &payload);
            let header = Header::parse(&frame).unwrap();
            unmask_down(&mut frame, header.len, header.len - 4, len, [9, 8, 7, 6]);
            assert_eq!(frame[header.len - 4..][..len], payload);
        }
    }
}
