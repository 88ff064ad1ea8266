//! The headers in which proxies name the client: `Forwarded` ([RFC 7239]) and `X-Forwarded-For`.
//!
//! Each proxy appends the address of its own client to a list that it has received. So the lists are read
//! from the end, and only as far as the proxies are trusted, which `proxies.rs` decides.
//!
//! [RFC 7239]: https://www.rfc-editor.org/rfc/rfc7239

use std::net::{IpAddr, SocketAddr};

/// The client of a proxy, as the proxy names it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Hop {
    pub(super) node: Node,
    /// Whether it used TLS; `false` if the proxy does not say so.
    pub(super) is_secure: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Node {
    At(IpAddr),
    /// Not an address: `unknown`, an obfuscated identifier (RFC 7239 §6), a Unix socket.
    #[default]
    Unknown,
    /// The line breaks the grammar, so the part that the proxy wrote cannot be found.
    Malformed,
}

/// The hops in the lines of `X-Forwarded-For`, the last one first. An address may have a port. Empty
/// elements are skipped (RFC 9110 §5.6.1).
pub(super) fn x_forwarded_for<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Hop> {
    elements(lines).map(|element| {
        let address = std::str::from_utf8(element).ok().and_then(address);
        Hop { node: address.map_or(Node::Unknown, Node::At), is_secure: false }
    })
}

/// Whether the last element of `X-Forwarded-Proto` says that the client used TLS.
pub(super) fn is_proto_https<'a>(lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> bool {
    elements(lines).next().is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

/// The elements of a list over several lines, the last one first, without empty ones.
fn elements<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    let elements = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The hops in the lines of `Forwarded`, the last one first. An element without `for` is a hop without an
/// address. An element without parameters is skipped.
pub(super) fn forwarded<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Hop> {
    lines.rev().flat_map(|line| {
        let hops = std::str::from_utf8(line).ok().and_then(hops_of);
        let malformed = || vec![Hop { node: Node::Malformed, is_secure: false }];
        hops.unwrap_or_else(malformed).into_iter().rev()
    })
}

/// The elements of one line, in order; `None` if it breaks the grammar of RFC 7239 §4.
///
/// The line is read from its start, because a quoted string may contain commas. If a client leaves a quote
/// open, the quoted string swallows the element of the proxy. Such a line is not trusted at all.
fn hops_of(line: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let mut rest = Some(line);
    while let Some(element) = rest {
        let (hop, after) = take_element(element)?;
        hops.extend(hop);
        rest = after;
    }
    Some(hops)
}

/// Reads one element, up to the next comma. Returns it with the rest of the line; it is `None` if it has no
/// parameter.
fn take_element(mut text: &str) -> Option<(Option<Hop>, Option<&str>)> {
    let mut hop: Option<Hop> = None;
    let mut has_for = false;
    loop {
        text = blank_trimmed(text);
        // The grammar allows empty pairs.
        if !text.is_empty() && !text.starts_with([',', ';']) {
            let (name, value, rest) = take_pair(text)?;
            let hop = hop.get_or_insert_default();
            if name.eq_ignore_ascii_case("for") {
                // Each parameter occurs once (RFC 7239 §4).
                if std::mem::replace(&mut has_for, true) {
                    return None;
                }
                hop.node = node(value).map_or(Node::Unknown, Node::At);
            } else if name.eq_ignore_ascii_case("proto") {
                hop.is_secure = value.eq_ignore_ascii_case("https");
            }
            text = blank_trimmed(rest);
        }
        if text.is_empty() {
            return Some((hop, None));
        }
        let Some(pairs) = text.strip_prefix(';') else {
            return Some((hop, Some(text.strip_prefix(',')?)));
        };
        text = pairs;
    }
}

/// Reads `token=value`. Returns both, the value without quotes, and the rest.
fn take_pair(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = take_token(text)?;
    let rest = rest.strip_prefix('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => take_quoted(quoted)?,
        None => take_token(rest)?,
    };
    Some((name, value, rest))
}

/// Reads a token (RFC 9110 §5.6.2), and returns it with the rest.
fn take_token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let (token, rest) = text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()));
    if token.is_empty() { None } else { Some((token, rest)) }
}

/// Reads the rest of a quoted string (RFC 9110 §5.6.4), after its first quote. Escapes are kept, since no
/// address has any.
fn take_quoted(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })?;
    let (inside, rest) = text.split_at(end);
    Some((inside, rest.strip_prefix('"')?))
}

/// Reads a node (RFC 7239 §6). An IPv6 address has brackets here, and a node is never a host name.
fn node(value: &str) -> Option<IpAddr> {
    let is_bare_ipv6 = value.matches(':').count() > 1 && !value.starts_with('[');
    if is_bare_ipv6 { None } else { address(value) }
}

/// Reads an address as proxies write it, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(inside) => inside.parse().map(IpAddr::V6).ok(),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| text.parse().ok().map(|addr: SocketAddr| addr.ip()))?;
    Some(address.to_canonical())
}

fn blank_trimmed(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hops: impl Iterator<Item = Hop>) -> String {
        let hops = hops.map(|hop| match hop.node {
            Node::At(address) => address.to_string() + if hop.is_secure { "+tls" } else { "" },
            Node::Unknown => "?".to_owned(),
            Node::Malformed => "!".to_owned(),
        });
        hops.collect::<Vec<_>>().join(" ")
    }

    fn of_forwarded(lines: &[&str]) -> String {
        shown(forwarded(lines.iter().map(|line| line.as_bytes())))
    }

    fn of_x_forwarded_for(lines: &[&str]) -> String {
        shown(x_forwarded_for(lines.iter().map(|line| line.as_bytes())))
    }

    #[test]
    fn the_examples_of_rfc_7239_are_read_from_the_end() {
        for (lines, hops) in [
            (&["for=\"_gazonk\""][..], "?"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17 192.0.2.43"),
            (&["for=192.0.2.43", "for=198.51.100.17"], "198.51.100.17 192.0.2.43"),
            (
                &["for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown"],
                "? 2001:db8:cafe::17 192.0.2.43",
            ),
            (&["for=_hidden, for=_SEVKISEK"], "? ?"),
            (&["for=\"192.0.2.43:47011\";by=\"[2001:db8::1]:80\""], "192.0.2.43"),
            (&["host=\"a,b;for=9.9.9.9\";for=192.0.2.1 ; proto=https"], "192.0.2.1+tls"),
            (&["Proto=\"HTTPS\";for=192.0.2.1, for=192.0.2.2"], "192.0.2.2 192.0.2.1+tls"),
            (&["host=\"a\\\"b\";for=192.0.2.1"], "192.0.2.1"),
            (&["proto=https, for=192.0.2.1"], "192.0.2.1 ?"),
            // Empty elements are skipped (RFC 9110 §5.6.1).
            (&["for=192.0.2.1, ,,for=192.0.2.2,"], "192.0.2.2 192.0.2.1"),
            (&[",for=192.0.2.1", "", " , ", ";"], "192.0.2.1"),
            (&[";;for=192.0.2.1; ;by=_x;"], "192.0.2.1"),
        ] {
            assert_eq!(of_forwarded(lines), hops, "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_breaks_the_grammar_is_one_hop_that_says_so() {
        for line in [
            "for",
            "for=",
            "=192.0.2.1",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1 192.0.2.2",
            "for=[2001:db8::1]",
            "for=192.0.2.1:80",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            // A quote that a client left open, and the element of the proxy.
            "for=\"9.9.9.9, for=192.0.2.1",
            "for=9.9.9.9;by=\", for=\"[2001:db8::1]\"",
            "for=9.9.9.9;by=\"\\\", for=192.0.2.1;by=\"x\"",
            "for=é, for=192.0.2.1",
            "for=192.0.2.1é",
        ] {
            assert_eq!(of_forwarded(&[line]), "!", "{line}");
            assert_eq!(of_forwarded(&[line, "for=192.0.2.1"]), "192.0.2.1 !", "{line}");
        }
        assert_eq!(shown(forwarded([b"for=\xff".as_slice()].into_iter())), "!");
    }

    #[test]
    fn a_hop_that_is_not_an_address_is_unknown() {
        for value in [
            "unknown",
            "_x",
            "2001:db8::1",
            "[192.0.2.1]",
            "[2001:db8::1]:99999",
            "192.0.2.1:x",
            "192.0.2.256",
            "192.0.2.01",
            "[fe80::1%eth0]",
            "localhost",
            "",
            " 192.0.2.1",
        ] {
            assert_eq!(of_forwarded(&[&format!("for=\"{value}\"")]), "?", "{value}");
        }
    }

    #[test]
    fn x_forwarded_for_is_one_list_over_all_its_lines() {
        for (lines, hops) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 192.0.2.2", "192.0.2.3"], "192.0.2.3 192.0.2.2 192.0.2.1"),
            (&["192.0.2.1:4711,[2001:db8::1]:80"], "2001:db8::1 192.0.2.1"),
            (&["2001:db8::1,[2001:db8::2]"], "2001:db8::2 2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            // Empty elements are skipped (RFC 9110 §5.6.1).
            (&["\t192.0.2.1 , "], "192.0.2.1"),
            (&["", "192.0.2.1", ",", " "], "192.0.2.1"),
            (&["192.0.2.1, ,,192.0.2.2"], "192.0.2.2 192.0.2.1"),
            (&[""], ""),
            (&["unknown, é, 192.0.2.2, 192.0.2.3 x"], "? 192.0.2.2 ? ?"),
        ] {
            assert_eq!(of_x_forwarded_for(lines), hops, "{lines:?}");
        }
        let latin = [b"\xe9, 192.0.2.1".as_slice()];
        assert_eq!(shown(x_forwarded_for(latin.into_iter())), "192.0.2.1 ?");
    }

    #[test]
    fn the_last_scheme_of_a_list_is_that_of_the_nearest_proxy() {
        for (lines, is_https) in [
            (&["https"][..], true),
            (&["HTTPS ,"], true),
            (&["http", "https"], true),
            (&["https, http"], false),
            (&["wss"], false),
            (&[""], false),
            (&[], false),
        ] {
            let bytes = lines.iter().map(|line| line.as_bytes());
            assert_eq!(is_proto_https(bytes), is_https, "{lines:?}");
        }
    }
}
