//! The path of a request below a folder, decoded, and the paths that are refused.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// A path below a folder. Each of its names is a plain one.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Name {
    pub(super) path: PathBuf,
    /// Whether the path ends with a slash, and so is that of a folder.
    pub(super) is_folder: bool,
}

impl Name {
    /// Decodes the rest of a path as it was sent, without its first slash; `None` if it is refused. `is_folder` tells
    /// whether the whole path ends with a slash.
    pub(super) fn parse(rest: &str, is_folder: bool, serves_hidden: bool) -> Option<Self> {
        let mut path = PathBuf::new();
        if rest.is_empty() {
            return Some(Self { path, is_folder });
        }
        let rest = if is_folder { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
        for segment in rest.split('/') {
            // Once: `%252e` is a name with a percent sign.
            let name = percent_decode_str(segment).decode_utf8().ok()?;
            if !is_safe(&name) || (name.starts_with('.') && !serves_hidden) {
                return None;
            }
            path.push(&*name);
        }
        Some(Self { path, is_folder })
    }
}

/// Whether a name means an entry of its folder, and nothing else, on this system.
pub(super) fn is_safe(name: &str) -> bool {
    // A backslash is refused on all systems, since a proxy may take it for a slash.
    let is_more = matches!(name, "" | "." | "..") || name.contains(['/', '\\', '\0']);
    let is_other = cfg!(windows) && is_special_on_windows(name);
    !is_more && !is_other
}

/// Whether Windows reads more into a name than an entry of its folder.
fn is_special_on_windows(name: &str) -> bool {
    // A stream of a file, a drive, a wildcard.
    let is_more = name.contains(|char: char| char.is_control() || ":<>\"|?*".contains(char));
    // Final dots and spaces are dropped, so the name is another one.
    let is_less = name.ends_with(['.', ' ']);
    // The short name of another file: `GIT~1` is `.git`.
    let mut parts = name.split('~').skip(1);
    let is_short = parts.any(|part| part.starts_with(|char: char| char.is_ascii_digit()));
    is_more || is_less || is_short || is_device(name)
}

/// Whether a name is that of a device of Windows, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let is_port = |port: &str| {
        let mut number = port.chars();
        number.next().is_some_and(|char| char.is_ascii_digit() || "¹²³".contains(char))
            && number.next().is_none()
    };
    matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || ["COM", "LPT"].iter().any(|kind| stem.strip_prefix(kind).is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(rest: &str, serves_hidden: bool) -> Option<String> {
        let name = Name::parse(rest, rest.is_empty() || rest.ends_with('/'), serves_hidden)?;
        let slash = if name.is_folder { "/" } else { "" };
        Some(format!("{}{slash}", name.path.display()))
    }

    #[test]
    fn a_path_is_decoded_once_and_each_name_is_an_entry_of_its_folder() {
        for (rest, expected) in [
            ("", Some("/")),
            ("a", Some("a")),
            ("a/", Some("a/")),
            ("a/b.txt", Some("a/b.txt")),
            ("%61%20%C3%A9", Some("a é")),
            ("a+b", Some("a+b")),
            ("%2525", Some("%25")),
            ("%252e%252e", Some("%2e%2e")),
            ("%2", Some("%2")),
            ("a..b/c..", Some("a..b/c..")),
            ("..", None),
            ("a/../b", None),
            (".", None),
            ("%2e%2E", None),
            ("a/.%2e", None),
            ("a%2fb", None),
            ("a%2Fb", None),
            ("%2fetc%2fpasswd", None),
            ("/", None),
            ("/a", None),
            ("a//b", None),
            ("a//", None),
            ("a\\b", None),
            ("..%5cb", None),
            ("a%00", None),
            ("%ff", None),
        ] {
            assert_eq!(parsed(rest, true).as_deref(), expected, "{rest:?}");
        }
    }

    #[test]
    fn hidden_names_are_refused_wherever_they_stand_unless_they_are_served() {
        for rest in [".env", ".git/config", "a/.b/c", "%2eenv", "...", ".well-known/x"] {
            assert_eq!(parsed(rest, false), None, "{rest}");
            assert!(parsed(rest, true).is_some(), "{rest}");
        }
    }

    #[test]
    fn names_into_which_windows_reads_more_are_found() {
        for name in [
            "con",
            "NUL",
            "nul.txt",
            "Aux.tar.gz",
            "com1",
            "COM0",
            "lpt9.x",
            "com¹",
            "prn ",
            "conin$",
            "CONOUT$.txt",
            "con .txt",
            "a:b",
            "a.txt::$DATA",
            "c:",
            "a.",
            "a ",
            "a?",
            "a*",
            "GIT~1",
            "LONGFI~2.TXT",
            "a\u{1}",
            "a|b",
            "\"a\"",
        ] {
            assert!(is_special_on_windows(name), "{name:?}");
        }
        for name in
            ["console", "a.con", "com", "com10", "lpt", "nulls", "a~b", "~", "a.b c", "é", ".a"]
        {
            assert!(!is_special_on_windows(name), "{name:?}");
        }
    }
}
