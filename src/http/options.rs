//! How long and how large HTTP may be.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderName;

use super::hosts::AllowedHosts;
use super::proxies::TrustedProxies;
use crate::addresses::Ipv6Prefix;
use crate::runtime::Clock;
#[cfg(feature = "testing")]
use crate::runtime::ManualClock;

/// Limits of the HTTP side of a server.
///
/// The defaults are safe on the open internet. They hold until a connection is upgraded; from then
/// on it is `WebSocketOptions` that count.
///
/// ```
/// use std::time::Duration;
/// use tidewire::ServerOptions;
///
/// let options = ServerOptions::default()
///     .head_timeout(Duration::from_secs(5))
///     .max_body_size(64 * 1024);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// What is wrong with the list of trusted proxies.
    invalid_proxy: Option<String>,
    /// What is no name of a header, where one should be.
    invalid_header: Option<String>,
    /// What is wrong with the list of hosts.
    invalid_hosts: Option<String>,
}

impl ServerOptions {
    /// What [`max_head_size`](Self::max_head_size) may be at most: 1 MiB.
    pub const HIGHEST_HEAD_SIZE: usize = 1024 * 1024;

    /// What [`max_headers`](Self::max_headers) may be at most: 10 000.
    pub const HIGHEST_HEADERS: usize = 10_000;

    /// The clock that the deadlines of the server follow: those of HTTP, of TLS handshakes
    /// and of the shutdown. Default: the clock of the system.
    ///
    /// For tests, which turn it by hand: see [`ManualClock`]. Connections follow the clock of their own
    /// options, [`WebSocketOptions::clock`](crate::WebSocketOptions::clock).
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::manual(clock);
        self
    }

    /// Longest time for the head of a request, from its first byte to its last. Default: 10 s.
    ///
    /// On a new connection the time starts when it is accepted. A head that begins while the request
    /// before it is answered has its time from the end of that response. A head that is late is answered
    /// with 408; a connection on which nothing came is closed. `None` waits for ever.
    #[must_use]
    pub fn head_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.head_timeout = timeout.into();
        self
    }

    /// Longest time between a response and the next request on its connection, which is then
    /// closed. Default: 75 s. `None` waits for ever.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// Longest time without a byte of a request's body, while the handler reads it. Default: 30 s.
    ///
    /// Reading then fails with [`io::ErrorKind::TimedOut`]. `None` waits for ever.
    #[must_use]
    pub fn body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.body_timeout = timeout.into();
        self
    }

    /// Longest time for a whole request body that is collected for a handler, by
    /// [`body_bytes`](crate::RequestContext::body_bytes) and its siblings. Default: 60 s.
    ///
    /// A body that is late is answered with 408 (RFC 9110 §15.5.9), however steadily it drips. A
    /// handler that reads the body as a stream sets its own limit. `None` waits for ever.
    #[must_use]
    pub fn body_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.body_deadline = deadline.into();
        self
    }

    /// Longest time for which a client takes no byte of a response; the connection is then closed.
    /// Default: 30 s. `None` waits for ever.
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

    /// Most header lines of a request. Default: 100.
    ///
    /// More are answered with 431 (RFC 6585 §5).
    #[must_use]
    pub fn max_headers(mut self, max: usize) -> Self {
        self.max_headers = max;
        self
    }

    /// Longest request target, in bytes. Default: 8 KiB.
    ///
    /// A longer one is answered with 414 (RFC 9110 §15.5.15) as long as the head has room for it;
    /// beyond that, with 431.
    #[must_use]
    pub fn max_uri_len(mut self, max: usize) -> Self {
        self.max_uri_len = max;
        self
    }

    /// Largest request body, in bytes. Default: 1 MiB.
    ///
    /// It holds for every way to a body: [`body_bytes`](crate::RequestContext::body_bytes) and its
    /// siblings, those of tide's request, endpoints of tide, and streams. Beyond it, reading fails with
    /// [`io::ErrorKind::FileTooLarge`], at once if the length is announced. The error, passed on, is
    /// a 413 (RFC 9110 §15.5.14).
    ///
    /// For uploads there are [`Route::max_body_size`](crate::Route::max_body_size) and
    /// [`RequestContext::set_max_body_size`](crate::RequestContext::set_max_body_size), which replace it
    /// for a route or a request. A body that no handler reads has no limit but the end of its connection.
    #[must_use]
    pub fn max_body_size(mut self, max: usize) -> Self {
        self.max_body_size = max;
        self
    }

    /// Most TCP connections at once. Default: no limit but that of the system.
    ///
    /// A connection counts until its socket is closed, whether it idles, speaks HTTP or was
    /// upgraded. Where there is one beyond the limit, the connection that has been idle for the longest
    /// time is closed to make room for it, as if its [`idle_timeout`](Self::idle_timeout) were over: one
    /// that waits for its first request, for another one, or in the TLS handshake. If none is idle, the
    /// newcomer is not accepted until one is, or ends: it waits in the queue of the kernel. So the limit is
    /// for what the machine can bear; a [`ConnectionLimit`](crate::ConnectionLimit) gives clients an answer.
    ///
    /// Idle connections also make room where the system has no descriptor for another one.
    #[must_use]
    pub fn max_connections(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections = max.into();
        self
    }

    /// Most TCP connections of one address at once. Default: no limit.
    ///
    /// One beyond the limit is reset as soon as it is accepted, and counted as
    /// [`Metrics::turned_away`](crate::Metrics::turned_away). A connection counts until its socket is
    /// closed, whether it idles, speaks HTTP or was upgraded. An IPv6 network of [64
    /// bits](Self::ipv6_prefix) is one address.
    ///
    /// Connections of [`trusted_proxies`](Self::trusted_proxies) are not counted, for they bring many
    /// clients; nor are those through a Unix socket. That is why no limit is the default: a proxy that is
    /// not named there has one address as well, and so have the clients of a company or a mobile network
    /// that shares one of IPv4. Where clients come by themselves, 100 is many. For clients behind a
    /// proxy there is [`ConnectionLimit::per_address`](crate::ConnectionLimit::per_address).
    #[must_use]
    pub fn max_connections_per_address(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections_per_address = max.into();
        self
    }

    /// How many bits of an IPv6 address tell clients apart, for
    /// [`max_connections_per_address`](Self::max_connections_per_address). Default: 64, the smallest network
    /// that a customer gets; many get 56 or 48, and are as many clients then. 128 is the whole address, and so is more.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = Ipv6Prefix::new(bits);
        self
    }

    /// Bytes that all WebSocket connections of the server together may hold for messages in progress. Default:
    /// 256 MiB, which is 256 messages of the greatest default size at the same time. `None` switches the limit off:
    /// 10 000 clients, each with a message of 1 MiB that it does not finish, then take 10 GB.
    ///
    /// Unfinished messages count, messages that were read ahead, and messages that are being decompressed. 16 KiB
    /// of each connection do not count and can always be read, nor do 16 KiB of a message that is being decompressed,
    /// so short messages are not affected. What is
    /// sent does not count: each connection bounds that by
    /// [`send_buffer_size`](crate::WebSocketOptions::send_buffer_size) and one message, and a room by
    /// [`RoomOptions`](crate::RoomOptions).
    ///
    /// When the limit is reached, connections that hold more than 16 KiB are not read until others give bytes
    /// back. They go on in the order in which they came. One of them at a time may exceed the limit to the end of
    /// its message, so that there is always progress. No heartbeat, `idle_timeout` or `message_timeout` closes a
    /// connection for the time in which the server does not read what its peer has sent. When a handler has waited
    /// for its message for 5 s, the connection that holds most is closed, one for each handler that waits so long: its peer
    /// gets 1013, its handler
    /// [`Error::Overloaded`](crate::Error::Overloaded). [`Metrics`](crate::Metrics) counts the bytes, the pauses
    /// and the closes.
    ///
    /// # Errors
    ///
    /// A server with a limit of 0 does not start.
    ///
    /// ```
    /// use tidewire::{Server, ServerOptions};
    ///
    /// let mut server = Server::new();
    /// server.options(ServerOptions::default().message_memory(64 << 20));
    /// ```
    #[must_use]
    pub fn message_memory(mut self, max: impl Into<Option<usize>>) -> Self {
        self.message_memory = max.into();
        self
    }

    /// Proxies that are trusted to tell where a client is: addresses as `192.0.2.1` or `::1`,
    /// networks as `10.0.0.0/8`, and `unix:` for whoever connects through a Unix socket. Default:
    /// none.
    ///
    /// If the peer is one of them, [`client_ip`](crate::RequestContext::client_ip) follows the
    /// [header](Self::client_ip_header) that they write from the end, as long as the hops named there are
    /// trusted themselves, up to the first that is not: the client. A hop that is no address leaves the
    /// client unknown. Each proxy in the list must append to the header, or replace it.
    ///
    /// They are also believed that a client speaks TLS, in `X-Forwarded-Proto` or the `proto` of
    /// `Forwarded`: a page of the same host must then have come over TLS as well to connect.
    ///
    /// ```
    /// use tidewire::ServerOptions;
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

    /// The one header in which [trusted proxies](Self::trusted_proxies) tell where a client is:
    /// `Forwarded` (RFC 7239), or one with an address or a list of them as `X-Forwarded-For`,
    /// `X-Real-IP`. Default: not said.
    ///
    /// Say it. A proxy passes on the headers that it does not know, and the client may have written them.
    /// Where it is not said, both `Forwarded` and `X-Forwarded-For` are read; if they contradict each
    /// other, [`client_ip`](crate::RequestContext::client_ip) is `None`, and a
    /// [`ConnectionLimit`](crate::ConnectionLimit) for each address refuses with 400.
    #[must_use]
    pub fn client_ip_header(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        self.client_ip_header = HeaderName::try_from(name).ok();
        self.invalid_header = self.client_ip_header.is_none().then(|| name.to_owned());
        self
    }

    /// The hosts that requests may name in `Host` or in their target: names as `example.com`, all names
    /// below one as `*.example.com`, addresses as `192.0.2.1` and `[::1]`, each with any port.
    /// Default: all.
    ///
    /// Other requests are answered with 421 (RFC 9110 §15.5.20). That ends DNS rebinding, where the owner
    /// of another name lets it lead to this server for a while: pages of that name are then of the same
    /// host as the server, which no check of `Origin` can tell. A server on a developer's machine or
    /// inside a network, whose clients need no password, should say its names.
    #[must_use]
    pub fn allow_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        let listed = AllowedHosts::listed(hosts.into_iter().map(Into::into));
        self.invalid_hosts = listed.as_ref().err().cloned();
        self.allowed_hosts = Arc::new(listed.unwrap_or_default());
        self
    }

    /// Refuses what no server could work with.
    pub(crate) fn check(&self) -> io::Result<()> {
        let ranges = [
            ("max_head_size", self.max_head_size, Self::HIGHEST_HEAD_SIZE),
            ("max_headers", self.max_headers, Self::HIGHEST_HEADERS),
            ("max_uri_len", self.max_uri_len, Self::HIGHEST_HEAD_SIZE),
        ];
        for (name, value, highest) in ranges {
            if !(1..=highest).contains(&value) {
                return Err(invalid(format!("{name} is {value}, it must be 1 to {highest}")));
            }
        }
        let limits = [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, max)| *max == Some(0)) {
            return Err(invalid(format!("{name} is 0, which serves nobody")));
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
