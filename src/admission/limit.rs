//! A limit on open connections, as the author of a server sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::pool::Pool;
use crate::addresses::Ipv6Prefix;

/// How many WebSocket connections may be open at once; clones share the permits.
///
/// A request that is a valid opening handshake takes a permit before it is answered with 101. The
/// permit is free again when the handler has returned *and* the connection is over, whatever ended
/// them; at once if there is no connection in the end. Where no permit is free, the request is
/// answered with 503 and `Retry-After`, or it [waits](Self::wait).
///
/// One limit may be given to many routes ([`WebSocketOptions::limit`]) and servers
/// ([`Server::connection_limit`]), and one route may have several, of which all must admit. Limits
/// for each address then come first, and after them the older come first, in whatever order they
/// were given: who waits for a permit may hold those of earlier limits, so that two routes can
/// never wait for each other, and no address fills the queue of another limit.
///
/// ```no_run
/// use std::time::Duration;
/// use tidewire::{ConnectionLimit, RequestContext, Server, WebSocketOptions};
///
/// let each = ConnectionLimit::per_address(8);
/// let all = ConnectionLimit::new(1000).wait(Duration::from_secs(20), 100);
/// let mut server = Server::new();
/// server.connection_limit(&each);
/// server.get("/ws", move |mut ctx: RequestContext| {
///     let options = WebSocketOptions::default().limit(&all);
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
/// [`WebSocketOptions::limit`]: crate::WebSocketOptions::limit
/// [`Server::connection_limit`]: crate::Server::connection_limit
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    pub(super) pool: Arc<Pool>,
    pub(super) retry_after: Duration,
    /// `None`: who finds no permit is refused.
    pub(super) queue: Option<Queue>,
}

/// How long, and with how many others, a request may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub(super) timeout: Duration,
    pub(super) max_waiting: usize,
}

impl ConnectionLimit {
    /// At most `number` connections. 0 admits nobody, which is an error where the limit is used.
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self::of(Pool::for_all(number))
    }

    /// At most `number` connections of each client address. 0 admits nobody, which is an error
    /// where the limit is used.
    ///
    /// The address is [`RequestContext::client_ip`](crate::RequestContext::client_ip). An IPv6
    /// network of [64 bits](Self::ipv6_prefix) counts as one address, for that is what one customer gets;
    /// an IPv4 address is the same when it is written as IPv6. All clients whose address is unknown share
    /// one; those of whom trusted proxies tell contradictory addresses are refused with 400. Addresses
    /// take memory only while they have connections or wait.
    #[must_use]
    pub fn per_address(number: usize) -> Self {
        Self::of(Pool::for_each_address(number, Ipv6Prefix::default()))
    }

    /// How many bits of an IPv6 address tell clients apart, of a limit [for each
    /// address](Self::per_address). Default: 64, the smallest network that a customer gets; many get 56 or 48,
    /// and are as many clients then. 128 is the whole address, and so is more.
    ///
    /// The result is a limit of its own: it shares no permits with clones that were made before.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        if self.pool.is_for_each_address() {
            let pool = Pool::for_each_address(self.pool.number, Ipv6Prefix::new(bits));
            self.pool = Arc::new(pool);
        }
        self
    }

    fn of(pool: Pool) -> Self {
        Self { pool: Arc::new(pool), retry_after: Duration::from_secs(5), queue: None }
    }

    /// When a client that is refused may try again: `Retry-After`, in whole seconds rounded up
    /// (RFC 9110 §10.2.3). Default 5 s.
    ///
    /// Clones may differ in it, and in whether they [`wait`](Self::wait).
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = delay;
        self
    }

    /// Lets a request wait for a permit, up to `timeout` and with at most `max_waiting` in the
    /// queue; one beyond either is refused. Of a limit [for each address](Self::per_address), each
    /// has such a queue. Default: no request waits.
    ///
    /// The client has no answer meanwhile. Permits go to those who wait, in the order in which they
    /// came. A client that hangs up leaves the queue at once. One that sends something before its 101,
    /// which RFC 6455 §4.1 forbids, is refused with 400 if it would have to wait.
    #[must_use]
    pub fn wait(mut self, timeout: Duration, max_waiting: usize) -> Self {
        self.queue = Some(Queue { timeout, max_waiting });
        self
    }

    /// How many permits are free; of a limit [for each address](Self::per_address), how many the
    /// address with the most connections could still take.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pool.available()
    }

    /// How many connections one more of this address would find room for.
    #[must_use]
    pub fn available_to(&self, address: IpAddr) -> usize {
        self.pool.available_to(address)
    }

    /// How many permits are taken, by all addresses together.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.pool.in_use()
    }

    /// How many requests wait, of all addresses together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Would this limit admit nobody, ever?
    pub(crate) fn is_zero(&self) -> bool {
        self.pool.number == 0
    }
}
