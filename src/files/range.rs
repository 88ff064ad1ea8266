//! The part of a file that a request asks for ([RFC 9110 §14]).
//!
//! [RFC 9110 §14]: https://www.rfc-editor.org/rfc/rfc9110#section-14

/// The bytes of a file that are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Range {
    Whole,
    /// From the first byte to the last one, both included.
    Part(u64, u64),
    /// The file has no such bytes.
    Unsatisfiable,
}

impl Range {
    /// Reads the value of `Range` for a file of `len` bytes. Another unit, several ranges and a value that is none mean
    /// the whole file (§14.2).
    pub(super) fn parse(value: &str, len: u64) -> Self {
        Self::one_of(value, len).unwrap_or(Self::Whole)
    }

    fn one_of(value: &str, len: u64) -> Option<Self> {
        let (unit, ranges) = value.split_once('=')?;
        // In upper or lower case (§14.1).
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = ranges.trim_matches([' ', '\t']).split_once('-')?;
        let end = len.checked_sub(1);
        if first.is_empty() {
            return Some(match (number(last)?, end) {
                (0, _) => Self::Unsatisfiable,
                // All of nothing, for which there is no `Content-Range`.
                (_, None) => Self::Whole,
                (suffix, Some(end)) => Self::Part(len.saturating_sub(suffix), end),
            });
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        let end = end.filter(|end| first <= *end);
        Some(end.map_or(Self::Unsatisfiable, |end| Self::Part(first, last.min(end))))
    }
}

/// A number of digits. One that is too large for any file is the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Range::{Part, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_anything_else_means_the_whole() {
        for (value, len, expected) in [
            ("bytes=0-0", 10, Part(0, 0)),
            ("bytes=2-5", 10, Part(2, 5)),
            ("bytes=2-", 10, Part(2, 9)),
            ("bytes=2-99", 10, Part(2, 9)),
            ("bytes=-3", 10, Part(7, 9)),
            ("bytes=-99", 10, Part(0, 9)),
            ("BYTES= 9-9 ", 10, Part(9, 9)),
            ("bytes=9-99999999999999999999999", 10, Part(9, 9)),
            ("bytes=-99999999999999999999999", 10, Part(0, 9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-11", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Whole),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=0-", u64::MAX, Part(0, u64::MAX - 1)),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=0-1, bytes=3-4", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=1", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(Range::parse(value, len), expected, "{value:?} of {len}");
        }
    }
}
