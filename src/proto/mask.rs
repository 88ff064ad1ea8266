//! Masking: XOR with a four-byte key ([RFC 6455 §5.3]).
//!
//! [RFC 6455 §5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.3

/// Masks or unmasks `payload`, whose first byte is byte number `offset` of the frame's payload.
pub(crate) fn apply(key: [u8; 4], offset: usize, payload: &mut [u8]) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);

    // Four words at a time compile to vector instructions on every target with 128-bit registers.
    let mut blocks = payload.chunks_exact_mut(32);
    for block in &mut blocks {
        for word in block.chunks_exact_mut(8) {
            xor_word(word, wide);
        }
    }
    let mut words = blocks.into_remainder().chunks_exact_mut(8);
    for word in &mut words {
        xor_word(word, wide);
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Bytes that are masked in registers on their way.
const BLOCK: usize = 64;

/// Appends `payload` to `out`, masked or unmasked. The first byte is byte number `offset` of the frame's payload.
///
/// It is one pass with vector loads and stores. A `memcpy` before that would be a second one, and from some 2 KiB on glibc
/// copies by `rep movsb`, which on AMD Zen is several times slower if the buffers lie a few bytes apart modulo 4 096.
pub(crate) fn append(key: [u8; 4], offset: usize, payload: &[u8], out: &mut Vec<u8>) {
    let mut rotated = key;
    rotated.rotate_left(offset % 4);
    let mut keys = [0; BLOCK];
    for word in keys.chunks_exact_mut(4) {
        word.copy_from_slice(&rotated);
    }
    out.reserve(payload.len());
    let mut blocks = payload.chunks_exact(BLOCK);
    for block in &mut blocks {
        let mut masked = keys;
        for (masked, byte) in masked.iter_mut().zip(block) {
            *masked ^= byte;
        }
        out.extend_from_slice(&masked);
    }
    let start = out.len();
    out.extend_from_slice(blocks.remainder());
    apply(rotated, 0, out.get_mut(start..).unwrap_or_default());
}

fn xor_word(word: &mut [u8], key: u64) {
    if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ key).to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of §5.3, one octet at a time.
    fn by_definition(key: [u8; 4], offset: usize, payload: &[u8]) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key[(offset + i) % 4]).collect()
    }

    #[test]
    fn every_length_and_offset_agrees_with_the_definition_of_section_5_3() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..150_u8 {
            let payload: Vec<u8> = (0..len).collect();
            for offset in 0..8 {
                let expected = by_definition(key, offset, &payload);
                let mut masked = payload.clone();
                apply(key, offset, &mut masked);
                assert_eq!(masked, expected, "{len} at {offset}");
                let mut appended = b"before".to_vec();
                append(key, offset, &payload, &mut appended);
                assert_eq!(appended.strip_prefix(b"before"), Some(&*expected), "{len} at {offset}");
            }
        }
    }

    #[test]
    fn the_hello_of_section_5_7_is_unmasked() {
        let mut payload = *b"\x7f\x9f\x4d\x51\x58";
        apply([0x37, 0xfa, 0x21, 0x3d], 0, &mut payload);
        assert_eq!(&payload, b"Hello");
    }
}
