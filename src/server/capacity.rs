//! The limits on the open sockets of a server: of all, and of each address.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addresses::{Addresses, Visitor};
use crate::http::{ServerOptions, TrustedProxies};
use crate::instance::Instance;
use crate::permits::{Permit, Permits};
use crate::records::record;
use crate::runtime::Clock;

/// The capacity of a server for connections. Every connection is counted here.
#[derive(Debug)]
pub(super) struct Capacity {
    /// `None` if sockets are not counted.
    places: Option<Permits>,
    /// `None` if the sockets of an address are not counted.
    addresses: Option<Arc<Addresses>>,
    proxies: Arc<TrustedProxies>,
    instance: Arc<Instance>,
}

impl Capacity {
    pub(super) fn new(options: &ServerOptions, instance: Arc<Instance>) -> Self {
        let addresses = |max| Arc::new(Addresses::new(max, options.ipv6_prefix));
        Self {
            places: options.max_connections.map(Permits::new),
            addresses: options.max_connections_per_address.map(addresses),
            proxies: Arc::clone(&options.trusted_proxies),
            instance,
        }
    }

    /// Whether sockets are counted, so that one may have to wait for a [place](Self::place).
    pub(super) fn is_limited(&self) -> bool {
        self.places.is_some()
    }

    /// Waits for a place; `None` if sockets are not counted. If all places are taken, the connection that
    /// has been idle longest is ended.
    pub(super) async fn place(&self) -> Option<Permit> {
        let places = self.places.as_ref()?;
        if let Some(place) = places.try_acquire() {
            return Some(place);
        }
        let _wanted = self.instance.idle.make_room();
        Some(places.acquire().await)
    }

    /// The clock of the server.
    pub(super) fn clock(&self) -> &Clock {
        &self.instance.clock
    }

    /// Ends the connection that has been idle longest, since the system lacks resources that it may hold.
    pub(super) fn make_room(&self) {
        self.instance.idle.close_longest();
    }

    /// Counts a connection for its address. The address of a proxy, which brings many clients, is not
    /// counted.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the address has as many connections as it may have.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Option<Visitor>, Refused> {
        let Some(addresses) = &self.addresses else { return Ok(None) };
        if self.proxies.trusts(peer.ip().to_canonical()) {
            return Ok(None);
        }
        let visitor = addresses.admit(peer.ip());
        if visitor.is_none() {
            self.instance.counters.count_turned_away();
            record!(debug, "the address has as many connections as it may have", peer = peer);
            return Err(Refused);
        }
        Ok(visitor)
    }
}

/// The error of a connection that is not served.
#[derive(Debug)]
pub(super) struct Refused;
