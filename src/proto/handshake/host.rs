//! The values that `Host` may have ([RFC 9110 §7.2], [RFC 3986 §3.2.2]).
//!
//! [RFC 9110 §7.2]: https://www.rfc-editor.org/rfc/rfc9110#section-7.2
//! [RFC 3986 §3.2.2]: https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2

// The part of it without sockets.
use core::net::Ipv6Addr;

/// Whether this is a host, which is not empty (RFC 9110 §4.2.1), with an optional port.
///
/// A name has no percent-encoding: no resolver looks up such a name.
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let (is_host, rest) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').unwrap_or_default();
        (address.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        (!name.is_empty() && name.bytes().all(is_of_a_name), rest)
    };
    let port = rest.strip_prefix(':').unwrap_or_default();
    let is_port = rest.is_empty() || rest == ":" || is_port(port);
    is_host && is_port
}

/// `unreserved` and `sub-delims` (RFC 3986 §2.2, §2.3).
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_an_optional_port_and_nothing_else() {
        for (text, is_one) in [
            ("example.com", true),
            ("example.com:", true),
            ("example.com:65535", true),
            ("192.0.2.1:80", true),
            ("[::1]", true),
            ("[2001:db8::192.0.2.1]:80", true),
            ("a_b.example.", true),
            ("", false),
            (":80", false),
            ("example.com:65536", false),
            ("example.com:+80", false),
            ("example.com:80:80", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]80", false),
            ("[192.0.2.1]", false),
            ("[v1.x]", false),
            ("[fe80::1%eth0]", false),
            ("user@example.com", false),
            ("example.com/", false),
            ("example.com#", false),
            ("example%2ecom", false),
            ("exa mple.com", false),
            ("bücher.example", false),
        ] {
            assert_eq!(is_host_and_port(text), is_one, "{text}");
        }
    }
}
