//! Header lines, wherever they are kept ([RFC 9110 §5.3]).
//!
//! [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-5.3

/// Where header lines are looked up.
pub(crate) trait HeaderLines {
    /// The values of every line of this name, in order.
    fn lines(&self, name: &str) -> impl Iterator<Item = &str>;

    /// What a list of tokens has, perhaps over several lines, in order; what cannot be a token is
    /// passed over (RFC 6455 §4.1: nothing but U+0021 to U+007E).
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let listed = self.lines(name).flat_map(|line| line.split(',')).map(str::trim);
        listed.filter(|item| !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_graphic()))
    }

    /// Does a list have this token, in upper or lower case?
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(token))
    }
}

/// A value that is no text is there all the same, and is none that anybody looks for.
pub(crate) fn as_text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or("\u{fffd}")
}
