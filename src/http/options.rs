//! The options of the HTTP side of a server: its limits of time and size.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderName;

use super::hosts::AllowedHosts;
use super::proxies::TrustedProxies;
use crate::addresses::Ipv6Prefix;
use crate::runtime;
#[cfg(feature = "testing")]
use crate::runtime::ManualClock;
#[cfg(feature = "tokio")]
use crate::runtime::TokioHandle;
use crate::runtime::{Clock, Tokio};

/// The environment variable for the default number of workers.
const WORKERS: &str = "TIDEWIRE_WORKERS";

/// Options for the HTTP side of a server.
///
/// The defaults are safe on the open internet. These options hold until a connection is upgraded; then
/// `WebSocketOptions` hold instead.
///
/// ```
/// use std::time::Duration;
/// use tidewire::server::ServerOptions;
///
/// let options = ServerOptions::default()
///     .head_timeout(Duration::from_secs(5))
///     .max_body_size(64 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) body_deadline: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_uri_len: usize,
    pub(crate) max_body_size: usize,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_connections_per_address: Option<usize>,
    pub(crate) ipv6_prefix: Ipv6Prefix,
    pub(crate) message_memory: Option<usize>,
    pub(crate) trusted_proxies: Arc<TrustedProxies>,
    pub(crate) client_ip_header: Option<HeaderName>,
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
    pub(crate) clock: Clock,
    /// `None` for the default.
    workers: Option<usize>,
    tokio: Tokio,
    /// The error in the list of trusted proxies, if there is one.
    invalid_proxy: Option<String>,
    /// The invalid name given for a header, if there is one.
    invalid_header: Option<String>,
    /// The error in the list of hosts, if there is one.
    invalid_hosts: Option<String>,
}

impl ServerOptions {
    /// The largest value of [`max_head_size`](Self::max_head_size): 1 MiB.
    pub const HIGHEST_HEAD_SIZE: usize = 1024 * 1024;

    /// The largest number of [`workers`](Self::workers): 1024.
    pub const MOST_WORKERS: usize = 1024;

    /// The largest value of [`max_headers`](Self::max_headers): 10 000.
    pub const HIGHEST_HEADERS: usize = 10_000;

    /// Clock for the deadlines of the server: of HTTP, of TLS handshakes and of the shutdown. Default: the
    /// system's clock.
    ///
    /// Tests set a clock that they turn by hand: see [`ManualClock`]. WebSocket connections follow it as well, unless
    /// their own options have a [clock](crate::WebSocketOptions::clock).
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::manual(clock);
        self
    }

    /// Threads that serve the connections, at most 1024. Default: the number in the environment variable
    /// `TIDEWIRE_WORKERS`; without it, the number of cores that the process may use.
    ///
    /// Each of these workers has a share of the connections. Their sockets, handlers and timers stay on it. A connection
    /// goes to the worker that has fewest. What handlers spawn with `async_std::task::spawn` or another executor runs
    /// there, as always.
    ///
    /// A handler that blocks its thread does not stop the other connections: after 20 ms another thread goes on as that
    /// worker. From 100 ms on it is logged at level warn, with the route. At most 64 threads may be blocked at once.
    ///
    /// With 0, an executor runs the connections: that of [`set_spawner`](crate::executor::set_spawner); without one, the
    /// server's tokio runtime (feature `tokio`); without that, async-std's. If a spawner was set, 0 is the default,
    /// whatever the variable says.
    ///
    /// The threads start when the server is bound. They end when the server has ended and none of its connections is
    /// left.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// The tokio runtime in whose context handlers run, so that `tokio::spawn`, `tokio::time`, tokio's sockets, and
    /// libraries on tokio such as reqwest and sqlx work inside them. Default: the runtime in which
    /// [`Server::bind`](crate::Server::bind), `bind_to`, `listen` or `start` runs, if it runs in one.
    ///
    /// The threads of the server are the [workers](Self::workers), as always: only what handlers spawn, and their timers
    /// and sockets of tokio, are served by the runtime. With `workers(0)` the connections run on it, unless there is a
    /// [spawner](crate::executor::set_spawner). What belongs to no connection stays on async-std's executor: the accepting
    /// of connections by [`Server::start`](crate::Server::start), the tasks of a backplane, and, with `workers(0)`, the
    /// writing of broadcasts.
    ///
    /// A `current_thread` runtime needs a thread inside its `block_on`, such as that of `#[tokio::main]`. Without one its
    /// timers, sockets and tasks stand still, and so do handlers that wait for them.
    ///
    /// # A runtime that ends first
    ///
    /// tokio then ends the waits on it: tasks are cancelled, sockets fail, and timers panic. A handler that panics so, or
    /// returns such an error, answers with 500; after the upgrade, its connection is closed with 1011. Other handlers and
    /// the server go on, and can be shut down. With `workers(0)` the connections are closed without a close frame, and
    /// later ones as soon as they are accepted.
    ///
    /// ```
    /// use tidewire::server::ServerOptions;
    /// use tidewire::{RequestContext, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// // A program that runs something else in `main`.
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let mut server = Server::new();
    /// server.options(ServerOptions::default().tokio(runtime.handle().clone()));
    /// server.get("/ping", |_ctx: RequestContext| async {
    ///     let pong = tokio::spawn(async { "pong" });
    ///     Ok(pong.await?)
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn tokio(mut self, runtime: TokioHandle) -> Self {
        self.tokio = Tokio::new(runtime);
        self
    }

    /// Longest time from the first byte of a request's head to its last. Default: 10 s; `None` for no
    /// limit.
    ///
    /// On a new connection the time starts when it is accepted. If a head begins while the request before it
    /// is being answered, its time starts at the end of that response. A late head is answered with 408. A
    /// new connection that sends nothing in time is closed.
    #[must_use]
    pub fn head_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.head_timeout = timeout.into();
        self
    }

    /// Longest time between a response and the next request on the same connection. Then the connection is
    /// closed. Default: 75 s; `None` for no limit.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// Longest time without a byte of a request's body while the handler reads it. Default: 30 s; `None` for
    /// no limit.
    ///
    /// Then reading fails with [`io::ErrorKind::TimedOut`].
    #[must_use]
    pub fn body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.body_timeout = timeout.into();
        self
    }

    /// Longest time for a whole request body that is collected for a handler, by
    /// [`body_bytes`](crate::RequestContext::body_bytes) and its siblings. Default: 60 s; `None` for no
    /// limit.
    ///
    /// A late body is answered with 408 (RFC 9110 §15.5.9), even if bytes of it still arrive. A handler that
    /// reads the body as a stream sets a limit of its own.
    #[must_use]
    pub fn body_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.body_deadline = deadline.into();
        self
    }

    /// Longest time in which a client takes no byte of a response. Then the connection is closed.
    /// Default: 30 s; `None` for no limit.
    #[must_use]
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// Largest head of a request, request line included, in bytes. Default: 16 KiB.
    ///
    /// A larger one is answered with 431 (RFC 6585 §5).
    #[must_use]
    pub fn max_head_size(mut self, max: usize) -> Self {
        self.max_head_size = max;
        self
    }

    /// Largest number of header lines in a request. Default: 100.
    ///
    /// A request with more is answered with 431 (RFC 6585 §5).
    #[must_use]
    pub fn max_headers(mut self, max: usize) -> Self {
        self.max_headers = max;
        self
    }

    /// Longest request target, in bytes. Default: 8 KiB.
    ///
    /// A longer one is answered with 414 (RFC 9110 §15.5.15), or with 431 if the head is too large for it.
    #[must_use]
    pub fn max_uri_len(mut self, max: usize) -> Self {
        self.max_uri_len = max;
        self
    }

    /// Largest request body, in bytes. Default: 1 MiB.
    ///
    /// The limit holds for every way to read a body: [`body_bytes`](crate::RequestContext::body_bytes) and its
    /// siblings, the methods of tide's request, endpoints of tide, and streams. If a body exceeds it, reading
    /// fails with [`io::ErrorKind::FileTooLarge`], at once if the length was announced. A handler that returns
    /// this error answers with 413 (RFC 9110 §15.5.14).
    ///
    /// For uploads, [`Route::max_body_size`](crate::server::Route::max_body_size) and
    /// [`RequestContext::set_max_body_size`](crate::RequestContext::set_max_body_size) replace the limit for a
    /// route or a request. A body that no handler reads has no limit, but ends with its connection.
    #[must_use]
    pub fn max_body_size(mut self, max: usize) -> Self {
        self.max_body_size = max;
        self
    }

    /// Largest number of TCP connections at once. Default: no limit other than the system's.
    ///
    /// A connection counts until its socket is closed, whether it is idle, speaks HTTP or was upgraded. If a
    /// new connection would exceed the limit, the connection that has been idle longest is closed, as if its
    /// [`idle_timeout`](Self::idle_timeout) were over. A connection is idle while it waits for its first or
    /// next request, or is in the TLS handshake. If no connection is idle, the new one waits in the kernel's
    /// queue until one becomes idle or ends. So set this limit to the capacity of the machine. Use a
    /// [`ConnectionLimit`](crate::limits::ConnectionLimit) to answer clients that are too many.
    ///
    /// Idle connections are also closed if the system has no descriptor for a new one.
    #[must_use]
    pub fn max_connections(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections = max.into();
        self
    }

    /// Largest number of TCP connections of one address at once. Default: no limit.
    ///
    /// A connection that exceeds the limit is reset as soon as it is accepted, and counted as
    /// [`Metrics::turned_away`](crate::server::Metrics::turned_away). A connection counts until its socket is closed,
    /// whether it is idle, speaks HTTP or was upgraded. An IPv6 network of [64 bits](Self::ipv6_prefix) is
    /// one address.
    ///
    /// Connections of [`trusted_proxies`](Self::trusted_proxies) are not counted, since they bring many
    /// clients. Connections through a Unix socket are not counted either. The default is no limit for this
    /// reason: a proxy that is not listed there has one address, too, and so have the clients of a company or
    /// a mobile network that share an IPv4 address. If clients connect directly, 100 is a generous limit. For
    /// clients behind a proxy, use [`ConnectionLimit::per_address`](crate::limits::ConnectionLimit::per_address).
    #[must_use]
    pub fn max_connections_per_address(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections_per_address = max.into();
        self
    }

    /// Number of leading bits by which [`max_connections_per_address`](Self::max_connections_per_address) tells
    /// IPv6 clients apart. Default: 64; more than 128 counts as 128, the whole address.
    ///
    /// 64 bits are the smallest network that a customer gets. Many customers get 56 or 48 bits, and count as
    /// many clients by default.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = Ipv6Prefix::new(bits);
        self
    }

    /// Bytes that all WebSocket connections of the server together may hold for received messages in progress.
    /// Default: 256 MiB, which is 256 messages of the largest default size at the same time. `None` for no
    /// limit: 10 000 clients, each with an unfinished message of 1 MiB, then take 10 GB.
    ///
    /// Three kinds of messages count: unfinished messages, messages that were read ahead, and messages that are
    /// being decompressed. The first 16 KiB of each connection do not count and can always be read; the first
    /// 16 KiB of a message that is being decompressed do not count either. So short messages are not affected.
    /// Sent messages do not count: a connection bounds them by
    /// [`send_buffer_size`](crate::WebSocketOptions::send_buffer_size) plus one message, and a room by
    /// [`RoomOptions`](crate::rooms::RoomOptions).
    ///
    /// When the limit is reached, connections that hold more than 16 KiB are not read until others give bytes
    /// back. They go on in order of arrival. One of them at a time may exceed the limit up to the end of its
    /// message, so that there is always progress. Time in which the server does not read does not count for
    /// the heartbeat, `idle_timeout` or `message_timeout`. When a handler has waited for its message for 5 s,
    /// the connection that holds the most bytes is closed, one for each handler that waits so long. The peer of
    /// the closed connection gets 1013, and its handler [`Error::Overloaded`](crate::Error::Overloaded).
    /// [`Metrics`](crate::server::Metrics) counts the bytes, the pauses and the closes.
    ///
    /// # Errors
    ///
    /// A server with a limit of 0 does not start.
    ///
    /// ```
    /// use tidewire::Server;
    /// use tidewire::server::ServerOptions;
    ///
    /// let mut server = Server::new();
    /// server.options(ServerOptions::default().message_memory(64 << 20));
    /// ```
    #[must_use]
    pub fn message_memory(mut self, max: impl Into<Option<usize>>) -> Self {
        self.message_memory = max.into();
        self
    }

    /// Proxies that are trusted to name the address of a client. Default: none.
    ///
    /// An entry is an address (`192.0.2.1`, `::1`), a network (`10.0.0.0/8`), or `unix:` for all peers on a
    /// Unix socket.
    ///
    /// If the peer is a trusted proxy, [`client_ip`](crate::RequestContext::client_ip) reads the
    /// [header](Self::client_ip_header) of the proxies from its end. It skips the hops that are trusted
    /// themselves; the first hop that is not is the client. If a hop is not an address, the client is
    /// unknown. Each proxy in the list must append to the header, or replace it.
    ///
    /// Trusted proxies also say whether a client uses TLS, in `X-Forwarded-Proto` or in the `proto` of
    /// `Forwarded`. If it does, a page of the same host may connect only if it was loaded over TLS.
    ///
    /// ```
    /// use tidewire::server::ServerOptions;
    ///
    /// let options = ServerOptions::default()
    ///     .trusted_proxies(["10.0.0.0/8"])
    ///     .client_ip_header("X-Forwarded-For");
    /// ```
    #[must_use]
    pub fn trusted_proxies<T: ToString>(mut self, proxies: impl IntoIterator<Item = T>) -> Self {
        let mut trusted = TrustedProxies::default();
        let trust = |proxy: T| trusted.trust(&proxy.to_string()).err();
        self.invalid_proxy = proxies.into_iter().find_map(trust);
        self.trusted_proxies = Arc::new(trusted);
        self
    }

    /// The header in which [trusted proxies](Self::trusted_proxies) name the address of a client. Default:
    /// not set.
    ///
    /// It is `Forwarded` (RFC 7239), or a header with an address or a list of addresses, such as
    /// `X-Forwarded-For` or `X-Real-IP`.
    ///
    /// Set it whenever you trust proxies: a proxy passes on headers that it does not know, and the client may
    /// have written them. If it is not set, both `Forwarded` and `X-Forwarded-For` are read. If these
    /// contradict each other, [`client_ip`](crate::RequestContext::client_ip) is `None`, and a
    /// [`ConnectionLimit`](crate::limits::ConnectionLimit) for each address refuses the request with 400.
    #[must_use]
    pub fn client_ip_header(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        self.client_ip_header = HeaderName::try_from(name).ok();
        self.invalid_header = self.client_ip_header.is_none().then(|| name.to_owned());
        self
    }

    /// The hosts that requests may name in `Host` or in their target. Default: all.
    ///
    /// An entry is a name (`example.com`), all names below a name (`*.example.com`), or an address
    /// (`192.0.2.1`, `[::1]`). Each matches with any port.
    ///
    /// Other requests are answered with 421 (RFC 9110 §15.5.20). This prevents DNS rebinding: the owner of
    /// another name lets the DNS return the address of this server for a while. Pages of that name then seem
    /// to be of the same host as the server, and a check of `Origin` cannot notice it. Set this for a server
    /// on a developer's machine or inside a network, if its clients need no password.
    #[must_use]
    pub fn allow_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        let listed = AllowedHosts::listed(hosts.into_iter().map(Into::into));
        self.invalid_hosts = listed.as_ref().err().cloned();
        self.allowed_hosts = Arc::new(listed.unwrap_or_default());
        self
    }

    /// The number of workers: 0 for none.
    pub(crate) fn worker_count(&self) -> io::Result<usize> {
        let count = match self.workers {
            Some(count) => count,
            None if runtime::has_spawner() => 0,
            None => match env::var_os(WORKERS) {
                Some(count) => number_of_workers(&count)?,
                None => runtime::default_workers(),
            },
        };
        if count > Self::MOST_WORKERS {
            let most = Self::MOST_WORKERS;
            return Err(invalid(format!("{count} workers were asked for, and {most} is the most")));
        }
        Ok(count)
    }

    /// The tokio runtime of the server: the one that was given, or else that of the caller.
    pub(crate) fn tokio_or_current(&self) -> Tokio {
        self.tokio.clone().or_current()
    }

    /// Refuses values with which no server could work.
    pub(crate) fn check(&self) -> io::Result<()> {
        let ranges = [
            ("max_head_size", self.max_head_size, Self::HIGHEST_HEAD_SIZE),
            ("max_headers", self.max_headers, Self::HIGHEST_HEADERS),
            ("max_uri_len", self.max_uri_len, Self::HIGHEST_HEAD_SIZE),
        ];
        for (name, value, highest) in ranges {
            if !(1..=highest).contains(&value) {
                return Err(invalid(format!("{name} is {value}, and must be 1 to {highest}")));
            }
        }
        let limits = [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, max)| *max == Some(0)) {
            return Err(invalid(format!("{name} is 0, so no client could be served")));
        }
        if let Some(name) = &self.invalid_header {
            return Err(invalid(format!("client_ip_header: `{name}` is not the name of a header")));
        }
        if let Some(reason) = &self.invalid_hosts {
            return Err(invalid(format!("allow_hosts: {reason}")));
        }
        if self.message_memory == Some(0) {
            return Err(invalid("message_memory is 0, which leaves no room for a long message"));
        }
        match &self.invalid_proxy {
            Some(reason) => Err(invalid(format!("trusted_proxies: {reason}"))),
            None => Ok(()),
        }
    }
}

/// Reads the environment variable for the number of workers.
fn number_of_workers(count: &OsStr) -> io::Result<usize> {
    let number = count.to_str().and_then(|count| count.trim().parse().ok());
    number.ok_or_else(|| invalid(format!("{WORKERS} is {count:?}, and must be a number")))
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            head_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(75)),
            body_timeout: Some(Duration::from_secs(30)),
            body_deadline: Some(Duration::from_secs(60)),
            write_timeout: Some(Duration::from_secs(30)),
            max_head_size: 16 * 1024,
            max_headers: 100,
            max_uri_len: 8 * 1024,
            max_body_size: 1024 * 1024,
            max_connections: None,
            max_connections_per_address: None,
            ipv6_prefix: Ipv6Prefix::default(),
            message_memory: Some(256 << 20),
            trusted_proxies: Arc::default(),
            client_ip_header: None,
            allowed_hosts: Arc::default(),
            clock: Clock::default(),
            workers: None,
            tokio: Tokio::default(),
            invalid_proxy: None,
            invalid_header: None,
            invalid_hosts: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_documentation_and_valid() {
        let options = ServerOptions::default();
        assert_eq!(options.head_timeout, Some(Duration::from_secs(10)));
        assert_eq!(options.idle_timeout, Some(Duration::from_secs(75)));
        assert_eq!(options.body_deadline, Some(Duration::from_secs(60)));
        assert_eq!(options.message_memory, Some(268_435_456));
        assert!(options.max_connections.is_none() && options.trusted_proxies.is_empty());
        assert!(options.max_connections_per_address.is_none());
        assert_eq!(options.ipv6_prefix, Ipv6Prefix::new(64));
        assert_eq!((options.max_head_size, options.max_headers), (16_384, 100));
        assert_eq!((options.max_uri_len, options.max_body_size), (8_192, 1_048_576));
        assert!(options.check().is_ok());
    }

    #[test]
    fn a_limit_no_request_could_keep_is_refused_by_name() {
        let cases = [
            (ServerOptions::default().max_head_size(0), "max_head_size is 0"),
            (ServerOptions::default().max_headers(usize::MAX), "max_headers is"),
            (ServerOptions::default().max_uri_len(0), "max_uri_len is 0"),
            (ServerOptions::default().max_connections(0), "max_connections is 0"),
            (ServerOptions::default().message_memory(0), "message_memory is 0"),
            (
                ServerOptions::default().max_connections_per_address(0),
                "max_connections_per_address is 0",
            ),
            (
                ServerOptions::default().trusted_proxies(["10.0.0.1", "10.0.0.0/33"]),
                "trusted_proxies: `10.0.0.0/33` is neither",
            ),
            (
                ServerOptions::default().client_ip_header("X Real"),
                "client_ip_header: `X Real` is not the name of a header",
            ),
            (
                ServerOptions::default().allow_hosts(["localhost", "x:80"]),
                "allow_hosts: `x:80` is not a host",
            ),
            (ServerOptions::default().allow_hosts([""; 0]), "allow_hosts: no host is listed"),
        ];
        for (options, message) in cases {
            let error = options.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
