//! Header lines, wherever they are kept ([RFC 9110 §5.3]).
//!
//! [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-5.3

/// Where header lines are looked up.
pub(crate) trait HeaderLines {
    /// The values of every line of this name, in order.
    fn lines(&self, name: &str) -> impl Iterator<Item = &str>;

    /// Does a list, perhaps over several lines, have this token, in upper or lower case?
    fn has_token(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.lines(name).flat_map(|line| line.split(','));
        tokens.any(|listed| listed.trim().eq_ignore_ascii_case(token))
    }
}
