//! The header `Cookie` ([RFC 6265 §5.4]).
//!
//! [RFC 6265 §5.4]: https://www.rfc-editor.org/rfc/rfc6265#section-5.4

/// The value of the first cookie of this name in a line of `Cookie`. A part without `=` is no cookie.
pub(super) fn find<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.split(|&byte| byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (own, value) = pair.split_at_checked(equals)?;
        let value = value.strip_prefix(b"=")?;
        (own.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_has_its_whole_value() {
        for (line, name, value) in [
            ("a=1", "a", Some("1")),
            ("a=1; b=2; c=3", "b", Some("2")),
            ("a=1;b=2", "b", Some("2")),
            ("  a = 1 \t;\tb=2 ", "a", Some("1")),
            ("  a = 1 \t;\tb=2 ", "b", Some("2")),
            ("a=1; a=2", "a", Some("1")),
            ("a=", "a", Some("")),
            ("a=b=c==", "a", Some("b=c==")),
            ("a=\"1, 2\"", "a", Some("\"1, 2\"")),
            ("a=%41", "a", Some("%41")),
            ("__Host-sid=x", "__Host-sid", Some("x")),
            ("aa=1; a=2", "a", Some("2")),
            ("a=1", "A", None),
            ("a=1", "b", None),
            ("a", "a", None),
            ("a; b=1", "a", None),
            ("b=a=1", "a", None),
            ("=1", "", Some("1")),
            ("", "", None),
            (";;;", "", None),
        ] {
            assert_eq!(find(line.as_bytes(), name), value.map(str::as_bytes), "{name} in {line:?}");
        }
        assert_eq!(find(b"a=\xff; b=1", "b"), Some(&b"1"[..]));
        assert_eq!(find(b"a=\xff; b=1", "a"), Some(&b"\xff"[..]));
    }
}
