//! How many sockets a server may have open: in all, and of each address.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addresses::{Addresses, Visitor};
use crate::foreign::tell;
use crate::http::{ServerOptions, TrustedProxies};
use crate::instance::Instance;
use crate::permits::{Permit, Permits};
use crate::runtime::Clock;

/// The room of a server for connections, all of which go through it.
#[derive(Debug)]
pub(super) struct Capacity {
    /// `None` if sockets are not counted.
    places: Option<Permits>,
    /// `None` if those of an address are not.
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

    /// Are sockets counted, so that one may have to wait for a [place](Self::place)?
    pub(super) fn is_limited(&self) -> bool {
        self.places.is_some()
    }

    /// Waits for a place, for which the longest idle connection makes room; `None` if sockets are not
    /// counted.
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

    /// The system lacks something that an idle connection may hold.
    pub(super) fn make_room(&self) {
        self.instance.idle.close_longest();
    }

    /// Counts a connection for its address, unless that is a proxy's, which brings many clients, or not
    /// known.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the address has as many as it may.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Option<Visitor>, Refused> {
        let Some(addresses) = &self.addresses else { return Ok(None) };
        if self.proxies.trusts(peer.ip().to_canonical()) {
            return Ok(None);
        }
        let visitor = addresses.admit(peer.ip());
        if visitor.is_none() {
            self.instance.counters.count_turned_away();
            tell(|| log::debug!(peer:%; "{peer} has as many connections as an address may have"));
            return Err(Refused);
        }
        Ok(visitor)
    }
}

/// A connection is not served.
#[derive(Debug)]
pub(super) struct Refused;
