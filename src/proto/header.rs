//! Frame headers: two to fourteen bytes ([RFC 6455 §5.2]).
//!
//! [RFC 6455 §5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.2

use super::{MAX_CONTROL_PAYLOAD, OpCode, ProtocolError};

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const RSV1: u8 = 0x40;
const OPCODE: u8 = 0x0F;
const MASK: u8 = 0x80;
const LEN: u8 = 0x7F;
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// A frame header, which precedes the payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FrameHeader {
    /// Whether this is the last frame of its message.
    pub(crate) fin: bool,
    /// RSV1: whether this is the first frame of a compressed message (RFC 7692 §6).
    pub(crate) rsv1: bool,
    pub(crate) opcode: OpCode,
    /// The masking key. Only frames from a client to a server have one.
    pub(crate) mask: Option<[u8; 4]>,
    /// Length of the payload, in bytes; at most 2⁶³ - 1.
    pub(crate) len: u64,
}

impl FrameHeader {
    /// Longest header, in bytes: two bytes, a 64-bit length and a masking key.
    pub(crate) const MAX_LEN: usize = 14;

    /// Reads the header at the start of `bytes`, and returns it with its length in bytes; `None` while
    /// it is incomplete.
    ///
    /// `deflates` says whether RSV1 may be set: in the first frame of a message, if permessage-deflate
    /// was negotiated. A violation in the first bytes is returned without waiting for the rest.
    #[expect(clippy::inline_always, reason = "most calls know whether RSV1 may be set")]
    #[inline(always)]
    pub(crate) fn decode(
        bytes: &[u8],
        deflates: bool,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let reserved = if deflates { RSV & !RSV1 } else { RSV };
        if first & reserved != 0 {
            return Err(ProtocolError::ReservedBits((first & RSV) >> 4));
        }
        let (fin, rsv1) = (first & FIN != 0, first & RSV1 != 0);
        let opcode = OpCode::try_from(first & OPCODE)?;
        if rsv1 && !matches!(opcode, OpCode::Text | OpCode::Binary) {
            return Err(ProtocolError::ReservedBits((first & RSV) >> 4));
        }
        if opcode.is_control() && !fin {
            return Err(ProtocolError::ControlFrameFragmented(opcode));
        }

        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        let Some((len, rest)) = decode_len(opcode, second & LEN, rest)? else { return Ok(None) };
        let (mask, rest) = if second & MASK == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        };
        Ok(Some((Self { fin, rsv1, opcode, mask, len }, bytes.len() - rest.len())))
    }

    /// The header as two bytes; `None` if it takes more.
    #[inline]
    pub(crate) fn short(&self) -> Option<[u8; 2]> {
        let len = u8::try_from(self.len).ok().filter(|len| *len < LEN_16 && self.mask.is_none())?;
        Some([self.first(), len])
    }

    #[inline]
    fn first(&self) -> u8 {
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.rsv1 { RSV1 } else { 0 };
        fin | rsv1 | u8::from(self.opcode)
    }

    /// Appends the header to `out`.
    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let first = self.first();
        let mask = if self.mask.is_some() { MASK } else { 0 };
        if let Some(len) = u8::try_from(self.len).ok().filter(|len| *len < LEN_16) {
            out.extend_from_slice(&[first, mask | len]);
        } else if let Ok(len) = u16::try_from(self.len) {
            out.extend_from_slice(&[first, mask | LEN_16]);
            out.extend_from_slice(&len.to_be_bytes());
        } else {
            out.extend_from_slice(&[first, mask | LEN_64]);
            out.extend_from_slice(&self.len.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Reads the extended length that `short` announces, if any.
fn decode_len(
    opcode: OpCode,
    short: u8,
    rest: &[u8],
) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
        // The extended length may not have arrived, but it is certain to exceed the limit.
        let len = rest
            .split_first_chunk::<2>()
            .map_or(MAX_CONTROL_PAYLOAD + 1, |(len, _)| usize::from(u16::from_be_bytes(*len)));
        return Err(ProtocolError::ControlFrameTooLong { len });
    }
    let (len, least, rest) = match short {
        LEN_16 => {
            let Some((len, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*len)), u64::from(LEN_16), rest)
        }
        LEN_64 => {
            let Some((len, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*len), 1 << 16, rest)
        }
        len => return Ok(Some((u64::from(len), rest))),
    };
    if len < least {
        return Err(ProtocolError::LengthNotMinimal(len));
    }
    if len >= 1 << 63 {
        return Err(ProtocolError::LengthOverflow(len));
    }
    Ok(Some((len, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(fin: bool, opcode: OpCode, mask: Option<[u8; 4]>, len: u64) -> FrameHeader {
        FrameHeader { fin, rsv1: false, opcode, mask, len }
    }

    #[test]
    fn headers_round_trip_and_wait_for_their_last_byte() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        let cases: [(FrameHeader, &[u8]); 8] = [
            (header(true, OpCode::Text, None, 0), b"\x81\x00"),
            (header(true, OpCode::Text, key, 5), b"\x81\x85\x37\xfa\x21\x3d"),
            (header(false, OpCode::Binary, None, 125), b"\x02\x7d"),
            (header(true, OpCode::Continuation, None, 126), b"\x80\x7e\x00\x7e"),
            (header(true, OpCode::Binary, None, 65_535), b"\x82\x7e\xff\xff"),
            (header(true, OpCode::Binary, None, 65_536), b"\x82\x7f\0\0\0\0\0\x01\0\0"),
            (
                header(true, OpCode::Binary, key, (1 << 63) - 1),
                b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x37\xfa\x21\x3d",
            ),
            (header(true, OpCode::Ping, None, 125), b"\x89\x7d"),
        ];
        for (header, bytes) in cases {
            let mut encoded = Vec::new();
            header.encode(&mut encoded);
            assert_eq!(encoded, bytes, "{header:?}");
            assert_eq!(FrameHeader::decode(bytes, false), Ok(Some((header, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(
                    FrameHeader::decode(&bytes[..cut], false),
                    Ok(None),
                    "{header:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_broken_header_is_refused_at_the_byte_that_proves_it() {
        let cases: [(&[u8], ProtocolError); 10] = [
            (b"\xc1", ProtocolError::ReservedBits(0b100)),
            (b"\xb1", ProtocolError::ReservedBits(0b011)),
            (b"\x83", ProtocolError::ReservedOpcode(0x3)),
            (b"\x8f", ProtocolError::ReservedOpcode(0xF)),
            (b"\x09", ProtocolError::ControlFrameFragmented(OpCode::Ping)),
            (b"\x89\x7e", ProtocolError::ControlFrameTooLong { len: 126 }),
            (b"\x89\x7e\x01\x00", ProtocolError::ControlFrameTooLong { len: 256 }),
            (b"\x82\x7e\x00\x7d", ProtocolError::LengthNotMinimal(125)),
            (b"\x82\x7f\0\0\0\0\0\0\xff\xff", ProtocolError::LengthNotMinimal(65_535)),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", ProtocolError::LengthOverflow(1 << 63)),
        ];
        for (bytes, error) in cases {
            assert_eq!(FrameHeader::decode(bytes, false), Err(error), "{bytes:02x?}");
        }
    }

    #[test]
    fn with_permessage_deflate_rsv1_may_be_set_where_a_message_begins_and_nowhere_else() {
        for first in [b"\xc1\x00", b"\x41\x00", b"\xc2\x00", b"\x42\x00"] {
            let header = FrameHeader::decode(first, true).map(|header| header.unwrap().0.rsv1);
            assert_eq!(header, Ok(true), "{first:02x?}");
        }
        for (other, bits) in [
            (b"\xc0", 0b100),
            (b"\x40", 0b100),
            (b"\xc8", 0b100),
            (b"\xc9", 0b100),
            (b"\xca", 0b100),
            (b"\xe1", 0b110),
            (b"\x91", 0b001),
        ] {
            let error = ProtocolError::ReservedBits(bits);
            assert_eq!(FrameHeader::decode(other, true), Err(error), "{other:02x?}");
        }
    }
}
