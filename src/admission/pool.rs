//! The permits of a limit: for all clients together, or for each address.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::addresses::Ipv6Prefix;
use crate::permits::Permits;
use crate::sync::Mutex;

/// All permits of a limit.
#[derive(Debug)]
pub(super) struct Pool {
    /// The number of permits; for each address, if addresses are counted.
    pub(super) number: usize,
    /// A running number: an older pool has a smaller one.
    age: u64,
    clients: Clients,
}

enum Clients {
    All(Arc<Permits>),
    /// The addresses that have a permit or ask for one.
    Each(Ipv6Prefix, Mutex<HashMap<Address, Guests>>),
}

/// An address as limits count it; `None` for all clients whose address is unknown.
type Address = Option<IpAddr>;

/// The permits of an address, and the number of its clients that have or want one.
#[derive(Debug)]
struct Guests {
    permits: Arc<Permits>,
    places: usize,
}

impl Pool {
    pub(super) fn for_all(number: usize) -> Self {
        Self::of(number, Clients::All(Arc::new(Permits::new(number))))
    }

    pub(super) fn for_each_address(number: usize, prefix: Ipv6Prefix) -> Self {
        Self::of(number, Clients::Each(prefix, Mutex::default()))
    }

    /// Whether each address has permits of its own.
    pub(super) fn is_for_each_address(&self) -> bool {
        matches!(self.clients, Clients::Each(..))
    }

    fn of(number: usize, clients: Clients) -> Self {
        static POOLS: AtomicU64 = AtomicU64::new(0);
        Self { number, age: POOLS.fetch_add(1, Relaxed), clients }
    }

    /// The rank of this pool among others. No two are equal. A request that needs permits of several pools
    /// takes them in this order.
    pub(super) fn rank(&self) -> (bool, u64) {
        (!self.is_for_each_address(), self.age)
    }

    /// Enters a client, which then asks for a permit through the returned value.
    pub(super) fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> AddressEntry {
        let (permits, address) = match &self.clients {
            Clients::All(permits) => (Arc::clone(permits), None),
            Clients::Each(prefix, guests) => {
                let address = client.map(|client| prefix.client(client));
                let mut guests = guests.lock();
                let new = || Guests { permits: Arc::new(Permits::new(self.number)), places: 0 };
                let guests = guests.entry(address).or_insert_with(new);
                guests.places = guests.places.saturating_add(1);
                (Arc::clone(&guests.permits), address)
            }
        };
        AddressEntry { permits, address, pool: Arc::clone(self) }
    }

    fn leave(&self, address: Address) {
        let Clients::Each(_, guests) = &self.clients else { return };
        let mut guests = guests.lock();
        let Some(those) = guests.get_mut(&address) else { return };
        those.places = those.places.saturating_sub(1);
        if those.places == 0 {
            guests.remove(&address);
        }
    }

    pub(super) fn available(&self) -> usize {
        let available = self.count_each(Permits::available);
        available.into_iter().min().unwrap_or(self.number)
    }

    pub(super) fn available_to(&self, address: IpAddr) -> usize {
        match &self.clients {
            Clients::All(permits) => permits.available(),
            Clients::Each(prefix, guests) => {
                let guests = guests.lock();
                let those = guests.get(&Some(prefix.client(address)));
                those.map_or(self.number, |those| those.permits.available())
            }
        }
    }

    pub(super) fn in_use(&self) -> usize {
        let in_use = |permits: &Permits| self.number.saturating_sub(permits.available());
        self.count_each(in_use).into_iter().sum()
    }

    pub(super) fn waiting(&self) -> usize {
        self.count_each(Permits::waiting).into_iter().sum()
    }

    fn count_each(&self, count: impl Fn(&Permits) -> usize) -> Vec<usize> {
        match &self.clients {
            Clients::All(permits) => vec![count(permits)],
            Clients::Each(_, guests) => {
                guests.lock().values().map(|those| count(&those.permits)).collect()
            }
        }
    }
}

/// Shows the number of addresses only: the addresses are behind a lock, which is not held while a
/// formatter runs.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(permits) => f.debug_tuple("All").field(permits).finish(),
            Self::Each(prefix, guests) => {
                let addresses = guests.lock().len();
                let mut each = f.debug_struct("Each");
                each.field("prefix", prefix).field("addresses", &addresses).finish_non_exhaustive()
            }
        }
    }
}

/// A client of a pool, with or without a permit. The pool forgets an address when its last client has
/// left.
#[derive(Debug)]
pub(super) struct AddressEntry {
    pub(super) permits: Arc<Permits>,
    address: Address,
    pool: Arc<Pool>,
}

impl Drop for AddressEntry {
    fn drop(&mut self) {
        self.pool.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_forgotten_with_its_last_place() {
        let pool = Arc::new(Pool::for_each_address(2, Ipv6Prefix::default()));
        let Clients::Each(_, guests) = &pool.clients else { panic!("{pool:?}") };
        let places: Vec<AddressEntry> = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
            .map(|client| pool.enter(Some(address(client))))
            .into_iter()
            .chain([pool.enter(None)])
            .collect();
        assert_eq!(guests.lock().len(), 3);
        for (place, count) in places.into_iter().skip(1).rev().zip([2, 1, 1]) {
            drop(place);
            assert_eq!(guests.lock().len(), count);
        }
        assert!(guests.lock().is_empty());
    }

    #[test]
    fn counts_are_of_all_addresses_but_room_is_that_of_the_busiest() {
        let pool = Arc::new(Pool::for_each_address(2, Ipv6Prefix::default()));
        assert_eq!((pool.available(), pool.in_use(), pool.waiting()), (2, 0, 0));
        let places =
            ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|client| pool.enter(Some(address(client))));
        let permits = places.each_ref().map(|place| place.permits.try_acquire().unwrap());
        let queued = places.each_ref().map(|place| place.permits.queue(2).unwrap());
        assert_eq!((pool.available(), pool.in_use(), pool.waiting()), (0, 3, 3));
        assert_eq!(pool.available_to(address("192.0.2.1")), 0);
        assert_eq!(pool.available_to(address("::ffff:192.0.2.2")), 1);
        assert_eq!(pool.available_to(address("192.0.2.3")), 2);
        assert!(places[0].permits.queue(2).is_none(), "two wait already");
        drop((queued, permits));
        drop(places);
        assert_eq!((pool.available(), pool.in_use(), pool.waiting()), (2, 0, 0));
    }

    #[test]
    fn a_formatter_of_a_pool_may_look_at_the_pool() {
        struct Looking<'a>(&'a Arc<Pool>, usize);

        impl fmt::Write for Looking<'_> {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                self.1 += self.0.in_use();
                drop(self.0.enter(Some(address("192.0.2.9"))));
                Ok(())
            }
        }

        for pool in
            [Pool::for_each_address(2, Ipv6Prefix::default()), Pool::for_all(2)].map(Arc::new)
        {
            let place = pool.enter(Some(address("192.0.2.1")));
            let _permit = place.permits.try_acquire().unwrap();
            let mut looking = Looking(&pool, 0);
            fmt::write(&mut looking, format_args!("{pool:?}")).unwrap();
            assert!(looking.1 > 0);
        }
    }
}
