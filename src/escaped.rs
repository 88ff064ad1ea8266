//! Escaping of foreign text in log records: a new line or an escape sequence in it could forge records
//! (CWE-117).
//!
//! Every error, name and path in a record is escaped here, in its text and in its fields. That holds for all of
//! them, since it is hard to tell which of them a peer can influence.

use std::fmt::{self, Debug, Display, Write};

/// Largest number of characters of one text in a record. A peer may have chosen a mebibyte.
const MOST: usize = 1024;

/// A text that a peer may have chosen. `{}` shows it without quotes, and `{:?}` in quotes. In both forms,
/// characters that are not printable are escaped as in Rust, and the text is cut after 1 024 characters, with `…`.
/// An error is shown with its causes.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Escaped<T> {
    /// The text itself, for a record that is written later.
    pub(crate) fn to_text(&self) -> EscapedText {
        let mut text = String::new();
        // A `Display` of the application may fail. `to_string` would panic then.
        let _ = write!(text, "{self}");
        EscapedText(text.into())
    }
}

/// A text that is escaped already, and cut.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct EscapedText(Box<str>);

impl EscapedText {
    pub(crate) fn contains(&self, part: &str) -> bool {
        self.0.contains(part)
    }
}

impl Display for EscapedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Alternate, so that an error shows its causes, too.
        write!(Escaping { out: f, left: MOST, plain: &['"', '\''] }, "{:#}", self.0)
    }
}

impl<T: Display> Debug for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaping { out: f, left: MOST, plain: &['\''] }, "{}", self.0)?;
        f.write_char('"')
    }
}

struct Escaping<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    /// The number of characters that may still be written.
    left: usize,
    /// Characters that Rust would escape, but that need no escape in the surrounding text.
    plain: &'static [char],
}

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
            self.left = left;
            if left == 0 {
                self.out.write_char('…')?;
            } else if self.plain.contains(&char) {
                self.out.write_char(char)?;
            } else {
                Display::fmt(&char.escape_debug(), self.out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_could_forge_a_record_are_escaped_and_others_are_shown() {
        for (text, shown) in [
            ("unknown variant `x`, it's \"y\"", "unknown variant `x`, it's \"y\""),
            ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
            ("a\r\n[ERROR] forged\tb", "a\\r\\n[ERROR] forged\\tb"),
            ("\x1b[31mred\x7f\0", "\\u{1b}[31mred\\u{7f}\\0"),
            // C1 controls, line and paragraph separators, and characters that change the direction of text.
            ("\u{85}\u{9b}\u{2028}\u{202e}", "\\u{85}\\u{9b}\\u{2028}\\u{202e}"),
            // A backslash and an n must not look like an escaped new line.
            ("a\\nb", "a\\\\nb"),
        ] {
            assert_eq!(Escaped(text).to_string(), shown);
            assert!(!shown.contains(char::is_control));
            assert_eq!(
                format!("{:?}", Escaped(text)),
                format!("\"{}\"", shown.replace('"', "\\\""))
            );
        }
    }

    #[test]
    fn a_text_that_cannot_be_written_is_told_as_far_as_it_goes() {
        struct Broken;

        impl Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no\n")?;
                Err(fmt::Error)
            }
        }

        assert_eq!(&*Escaped(Broken).to_text().0, "no\\n");
    }

    #[test]
    fn a_text_of_any_length_takes_a_bounded_part_of_a_record() {
        let long = "\n".repeat(1 << 20);
        let shown = Escaped(&long).to_string();
        assert_eq!(shown, "\\n".repeat(MOST - 1) + "…");
        assert_eq!(Escaped("x".repeat(MOST - 1)).to_string().len(), MOST - 1);
    }
}
