//! Payloads: bytes that are cheap to pass on.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The payload of a frame or a message.
///
/// Most messages of most protocols are short, and an allocation costs more than all else that is
/// done for one, so short payloads are held in place. Longer ones are shared, not copied.
#[derive(Clone)]
pub(crate) struct Payload(Repr);

// A tag of a whole word keeps the rest at word offsets: payloads are moved often, and a move in odd
// pieces has to wait for the stores before it.
#[derive(Clone)]
#[repr(u64)]
enum Repr {
    /// The first `len` bytes of the block; what follows them has no meaning.
    Inline {
        len: usize,
        block: Block,
    },
    Shared(Bytes),
}

#[derive(Clone, Copy)]
#[repr(align(16))]
struct Block([u8; Payload::INLINE]);

impl Payload {
    /// Longest payload held in place, in bytes: as many as a [`Bytes`] takes.
    pub(crate) const INLINE: usize = 32;

    /// No bytes.
    pub(crate) const fn empty() -> Self {
        Self(Repr::Inline { block: Block([0; Self::INLINE]), len: 0 })
    }

    /// Copies `bytes`.
    pub(crate) fn copy_from(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// The first `len` of `bytes`, unmasked; `None` if they are too many to be held in place.
    #[inline]
    pub(crate) fn unmask_inline(key: [u8; 4], bytes: &[u8], len: usize) -> Option<Self> {
        if len > Self::INLINE {
            return None;
        }
        let mut block = Block([0; Self::INLINE]);
        if let Some(bytes) = bytes.first_chunk() {
            // All of it, needed or not: a fixed number of bytes takes two instructions.
            block.0 = *bytes;
        } else {
            block.0.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        }
        for word in block.0.chunks_exact_mut(4) {
            for (byte, key) in word.iter_mut().zip(key) {
                *byte ^= key;
            }
        }
        Some(Self(Repr::Inline { block, len }))
    }

    /// Appends the bytes to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Inline { block, len } => {
                let end = out.len() + *len;
                out.extend_from_slice(&block.0);
                out.truncate(end);
            }
            Repr::Shared(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The bytes, to keep: not copied unless they are held in place.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline { .. } => Bytes::copy_from_slice(&self),
            Repr::Shared(bytes) => bytes,
        }
    }

    fn inline(bytes: &[u8]) -> Option<Self> {
        let mut block = [0; Self::INLINE];
        block.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Repr::Inline { block: Block(block), len: bytes.len() }))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { block, len } => block.0.get(..*len).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::inline(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::inline(&bytes).unwrap_or_else(|| Self(Repr::Shared(bytes.into())))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        let shown = self.get(..SHOWN).unwrap_or(self);
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        if self.len() > SHOWN { write!(f, "… ({} bytes)", self.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_six_words() {
        assert_eq!(size_of::<Payload>(), 48);
    }

    #[test]
    fn payloads_of_every_length_hold_what_they_were_given() {
        for len in 0..100_u8 {
            let bytes: Vec<u8> = (0..len).collect();
            let shared = Bytes::from(bytes.clone());
            assert_eq!(*Payload::copy_from(&bytes), *bytes);
            assert_eq!(*Payload::from(shared.clone()), *bytes);
            assert_eq!(Payload::from(bytes).into_bytes(), shared);
        }
    }

    #[test]
    fn a_short_payload_is_unmasked_whatever_follows_it() {
        let masked = b"\x7f\x9f\x4d\x51\x58, and then the next frame begins";
        for end in [5, 20, masked.len()] {
            let payload = Payload::unmask_inline([0x37, 0xfa, 0x21, 0x3d], &masked[..end], 5);
            assert_eq!(payload, Some(Payload::copy_from(b"Hello")));
        }
        assert_eq!(Payload::unmask_inline([0; 4], &[0; 64], Payload::INLINE + 1), None);
    }

    #[test]
    fn a_long_payload_is_shared_and_not_copied() {
        let bytes = Bytes::from(vec![7; 4096]);
        let payload = Payload::from(bytes.clone());
        let copy = payload.clone();
        assert_eq!(payload.into_bytes().as_ptr(), bytes.as_ptr());
        assert_eq!(copy.into_bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_payload_shows_its_length_and_no_more_than_its_beginning() {
        let shown = |bytes: &[u8]| format!("{:?}", Payload::copy_from(bytes));
        assert_eq!(shown(b""), r#"b"""#);
        assert_eq!(shown(b"a\"\n\xff"), r#"b"a\"\n\xff""#);
        let long = "x".repeat(32);
        assert_eq!(shown(long.as_bytes()), format!("b\"{long}\""));
        assert_eq!(shown(&[b'x'; 33]), format!("b\"{long}\"… (33 bytes)"));
    }
}
