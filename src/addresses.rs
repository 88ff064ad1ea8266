//! The addresses of clients, and the number of connections of each.

#[cfg(feature = "server")]
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
#[cfg(feature = "server")]
use std::sync::Arc;

#[cfg(feature = "server")]
use crate::sync::{Mutex, MutexGuard};

/// The number of leading bits that tell IPv6 clients apart. Default: 64, the network that one customer gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ipv6Prefix(u8);

impl Ipv6Prefix {
    /// The number of bits of a whole address.
    const LONGEST: u8 = 128;

    /// Creates a prefix of `bits` bits; more than 128 counts as 128.
    pub(crate) fn new(bits: u8) -> Self {
        Self(bits.min(Self::LONGEST))
    }

    /// The address that stands for all addresses of one client. IPv4 written as IPv6 becomes IPv4.
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

/// The number of connections of each address, up to a limit.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Addresses {
    max: usize,
    prefix: Ipv6Prefix,
    /// The addresses that have connections.
    counts: Mutex<HashMap<IpAddr, usize>>,
}

#[cfg(feature = "server")]
impl Addresses {
    /// Creates a counter for up to `max` connections of each address.
    pub(crate) fn new(max: usize, prefix: Ipv6Prefix) -> Self {
        Self { max, prefix, counts: Mutex::default() }
    }

    /// Counts a connection until the returned value is dropped; `None` if its address has `max` already.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Visitor> {
        let address = self.prefix.client(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Visitor { address, addresses: Arc::clone(self) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock()
    }
}

/// A counted connection of an address. The address is forgotten when its last connection ends.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Visitor {
    address: IpAddr,
    addresses: Arc<Addresses>,
}

#[cfg(feature = "server")]
impl Drop for Visitor {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        let Some(count) = counts.get_mut(&self.address) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&self.address);
        }
    }
}

#[cfg(feature = "server")]
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

    #[test]
    fn an_address_has_so_many_connections_and_is_forgotten_with_the_last() {
        let addresses = Arc::new(Addresses::new(2, Ipv6Prefix::default()));
        let mut visitors: Vec<_> =
            ["2001:db8::1", "2001:db8::2"].map(|it| addresses.admit(address(it)).unwrap()).into();
        assert!(addresses.admit(address("2001:db8::3")).is_none());
        assert!(addresses.admit(address("2001:db8:0:1::1")).is_some());
        visitors.pop();
        visitors.push(addresses.admit(address("2001:db8::3")).unwrap());
        assert!(addresses.admit(address("2001:db8::1")).is_none());
        drop(visitors);
        assert!(addresses.counts().is_empty());
    }
}
