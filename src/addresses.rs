//! Addresses of clients, as limits count them.

use std::net::{IpAddr, Ipv6Addr};

/// How many bits of an IPv6 address tell clients apart. Default: 64, the network that one customer gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ipv6Prefix(u8);

impl Ipv6Prefix {
    /// The whole address.
    const LONGEST: u8 = 128;

    /// A prefix of so many bits; more than there are is the whole address.
    pub(crate) fn new(bits: u8) -> Self {
        Self(bits.min(Self::LONGEST))
    }

    /// The address that stands for all that one client may have. IPv4 that is written as IPv6 is IPv4.
    pub(crate) fn client(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let rest = u32::from(Self::LONGEST.saturating_sub(self.0));
                let network = u128::MAX.checked_shl(rest).unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & network))
            }
        }
    }
}

impl Default for Ipv6Prefix {
    fn default() -> Self {
        Self(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_a_network_of_ipv6_and_an_address_of_ipv4() {
        for (bits, one, other, is_same) in [
            (64, "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            (64, "2001:db8::1", "2001:db8:0:1::1", false),
            (56, "2001:db8::1", "2001:db8:0:ff::1", true),
            (56, "2001:db8::1", "2001:db8:0:100::1", false),
            (128, "2001:db8::1", "2001:db8::2", false),
            (u8::MAX, "2001:db8::1", "2001:db8::2", false),
            (0, "2001:db8::1", "fe80::1", true),
            (0, "192.0.2.1", "192.0.2.2", false),
            (0, "192.0.2.1", "::ffff:192.0.2.1", true),
            (64, "::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ] {
            let prefix = Ipv6Prefix::new(bits);
            let [one_client, other_client] = [one, other].map(|text| prefix.client(address(text)));
            assert_eq!(one_client == other_client, is_same, "{one} {other} /{bits}");
        }
    }
}
