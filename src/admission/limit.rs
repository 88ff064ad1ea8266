//! The public type for a limit on open connections.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::pool::{AccountKind, Client, Pool};
use crate::addresses::Ipv6Prefix;

/// A limit on the number of open WebSocket connections. Clones share their permits.
///
/// A request that is a valid opening handshake takes a permit before it is answered with 101. The
/// permit is free again when the handler has returned *and* the connection has ended, for any reason.
/// If no connection comes about, the permit is free at once. While no permit is free, a request is
/// answered with 503 and `Retry-After`, or it [waits](Self::wait).
///
/// Many routes ([`UpgradeOptions::limit`]) and servers ([`Server::connection_limit`]) may share one
/// limit. A route may have several limits; a connection then needs a permit of each. Permits are taken
/// in a fixed order, which does not depend on the order of calls: first of limits for each address, then of
/// limits for each key, then of the others, and of older limits before newer ones. A request that waits may hold permits of limits that
/// come earlier in this order. So two routes never wait for each other, and one address or key cannot fill
/// the queue of a limit for all.
///
/// ```no_run
/// use std::time::Duration;
/// use tidewire::limits::ConnectionLimit;
/// use tidewire::upgrade::UpgradeOptions;
/// use tidewire::{RequestContext, Server};
///
/// let each = ConnectionLimit::per_address(8);
/// let all = ConnectionLimit::new(1000).wait(Duration::from_secs(20), 100);
/// let mut server = Server::new();
/// server.connection_limit(&each);
/// server.get("/ws", move |mut ctx: RequestContext| {
///     let options = UpgradeOptions::default().limit(&all);
///     async move {
///         let mut ws = ctx.upgrade_to_websocket(options).await?;
///         while let Some(message) = ws.recv().await? {
///             ws.send(message).await?;
///         }
///         Ok(())
///     }
/// });
/// ```
///
/// [`UpgradeOptions::limit`]: crate::upgrade::UpgradeOptions::limit
/// [`Server::connection_limit`]: crate::Server::connection_limit
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    pub(super) pool: Arc<Pool>,
    pub(super) retry_after: Duration,
    /// `None` if a request that finds no permit is refused at once.
    pub(super) queue: Option<Queue>,
}

/// The limits on waiting requests: their time and their number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub(super) timeout: Duration,
    pub(super) max_waiting: usize,
}

impl ConnectionLimit {
    /// Creates a limit of `number` connections. A limit of 0 is an error where it is used.
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self::of(Pool::for_all(number))
    }

    /// Creates a limit of `number` connections for each client address. A limit of 0 is an error where it
    /// is used.
    ///
    /// The address is [`RequestContext::client_ip`](crate::RequestContext::client_ip). An IPv6 network
    /// of [64 bits](Self::ipv6_prefix) counts as one address, since one customer gets that much. An IPv4
    /// address written as IPv6 counts as the IPv4 address. All clients with an unknown address share one.
    /// A client for which trusted proxies name contradictory addresses is refused with 400. An address
    /// takes memory only while it has connections or waiting requests.
    #[must_use]
    pub fn per_address(number: usize) -> Self {
        Self::of(Pool::for_each(number, AccountKind::Address(Ipv6Prefix::default())))
    }

    /// Creates a limit of `number` connections for each key, such as an account, from whatever addresses. A limit of 0
    /// is an error where it is used.
    ///
    /// The handler says the key, once it knows who the client is, with
    /// [`UpgradeOptions::limit_key`](crate::upgrade::UpgradeOptions::limit_key). An upgrade without a key is an error
    /// ([`HandshakeError::LimitKeyMissing`](crate::HandshakeError::LimitKeyMissing)), so clients without an account need
    /// routes without such a limit. A key takes memory only while it has connections or waiting requests.
    ///
    /// ```
    /// use tidewire::limits::ConnectionLimit;
    /// use tidewire::upgrade::UpgradeOptions;
    /// use tidewire::{Reject, RequestContext, Server};
    ///
    /// let three_each = ConnectionLimit::per_key(3);
    /// let mut server = Server::new();
    /// server.get("/ws", move |mut ctx: RequestContext| {
    ///     let limit = three_each.clone();
    ///     async move {
    ///         let user = ctx.cookie("session").and_then(user_of).ok_or(Reject::status(401, "log in first"))?;
    ///         let options = UpgradeOptions::default().limit(&limit).limit_key(user);
    ///         let mut ws = ctx.upgrade_to_websocket(options).await?;
    ///         while let Some(message) = ws.recv().await? {
    ///             ws.send(message).await?;
    ///         }
    ///         Ok(())
    ///     }
    /// });
    ///
    /// /// The number of the user that a session belongs to.
    /// fn user_of(session: &str) -> Option<u64> {
    ///     # Some(session.len() as u64)
    /// }
    /// ```
    #[must_use]
    pub fn per_key(number: usize) -> Self {
        Self::of(Pool::for_each(number, AccountKind::Key))
    }

    /// Sets the number of leading bits by which a limit [for each address](Self::per_address) tells IPv6
    /// clients apart. Default: 64; more than 128 counts as 128, the whole address.
    ///
    /// 64 bits are the smallest network that a customer gets. Many customers get 56 or 48 bits, and count
    /// as many clients by default.
    ///
    /// The result is a new limit, which shares no permits with clones that were made before.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        if self.pool.is_for_each_address() {
            let kind = AccountKind::Address(Ipv6Prefix::new(bits));
            let pool = Pool::for_each(self.pool.number, kind);
            self.pool = Arc::new(pool);
        }
        self
    }

    fn of(pool: Pool) -> Self {
        Self { pool: Arc::new(pool), retry_after: Duration::from_secs(5), queue: None }
    }

    /// Sets the time after which a refused client may try again: `Retry-After`, in whole seconds rounded
    /// up (RFC 9110 §10.2.3). Default 5 s.
    ///
    /// Clones may differ in this setting and in [`wait`](Self::wait).
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = delay;
        self
    }

    /// Lets requests wait for a permit: up to `timeout`, and at most `max_waiting` of them at once.
    /// Default: no request waits.
    ///
    /// A request that exceeds either limit is refused. With a limit for each
    /// [address](Self::per_address) or [key](Self::per_key), each of these has a queue of its own. Permits go to waiting requests in
    /// the order of arrival. A waiting client gets no answer meanwhile. A client that hangs up leaves the
    /// queue at once. A client that has sent bytes before its 101, which RFC 6455 §4.1 forbids, is refused
    /// with 400 instead of waiting.
    #[must_use]
    pub fn wait(mut self, timeout: Duration, max_waiting: usize) -> Self {
        self.queue = Some(Queue { timeout, max_waiting });
        self
    }

    /// The number of free permits. With a limit for each [address](Self::per_address) or [key](Self::per_key), the number
    /// that is left for the one with the most connections.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pool.available()
    }

    /// The number of connections that this address may open now. With a limit [for each key](Self::per_key), which counts
    /// no addresses, [`available`](Self::available).
    #[must_use]
    pub fn available_to(&self, address: IpAddr) -> usize {
        self.pool.available_to(&Client { address: Some(address), key: None })
    }

    /// The number of connections that this key may open now. With a limit that counts no keys, [`available`](Self::available).
    #[must_use]
    pub fn available_to_key(&self, key: impl fmt::Display) -> usize {
        if self.pool.is_for_each_key() {
            self.pool.available_to(&Client { address: None, key: Some(key.to_string().into()) })
        } else {
            self.available()
        }
    }

    /// The number of permits in use, by all addresses and keys together.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.pool.in_use()
    }

    /// The number of waiting requests, of all addresses and keys together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Whether this limit can never admit a connection.
    pub(crate) fn is_zero(&self) -> bool {
        self.pool.number == 0
    }
}
