//! The permits of a limit: for all clients together, for each address, or for each key.

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
    /// The number of permits; for each address or key, if these are counted.
    pub(super) number: usize,
    /// A running number: an older pool has a smaller one.
    age: u64,
    clients: Clients,
}

enum Clients {
    All(Arc<Permits>),
    /// The accounts that have a permit or ask for one.
    Each(AccountKind, Mutex<HashMap<Account, Guests>>),
}

/// How a limit tells clients apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AccountKind {
    Address(Ipv6Prefix),
    Key,
}

/// A client as limits count it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Account {
    /// `None` for all clients whose address is unknown.
    Address(Option<IpAddr>),
    Key(Arc<str>),
}

/// A client that asks for permits.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) address: Option<IpAddr>,
    /// The key that the handler has said.
    pub(super) key: Option<Arc<str>>,
}

/// The permits of an account, and the number of its clients that have or want one.
#[derive(Debug)]
struct Guests {
    permits: Arc<Permits>,
    places: usize,
}

impl Pool {
    pub(super) fn for_all(number: usize) -> Self {
        Self::of(number, Clients::All(Arc::new(Permits::new(number))))
    }

    pub(super) fn for_each(number: usize, kind: AccountKind) -> Self {
        Self::of(number, Clients::Each(kind, Mutex::default()))
    }

    /// How clients are told apart; `None` if they are not.
    fn kind(&self) -> Option<AccountKind> {
        match &self.clients {
            Clients::All(_) => None,
            Clients::Each(kind, _) => Some(*kind),
        }
    }

    /// Whether each address has permits of its own.
    pub(super) fn is_for_each_address(&self) -> bool {
        matches!(self.kind(), Some(AccountKind::Address(_)))
    }

    /// Whether each key has permits of its own.
    pub(super) fn is_for_each_key(&self) -> bool {
        self.kind() == Some(AccountKind::Key)
    }

    fn of(number: usize, clients: Clients) -> Self {
        static POOLS: AtomicU64 = AtomicU64::new(0);
        Self { number, age: POOLS.fetch_add(1, Relaxed), clients }
    }

    /// The rank of this pool among others. No two are equal. A request that needs permits of several pools
    /// takes them in this order.
    pub(super) fn rank(&self) -> (u8, u64) {
        let class = match self.kind() {
            Some(AccountKind::Address(_)) => 0,
            Some(AccountKind::Key) => 1,
            None => 2,
        };
        (class, self.age)
    }

    /// Enters a client, which then asks for a permit through the returned value; `None` if it has no key, and keys are
    /// counted.
    pub(super) fn enter(self: &Arc<Self>, client: &Client) -> Option<AccountEntry> {
        let (permits, account) = match &self.clients {
            Clients::All(permits) => (Arc::clone(permits), None),
            Clients::Each(kind, guests) => {
                let account = kind.account(client)?;
                let mut guests = guests.lock();
                let new = || Guests { permits: Arc::new(Permits::new(self.number)), places: 0 };
                let guests = guests.entry(account.clone()).or_insert_with(new);
                guests.places = guests.places.saturating_add(1);
                (Arc::clone(&guests.permits), Some(account))
            }
        };
        Some(AccountEntry { permits, account, pool: Arc::clone(self) })
    }

    fn leave(&self, account: &Account) {
        let Clients::Each(_, guests) = &self.clients else { return };
        let mut guests = guests.lock();
        let Some(those) = guests.get_mut(account) else { return };
        those.places = those.places.saturating_sub(1);
        if those.places == 0 {
            guests.remove(account);
        }
    }

    pub(super) fn available(&self) -> usize {
        let available = self.count_each(Permits::available);
        available.into_iter().min().unwrap_or(self.number)
    }

    /// The number of permits that are left for this client. If it has no key, and keys are counted, those for the key
    /// with the most connections.
    pub(super) fn available_to(&self, client: &Client) -> usize {
        match &self.clients {
            Clients::All(permits) => permits.available(),
            Clients::Each(kind, guests) => {
                let Some(account) = kind.account(client) else { return self.available() };
                let guests = guests.lock();
                let those = guests.get(&account);
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

impl AccountKind {
    /// The account of a client; `None` if it has no key, and keys are counted.
    fn account(self, client: &Client) -> Option<Account> {
        match self {
            Self::Address(prefix) => {
                Some(Account::Address(client.address.map(|address| prefix.client(address))))
            }
            Self::Key => client.key.clone().map(Account::Key),
        }
    }
}

/// Shows the number of accounts only: the accounts are behind a lock, which is not held while a
/// formatter runs.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(permits) => f.debug_tuple("All").field(permits).finish(),
            Self::Each(kind, guests) => {
                let accounts = guests.lock().len();
                let mut each = f.debug_struct("Each");
                each.field("kind", kind).field("accounts", &accounts).finish_non_exhaustive()
            }
        }
    }
}

/// A client of a pool, with or without a permit. The pool forgets an account when its last client has
/// left.
#[derive(Debug)]
pub(super) struct AccountEntry {
    pub(super) permits: Arc<Permits>,
    /// `None` if clients are not told apart.
    account: Option<Account>,
    pool: Arc<Pool>,
}

impl Drop for AccountEntry {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            self.pool.leave(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> AccountKind {
        AccountKind::Address(Ipv6Prefix::default())
    }

    fn client(address: &str) -> Client {
        Client { address: Some(address.parse().unwrap()), key: None }
    }

    fn keyed(key: &str) -> Client {
        Client { key: Some(key.into()), ..client("192.0.2.1") }
    }

    #[test]
    fn an_account_is_forgotten_with_its_last_place() {
        let addresses = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(client);
        let keys = ["ada", "ada", "bob", ""].map(keyed);
        for (kind, clients) in [
            (self::addresses(), [addresses.to_vec(), vec![Client::default()]].concat()),
            (AccountKind::Key, keys.to_vec()),
        ] {
            let pool = Arc::new(Pool::for_each(2, kind));
            let Clients::Each(_, guests) = &pool.clients else { panic!("{pool:?}") };
            let places: Vec<AccountEntry> =
                clients.iter().map(|client| pool.enter(client).unwrap()).collect();
            assert_eq!(guests.lock().len(), 3);
            for (place, count) in places.into_iter().skip(1).rev().zip([2, 1, 1]) {
                drop(place);
                assert_eq!(guests.lock().len(), count);
            }
            assert!(guests.lock().is_empty());
        }
    }

    #[test]
    fn a_client_without_a_key_has_no_place_where_keys_are_counted() {
        let pool = Arc::new(Pool::for_each(2, AccountKind::Key));
        assert!(pool.enter(&client("192.0.2.1")).is_none());
        assert_eq!(pool.available_to(&client("192.0.2.1")), 2);
        let place = pool.enter(&keyed("ada")).unwrap();
        let _permit = place.permits.try_acquire().unwrap();
        assert_eq!(pool.available_to(&client("192.0.2.1")), 1);
        assert_eq!(["ada", "bob"].map(|key| pool.available_to(&keyed(key))), [1, 2]);
    }

    #[test]
    fn counts_are_of_all_addresses_but_room_is_that_of_the_busiest() {
        let pool = Arc::new(Pool::for_each(2, addresses()));
        assert_eq!((pool.available(), pool.in_use(), pool.waiting()), (2, 0, 0));
        let places = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
            .map(|address| pool.enter(&client(address)).unwrap());
        let permits = places.each_ref().map(|place| place.permits.try_acquire().unwrap());
        let queued = places.each_ref().map(|place| place.permits.queue(2).unwrap());
        assert_eq!((pool.available(), pool.in_use(), pool.waiting()), (0, 3, 3));
        assert_eq!(pool.available_to(&client("192.0.2.1")), 0);
        assert_eq!(pool.available_to(&client("::ffff:192.0.2.2")), 1);
        assert_eq!(pool.available_to(&client("192.0.2.3")), 2);
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
                drop(self.0.enter(&keyed("ada")));
                Ok(())
            }
        }

        for pool in
            [Pool::for_each(2, addresses()), Pool::for_each(2, AccountKind::Key), Pool::for_all(2)]
                .map(Arc::new)
        {
            let place = pool.enter(&keyed("bob")).unwrap();
            let _permit = place.permits.try_acquire().unwrap();
            let mut looking = Looking(&pool, 0);
            fmt::write(&mut looking, format_args!("{pool:?}")).unwrap();
            assert!(looking.1 > 0);
        }
    }
}
