//! The `Sec-WebSocket-Extensions` header: a list of extensions with parameters ([RFC 6455 §9.1]).
//!
//! This file knows the grammar, and no extension. `deflate/negotiation.rs` reads the parameters of
//! permessage-deflate.
//!
//! The case of names matters: the RFC calls them tokens, and nowhere says to ignore case.
//!
//! [RFC 6455 §9.1]: https://www.rfc-editor.org/rfc/rfc6455#section-9.1

use std::borrow::Cow;

/// The white space that is allowed around the delimiters of a list (RFC 7230 §3.2.3).
const OWS: [char; 2] = [' ', '\t'];

/// One element of the list: an offer of the client, or an answer of the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Extension<'a> {
    pub(crate) name: &'a str,
    pub(crate) parameters: Vec<Parameter<'a>>,
}

/// The part after a semicolon. The value is a token, whether it was quoted or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Parameter<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Option<Cow<'a, str>>,
}

/// Reads the values of all lines of the header. Together, in order, they are one list (§9.1).
///
/// If there is no line, or no line has an element, the list is empty.
///
/// # Errors
///
/// [`MalformedExtensions`] if the lines break the grammar.
pub(crate) fn parse<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<Extension<'a>>, MalformedExtensions> {
    let mut extensions = Vec::new();
    for line in lines {
        let mut scanner = Scanner { rest: line.trim_start_matches(OWS) };
        loop {
            // A recipient has to tolerate empty elements (RFC 7230 §7).
            while scanner.eat(',') {}
            if scanner.rest.is_empty() {
                break;
            }
            extensions.push(scanner.extension()?);
            if !scanner.rest.is_empty() && !scanner.eat(',') {
                return Err(scanner.unexpected());
            }
        }
    }
    Ok(extensions)
}

/// The unread part of a line. It never begins with white space, since each read skips what follows.
#[derive(Debug)]
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn extension(&mut self) -> Result<Extension<'a>, MalformedExtensions> {
        let name = self.token()?;
        let mut parameters = Vec::new();
        while self.eat(';') {
            parameters.push(self.parameter()?);
        }
        Ok(Extension { name, parameters })
    }

    fn parameter(&mut self) -> Result<Parameter<'a>, MalformedExtensions> {
        let name = self.token()?;
        let value = if self.eat('=') { Some(self.value()?) } else { None };
        Ok(Parameter { name, value })
    }

    fn value(&mut self) -> Result<Cow<'a, str>, MalformedExtensions> {
        match self.rest.strip_prefix('"') {
            Some(rest) => {
                self.rest = rest;
                self.quoted()
            }
            None => self.token().map(Cow::Borrowed),
        }
    }

    /// Reads the rest of a quoted value, after its opening quote. Without escapes the value MUST be a
    /// token (§9.1). So an empty string is an error, and a backslash may escape token characters only.
    fn quoted(&mut self) -> Result<Cow<'a, str>, MalformedExtensions> {
        let mut value = Cow::Borrowed("");
        loop {
            value += self.token_chars();
            let mut chars = self.rest.chars();
            match chars.next() {
                Some('"') if !value.is_empty() => {
                    self.skip_to(chars.as_str());
                    return Ok(value);
                }
                Some('\\') if chars.as_str().starts_with(is_token_char) => {
                    self.rest = chars.as_str();
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn token(&mut self) -> Result<&'a str, MalformedExtensions> {
        let token = self.token_chars();
        if token.is_empty() {
            return Err(self.unexpected());
        }
        self.skip_to(self.rest);
        Ok(token)
    }

    /// Reads a run of token characters, which may be empty. It does not skip white space, which is an
    /// error inside quotes.
    fn token_chars(&mut self) -> &'a str {
        let len = self.rest.find(|c| !is_token_char(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        self.rest = rest;
        run
    }

    fn eat(&mut self, delimiter: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(delimiter) else { return false };
        self.skip_to(rest);
        true
    }

    fn skip_to(&mut self, rest: &'a str) {
        self.rest = rest.trim_start_matches(OWS);
    }

    fn unexpected(&self) -> MalformedExtensions {
        let next = self.rest.chars().next();
        next.map_or(MalformedExtensions::UnexpectedEnd, MalformedExtensions::Unexpected)
    }
}

/// Whether this is a token (RFC 9110 §5.6.2).
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

/// Whether this is a `tchar` of RFC 7230 §3.2.6.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A `Sec-WebSocket-Extensions` header that breaks the grammar of RFC 6455 §9.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MalformedExtensions {
    /// A character that is not allowed at its place.
    Unexpected(char),
    /// The end of a line in place of a name, a value or a closing quote.
    UnexpectedEnd,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Endless lines of random pieces, the same in every run.
    pub(crate) fn noise(pieces: &[&str]) -> impl Iterator<Item = String> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
        };
        std::iter::repeat_with(move || {
            (0..below(16)).map(|_| pieces[below(pieces.len())]).collect::<String>()
        })
    }

    /// Writes a list without white space or quotes.
    fn written(extensions: &[Extension<'_>]) -> String {
        let elements = extensions.iter().map(|extension| {
            let parameters = extension.parameters.iter().map(|parameter| match &parameter.value {
                Some(value) => format!(";{}={value}", parameter.name),
                None => format!(";{}", parameter.name),
            });
            extension.name.to_owned() + &parameters.collect::<String>()
        });
        elements.collect::<Vec<_>>().join(",")
    }

    fn rewritten(lines: &[&str]) -> Result<String, MalformedExtensions> {
        parse(lines.iter().copied()).map(|extensions| written(&extensions))
    }

    #[test]
    fn an_absent_or_empty_header_is_an_empty_list() {
        for lines in [&[] as &[_], &[""], &["", ""], &[" \t"], &[","], &[" , ,\t,"]] {
            assert_eq!(parse(lines.iter().copied()), Ok(vec![]), "{lines:?}");
        }
    }

    #[test]
    fn elements_keep_their_order_over_lists_and_lines() {
        for (lines, list) in [
            (&["a"] as &[_], "a"),
            (&["a,b"], "a,b"),
            (&["a", "b"], "a,b"),
            (&["a,", "", ",b"], "a,b"),
            (&["a;x, b", "a;y=1"], "a;x,b,a;y=1"),
            (&[", a ,, b"], "a,b"),
            (&["\t a \t;\t x\t = \t1 \t,\t b \t"], "a;x=1,b"),
            (&["a; x = \"1\" ; y , b"], "a;x=1;y,b"),
            // The examples of RFC 6455 §9.1.
            (&["foo", "bar; baz=2"], "foo,bar;baz=2"),
            (&["foo, bar; baz=2"], "foo,bar;baz=2"),
            (&["deflate-stream"], "deflate-stream"),
            (
                &["mux; max-channels=4; flow-control, deflate-stream"],
                "mux;max-channels=4;flow-control,deflate-stream",
            ),
            (&["private-extension"], "private-extension"),
            // The examples of RFC 7692 §5.2.
            (&["permessage-foo; x=10"], "permessage-foo;x=10"),
            (&["permessage-foo; x=\"10\""], "permessage-foo;x=10"),
            (&["permessage-foo, permessage-bar"], "permessage-foo,permessage-bar"),
            (&["permessage-foo; use_y, permessage-foo"], "permessage-foo;use_y,permessage-foo"),
        ] {
            assert_eq!(rewritten(lines).as_deref(), Ok(list), "{lines:?}");
        }
    }

    #[test]
    fn tokens_keep_every_character_and_their_case() {
        let token = "!#$%&'*+-.^_`|~09azAZ";
        let line = format!("{token};{token}={token};{token}=\"{token}\"");
        assert_eq!(rewritten(&[&line]), Ok(line.replace('"', "")));
    }

    #[test]
    fn a_quoted_value_is_unescaped_and_copied_only_if_it_has_to_be() {
        for (line, value, borrowed) in [
            ("a;x=10", "10", true),
            (r#"a;x="10""#, "10", true),
            (r#"a;x="\10""#, "10", true),
            (r#"a;x="1\0""#, "10", false),
            (r#"a;x="\1\0""#, "10", false),
            (r#"a;x= "10" "#, "10", true),
        ] {
            let extensions = parse([line].into_iter()).unwrap();
            let [Extension { name: "a", parameters }] = &extensions[..] else { panic!("{line}") };
            let [Parameter { name: "x", value: Some(read) }] = &parameters[..] else {
                panic!("{line}")
            };
            assert_eq!(read, value, "{line}");
            assert_eq!(matches!(read, Cow::Borrowed(_)), borrowed, "{line}");
        }
    }

    #[test]
    fn a_header_that_breaks_the_grammar_of_section_9_1_is_refused() {
        use MalformedExtensions::{Unexpected, UnexpectedEnd};
        for (line, error) in [
            ("a b", Unexpected('b')),
            ("a=1", Unexpected('=')),
            ("=", Unexpected('=')),
            ("\"a\"", Unexpected('"')),
            (";x", Unexpected(';')),
            ("a,;x", Unexpected(';')),
            ("a;", UnexpectedEnd),
            ("a; ", UnexpectedEnd),
            ("a;,b", Unexpected(',')),
            ("a;;x", Unexpected(';')),
            ("a;=1", Unexpected('=')),
            ("a;x y", Unexpected('y')),
            ("a;x=", UnexpectedEnd),
            ("a;x=,b", Unexpected(',')),
            ("a;x=;y", Unexpected(';')),
            ("a;x==1", Unexpected('=')),
            ("a;x=1 2", Unexpected('2')),
            ("a;x=1\"", Unexpected('"')),
            ("a;x=1/2", Unexpected('/')),
            ("a;x=\"", UnexpectedEnd),
            ("a;x=\"1", UnexpectedEnd),
            ("a;x=\"1,b", Unexpected(',')),
            ("a;x=\"\"", Unexpected('"')),
            ("a;x=\"1 0\"", Unexpected(' ')),
            ("a;x=\" 10\"", Unexpected(' ')),
            ("a;x=\"10 \"", Unexpected(' ')),
            ("a;x=\"10\"0", Unexpected('0')),
            ("a;x=\"1\"\"0\"", Unexpected('"')),
            ("a;x=\"1\\\"", Unexpected('\\')),
            ("a;x=\"1\\", Unexpected('\\')),
            ("a;x=\"\\,\"", Unexpected('\\')),
            ("a;x=\"\\\\\"", Unexpected('\\')),
            ("a\0", Unexpected('\0')),
            ("a\r\nb", Unexpected('\r')),
            ("a;x=\x7f", Unexpected('\x7f')),
            ("\u{b}a", Unexpected('\u{b}')),
            ("é", Unexpected('é')),
            ("aé", Unexpected('é')),
            ("a;x=\"é\"", Unexpected('é')),
            ("a\u{a0}", Unexpected('\u{a0}')),
        ] {
            assert_eq!(rewritten(&[line]), Err(error), "{line:?}");
            assert_eq!(rewritten(&["good;x=1, good", line]), Err(error), "{line:?}");
        }
    }

    #[test]
    fn a_quoted_value_does_not_go_on_in_the_next_line() {
        assert_eq!(rewritten(&["a;x=\"1", "0\""]), Err(MalformedExtensions::UnexpectedEnd));
    }

    #[test]
    fn noise_is_refused_or_read_the_same_twice() {
        let alphabet = ["a", "x1", ",", ";", "=", "\"", "\\", " ", "\t", "\0", "é"];
        let mut read = 0;
        // Without the last two pieces more lines are well-formed.
        for pieces in [&alphabet[..], &alphabet[..9], &alphabet[..5]] {
            for line in noise(pieces).take(20_000) {
                let Ok(list) = rewritten(&[&line]) else { continue };
                assert_eq!(rewritten(&[&list]).as_ref(), Ok(&list), "{line:?}");
                read += 1;
            }
        }
        assert!(read > 1000, "{read}");
    }

    #[test]
    fn any_bytes_at_all_are_read_without_panic() {
        let bytes: Vec<String> = (0..=u8::MAX).map(|byte| char::from(byte).to_string()).collect();
        let pieces: Vec<&str> = bytes.iter().map(String::as_str).collect();
        for line in noise(&pieces).take(20_000) {
            let _ = rewritten(&[&line]);
        }
    }
}
