//! Header lines, wherever they are kept ([RFC 9110 §5.3]).
//!
//! [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-5.3

/// Where header lines are looked up.
pub(crate) trait HeaderLines {
    /// The values of every line of this name, in order.
    fn lines(&self, name: &str) -> impl Iterator<Item = &str>;

    /// The elements of a list, perhaps over several lines, in order. Empty ones are none (RFC 9110
    /// §5.6.1).
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let elements = self.lines(name).flat_map(|line| line.split(','));
        elements.map(|element| element.trim_matches([' ', '\t'])).filter(|it| !it.is_empty())
    }

    /// Does a list have this token, in upper or lower case?
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|listed| listed.eq_ignore_ascii_case(token))
    }
}

/// Whether this is a token (RFC 9110 §5.6.2).
#[cfg(feature = "accept")]
pub(crate) fn is_token(text: &str) -> bool {
    let is_of_a_token =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_a_token)
}

/// A value that is no text is there all the same, and is none that anybody looks for.
pub(crate) fn as_text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or("\u{fffd}")
}
