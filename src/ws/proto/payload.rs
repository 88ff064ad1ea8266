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

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; Payload::INLINE] },
    Shared(Bytes),
}

impl Payload {
    /// Longest payload held in place, in bytes: as many as keep a `Payload` at five words.
    pub(crate) const INLINE: usize = 38;

    /// No bytes.
    pub(crate) const fn empty() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; Self::INLINE] })
    }

    /// Copies `bytes`.
    pub(crate) fn copy_from(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// The shared bytes, where taking a reference is cheaper than copying them.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline { .. } => Bytes::copy_from_slice(&self),
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to change them in place where nobody else holds them.
    pub(crate) fn as_mut_if_inline(&mut self) -> Option<&mut [u8]> {
        match &mut self.0 {
            Repr::Inline { len, bytes } => bytes.get_mut(..usize::from(*len)),
            Repr::Shared(_) => None,
        }
    }

    fn inline(bytes: &[u8]) -> Option<Self> {
        let mut inline = [0; Self::INLINE];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let len = u8::try_from(bytes.len()).ok()?;
        Some(Self(Repr::Inline { len, bytes: inline }))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
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
    fn a_payload_is_five_words() {
        assert_eq!(size_of::<Payload>(), 40);
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
    fn a_long_payload_is_shared_and_not_copied() {
        let bytes = Bytes::from(vec![7; 4096]);
        let payload = Payload::from(bytes.clone());
        assert_eq!(payload.clone().into_bytes().as_ptr(), bytes.as_ptr());
    }
}
