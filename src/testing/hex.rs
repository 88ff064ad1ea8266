//! Bytes in hex, as tests write them and failures show them.

use std::fmt::Write;

/// Largest number of bytes that a failure shows.
const MOST: usize = 256;

/// Reads bytes from hexadecimal digits, with blanks allowed between bytes; `None` if they are malformed.
pub(super) fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.chars().filter(|digit| !digit.is_whitespace());
    let values: Vec<u32> = digits.map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let pairs = values.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte * 16 + digit);
    pairs.map(|pair| u8::try_from(byte(pair)).ok()).collect()
}

/// Writes bytes in hex; only the first of them if there are many.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for byte in bytes.iter().take(MOST) {
        // Writing to a string cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    match bytes.len() {
        0 => "nothing".to_owned(),
        len if len > MOST => format!("{shown}… ({len} bytes)"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_with_blanks_and_without() {
        assert_eq!(bytes_of("81 85 37fa213D\n00"), Some(b"\x81\x85\x37\xfa\x21\x3d\x00".to_vec()));
        assert_eq!(bytes_of(""), Some(Vec::new()));
        for digits in ["8", "81 8", "8g", "0x81"] {
            assert_eq!(bytes_of(digits), None, "{digits}");
        }
    }
}
