//! Header lines, in any collection that holds them ([RFC 9110 §5.3]), and which of them a caller may add.
//!
//! [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-5.3

#[cfg(feature = "accept")]
use crate::proto::extension::is_token;

/// Where header lines are looked up.
pub(crate) trait HeaderLines {
    /// The values of every line of this name, in order.
    fn lines(&self, name: &str) -> impl Iterator<Item = &str>;

    /// The elements of a list, perhaps over several lines, in order. Empty elements are left out (RFC 9110
    /// §5.6.1).
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let elements = self.lines(name).flat_map(|line| line.split(','));
        elements.map(|element| element.trim_matches([' ', '\t'])).filter(|it| !it.is_empty())
    }

    /// Whether a list has this token, in upper or lower case.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(token))
    }
}

#[cfg(feature = "accept")]
impl HeaderLines for http::HeaderMap {
    fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get_all(name).iter().map(|value| as_text(value.as_bytes()))
    }
}

/// A header value as text. One that is not UTF-8 becomes U+FFFD: the header counts as present, and matches
/// nothing.
pub(crate) fn as_text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or("\u{fffd}")
}

/// The headers that an opening handshake writes itself, on either side, and those of a body, which neither
/// the request nor the 101 has (RFC 9110 §15.2).
pub(crate) const RESERVED: [&str; 10] = [
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "content-length",
    "content-type",
    "transfer-encoding",
];

/// Whether no caller can add this header to an opening handshake.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// Whether HTTP allows this header line (RFC 9110 §5.1, §5.5): its name is a token, its value visible ASCII,
/// space and tab.
///
/// Bytes beyond ASCII, which §5.5 calls obsolete, are refused: tide cannot hold them.
#[cfg(feature = "accept")]
pub(crate) fn is_header_line(name: &str, value: &str) -> bool {
    is_token(name) && value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

#[cfg(all(test, feature = "accept"))]
mod tests {
    use super::*;

    #[test]
    fn a_header_line_has_a_token_for_a_name_and_visible_ascii_for_a_value() {
        for (name, value, is_one) in [
            ("x-one", "1", true),
            ("X_One!#$%&'*+.^`|~", "", true),
            ("x", "a b\tc ~", true),
            ("", "1", false),
            ("x y", "1", false),
            ("x:", "1", false),
            ("é", "1", false),
            ("x", "a\r\nb", false),
            ("x", "a\nb", false),
            ("x", "a\0", false),
            ("x", "\u{7f}", false),
            ("x", "é", false),
        ] {
            assert_eq!(is_header_line(name, value), is_one, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_header_map_has_each_line_of_a_name_in_order_and_text_for_bytes_that_are_none() {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [("x", &b"a, b"[..]), ("y", b"-"), ("X", b"\xff"), ("x", b"c")] {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, http::HeaderValue::from_bytes(value).unwrap());
        }
        assert_eq!(headers.lines("X").collect::<Vec<_>>(), ["a, b", "\u{fffd}", "c"]);
        assert_eq!(headers.list("x").collect::<Vec<_>>(), ["a", "b", "\u{fffd}", "c"]);
        assert_eq!(headers.lines("not a name").count(), 0);
    }
}
