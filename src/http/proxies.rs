//! Proxies that are trusted to name the address of a client.
//!
//! `forwarded.rs` reads their headers; this file decides how much of them to trust.

use std::net::IpAddr;
use std::str::FromStr;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::forwarded::{Hop, Node, forwarded, is_proto_https, x_forwarded_for};
use crate::admission::ClientAddr;
use crate::context::Told;

/// Largest number of hops that are read. No real path has as many.
const MAX_HOPS: usize = 64;

/// The proxies that a server trusts. At first it trusts none.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Whether all peers on Unix sockets are trusted.
    unix_peers: bool,
}

impl TrustedProxies {
    pub(super) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix_peers
    }

    /// Trusts an address, a network such as `10.0.0.0/8`, or `unix:`. The error is a reason to show to the
    /// user.
    pub(super) fn trust(&mut self, proxy: &str) -> Result<(), String> {
        if proxy == "unix:" {
            self.unix_peers = true;
            return Ok(());
        }
        let network = network(proxy)
            .ok_or_else(|| format!("`{proxy}` is neither an address nor a network nor `unix:`"))?;
        if network != network.trunc() {
            return Err(format!("`{proxy}` is inside the network {}", network.trunc()));
        }
        self.networks.push(network);
        Ok(())
    }

    /// The trusted part of the proxies' information about the client; `None` if the peer is not trusted. The
    /// peer on a Unix socket has no address. `header` is the header with the client's address, if the
    /// application has named it.
    pub(super) fn told(
        &self,
        header: Option<&HeaderName>,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Option<Told> {
        let is_trusted = peer.map_or(self.unix_peers, |peer| self.trusts(peer.to_canonical()));
        if !is_trusted {
            return None;
        }
        let lines = |name: &HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let list = |name: &HeaderName| self.walk(x_forwarded_for(lines(name)));
        let element = || self.walk(forwarded(lines(&FORWARDED)));
        let told = match header {
            Some(name) if *name == FORWARDED => element(),
            Some(name) => list(name),
            // One of the two headers may come from the client, through a proxy that knows only the other.
            None => list(&X_FORWARDED_FOR).agreed(element()),
        };
        let is_secure = told.is_secure || is_proto_https(lines(&X_FORWARDED_PROTO));
        Some(Told { is_secure, ..told })
    }

    /// Walks from the end, through trusted hops, to the first hop that is not trusted: the client.
    fn walk(&self, hops: impl Iterator<Item = Hop>) -> Told {
        let mut told = Told { addr: None, is_secure: false };
        for (number, Hop { node, is_secure }) in hops.enumerate() {
            let addr = match node {
                Node::At(_) | Node::Unknown if number == MAX_HOPS => ClientAddr::Unknown,
                Node::At(address) => ClientAddr::Known(address),
                Node::Unknown => ClientAddr::Unknown,
                Node::Malformed => ClientAddr::Disputed,
            };
            told = Told { addr: Some(addr), is_secure };
            if !matches!(addr, ClientAddr::Known(address) if self.trusts(address)) {
                break;
            }
        }
        told
    }

    /// Whether this address is a trusted proxy. The caller has turned IPv4 written as IPv6 into IPv4.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

const FORWARDED: HeaderName = ::http::header::FORWARDED;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Told {
    /// The information that both agree on. If they differ, neither is trusted.
    fn agreed(self, other: Self) -> Self {
        let addr = match (self.addr, other.addr) {
            (told, None) | (None, told) => told,
            (one, other) if one == other => one,
            _ => Some(ClientAddr::Disputed),
        };
        Self { addr, is_secure: self.is_secure || other.is_secure }
    }
}

/// Reads a network. IPv4 written as IPv6 becomes IPv4, the form in which addresses are searched for.
fn network(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = IpAddr::from_str(address).ok()?;
    let Some(prefix) = prefix else { return Some(IpNet::from(address.to_canonical())) };
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let prefix = u8::from_str(prefix).ok()?;
    let network = IpNet::new(address, prefix).ok()?;
    match (address.to_canonical(), prefix.checked_sub(96)) {
        (mapped @ IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => {
            IpNet::new(mapped, prefix).ok()
        }
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(list: &[&str]) -> TrustedProxies {
        let mut proxies = TrustedProxies::default();
        for proxy in list {
            proxies.trust(proxy).unwrap();
        }
        proxies
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        lines.iter().map(line).collect()
    }

    /// The client according to `lines` from `peer`, with 10.0.0.0/8 and `::1` trusted, and with this header
    /// known to hold the client's address.
    fn client_by(
        header: Option<&'static str>,
        peer: &str,
        lines: &[(&'static str, &str)],
    ) -> Option<String> {
        let proxies = proxies(&["10.0.0.0/8", "::1"]);
        let header = header.map(HeaderName::from_static);
        let told = proxies.told(header.as_ref(), Some(peer.parse().unwrap()), &headers(lines));
        Some(match told?.addr? {
            ClientAddr::Known(address) => address.to_string(),
            ClientAddr::Unknown => "unknown".to_owned(),
            ClientAddr::Disputed => "disputed".to_owned(),
        })
    }

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        client_by(None, peer, lines)
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn a_list_is_walked_from_its_end_over_trusted_hops_only() {
        for (list, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1, 10.0.0.2", Some("192.0.2.1")),
            ("192.0.2.1, 10.0.0.3, ::1, 10.0.0.2", Some("192.0.2.1")),
            // The elements further to the left were written by an untrusted party.
            ("9.9.9.9, 192.0.2.1, 10.0.0.2", Some("192.0.2.1")),
            ("10.0.0.9, 192.0.2.1", Some("192.0.2.1")),
            // If a proxy does not name its client, the client is unknown, and not the proxy.
            ("9.9.9.9, unknown, 10.0.0.2", Some("unknown")),
            ("unknown", Some("unknown")),
            ("192.0.2.1,, 10.0.0.2", Some("192.0.2.1")),
            ("192.0.2.1, ", Some("192.0.2.1")),
            ("", None),
            (" , ", None),
            // All are trusted: the client is one of them.
            ("10.0.0.3, 10.0.0.2", Some("10.0.0.3")),
            ("::ffff:192.0.2.1, ::ffff:10.0.0.2", Some("192.0.2.1")),
            ("2001:db8::1, [::1]:443", Some("2001:db8::1")),
        ] {
            assert_eq!(client("10.0.0.1", &[(XFF, list)]).as_deref(), expected, "{list}");
            assert_eq!(client("::ffff:10.0.0.1", &[(XFF, list)]).as_deref(), expected, "{list}");
            assert_eq!(client("192.0.2.9", &[(XFF, list)]), None, "{list}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [(XFF, "9.9.9.9, 192.0.2.1"), (XFF, "10.0.0.3"), (XFF, "10.0.0.2")];
        assert_eq!(client("10.0.0.1", &lines).as_deref(), Some("192.0.2.1"));
        let lines = [(FWD, "for=9.9.9.9"), (FWD, "for=192.0.2.1;proto=https, for=10.0.0.2")];
        assert_eq!(client("10.0.0.1", &lines).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn of_two_headers_that_differ_neither_is_believed() {
        for (x_forwarded, forwarded, expected) in [
            ("192.0.2.1", "for=192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1, 10.0.0.2", "for=192.0.2.1", Some("192.0.2.1")),
            ("unknown", "for=_hidden", Some("unknown")),
            ("9.9.9.9", "for=192.0.2.1", Some("disputed")),
            ("192.0.2.1", "for=9.9.9.9", Some("disputed")),
            ("192.0.2.1", "for=unknown", Some("disputed")),
            ("192.0.2.1", "for=\"", Some("disputed")),
            // A header without content contradicts nothing.
            ("", "for=192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1", ",", Some("192.0.2.1")),
        ] {
            let lines = [(XFF, x_forwarded), (FWD, forwarded)];
            let client = client("10.0.0.1", &lines);
            assert_eq!(client.as_deref(), expected, "{x_forwarded} {forwarded}");
        }
    }

    #[test]
    fn of_a_line_that_a_client_can_spoil_nothing_is_believed() {
        for (lines, expected) in [
            (&[(FWD, "for=\"9.9.9.9, for=192.0.2.1")][..], "disputed"),
            // The malformed line comes through a trusted proxy, which is not the client.
            (&[(FWD, "for=\""), (FWD, "for=10.0.0.2")], "disputed"),
            (&[(FWD, "for=\""), (FWD, "for=192.0.2.1")], "192.0.2.1"),
        ] {
            assert_eq!(client("10.0.0.1", lines).as_deref(), Some(expected), "{lines:?}");
            let named = client_by(Some(FWD), "10.0.0.1", lines);
            assert_eq!(named.as_deref(), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn where_the_header_is_known_the_other_is_not_looked_at() {
        let lines = [(XFF, "192.0.2.1"), (FWD, "for=192.0.2.2"), ("x-real-ip", "192.0.2.3")];
        for (header, expected) in [
            (Some(XFF), "192.0.2.1"),
            (Some(FWD), "192.0.2.2"),
            (Some("x-real-ip"), "192.0.2.3"),
            (None, "disputed"),
        ] {
            assert_eq!(client_by(header, "10.0.0.1", &lines).as_deref(), Some(expected));
            assert_eq!(client_by(header, "192.0.2.9", &lines), None, "it is not trusted");
        }
        assert_eq!(client_by(Some("x-real-ip"), "10.0.0.1", &lines[..2]), None);
    }

    #[test]
    fn a_client_speaks_tls_if_the_proxy_says_so() {
        for (header, lines, is_secure) in [
            (None, &[][..], false),
            (None, &[("x-forwarded-proto", "https")], true),
            (None, &[("x-forwarded-proto", "http")], false),
            (None, &[(FWD, "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http")], true),
            (None, &[(FWD, "for=9.9.9.9;proto=https, for=192.0.2.1;proto=http")], false),
            (Some(FWD), &[(FWD, "proto=https")], true),
            (Some(XFF), &[(FWD, "proto=https")], false),
            (Some(XFF), &[("x-forwarded-proto", "https")], true),
        ] {
            let header = header.map(HeaderName::from_static);
            let told = |peer: &str| {
                let peer = Some(peer.parse().unwrap());
                proxies(&["10.0.0.0/8"]).told(header.as_ref(), peer, &headers(lines))
            };
            assert_eq!(told("10.0.0.1").unwrap().is_secure, is_secure, "{header:?} {lines:?}");
            assert_eq!(told("192.0.2.1"), None);
        }
    }

    #[test]
    fn a_list_of_100_kilobytes_is_not_walked_to_its_end() {
        let trusted = "10.0.0.2,".repeat(11_000);
        assert_eq!(client("10.0.0.1", &[(XFF, &trusted)]).as_deref(), Some("unknown"));
        let list = format!("{trusted}192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, &list)]).as_deref(), Some("192.0.2.1"));
        let list = format!("{}for=192.0.2.1", "for=10.0.0.2,".repeat(8_000));
        assert_eq!(client("10.0.0.1", &[(FWD, &list)]).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn a_peer_without_address_is_trusted_by_name() {
        let lines = headers(&[(XFF, "192.0.2.1, 127.0.0.1")]);
        let client = |list: &[&str]| proxies(list).told(None, None, &lines)?.addr;
        let known = |address: &str| Some(ClientAddr::Known(address.parse().unwrap()));
        assert_eq!(client(&["127.0.0.1"]), None);
        assert_eq!(client(&["unix:"]), known("127.0.0.1"));
        assert_eq!(client(&["unix:", "127.0.0.1"]), known("192.0.2.1"));
    }

    #[test]
    fn a_network_is_written_without_room_for_doubt() {
        for (text, inside, outside) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("::ffff:192.0.2.0/120", "192.0.2.255", "192.0.3.0"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
        ] {
            let proxies = proxies(&[text]);
            assert!(proxies.trusts(inside.parse().unwrap()), "{text} {inside}");
            assert!(!proxies.trusts(outside.parse().unwrap()), "{text} {outside}");
        }
        for text in [
            "",
            "localhost",
            "192.0.2",
            "192.0.2.1/",
            "192.0.2.0/33",
            "192.0.2.0/+24",
            "::/129",
            "192.0.2.0/24/8",
            "192.0.2.0/255.255.255.0",
            " 192.0.2.1",
            "[::1]",
            "192.0.2.1:80",
            "unix",
            "192.0.2.0/024000",
        ] {
            let error = TrustedProxies::default().trust(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is neither")), "{error}");
        }
        let error = TrustedProxies::default().trust("10.1.2.3/8").unwrap_err();
        assert_eq!(error, "`10.1.2.3/8` is inside the network 10.0.0.0/8");
    }
}
