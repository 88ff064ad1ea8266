//! What a caller may set for a WebSocket connection.

pub(crate) mod deflate;
pub(crate) mod heartbeat;
pub(crate) mod rate_limit;

use std::time::Duration;

pub use self::deflate::{DeflateBudget, DeflateOptions};
pub use self::heartbeat::HeartbeatOptions;
pub use self::rate_limit::RateLimit;
#[cfg(feature = "server")]
use crate::admission::ConnectionLimit;
use crate::proto::handshake::{Origins, Subprotocols};
use crate::proto::{DeflateParameters, Limits};
use crate::runtime::Clock;
#[cfg(feature = "testing")]
use crate::runtime::ManualClock;

/// How a connection is opened, and what it may cost.
///
/// The defaults are safe on the open internet. Sizes are bytes.
///
/// ```
/// use std::time::Duration;
/// use tidewire::WebSocketOptions;
///
/// let options = WebSocketOptions::default()
///     .max_message_size(64 * 1024)
///     .close_timeout(Duration::from_secs(2))
///     .allow_origins(["https://example.com"]);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// Boxed: the future of a handler holds its options, and lives as long as its connection.
    pub(crate) parts: Box<Parts>,
}

/// What the options say.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    pub(crate) subprotocols: Subprotocols,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) handshake_timeout: Duration,
    #[cfg(feature = "server")]
    pub(crate) limits: Vec<ConnectionLimit>,
    pub(crate) deflate: Option<DeflateOptions>,
    pub(crate) agreed_deflate: Option<DeflateParameters>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            origins: Origins::SameHost,
            subprotocols: Subprotocols::default(),
            headers: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            #[cfg(feature = "server")]
            limits: Vec::new(),
            deflate: None,
            agreed_deflate: None,
        }
    }
}

/// The part of the options that a connection keeps.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) send_buffer_size: usize,
    pub(crate) read_ahead_size: usize,
    pub(crate) auto_pong: bool,
    pub(crate) close_timeout: Duration,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) send_timeout: Option<Duration>,
    /// Whether the connection has a task of its own, by which a server pings without being asked to.
    pub(crate) has_task: bool,
    pub(crate) watch: Option<Box<Watch>>,
    pub(crate) clock: Clock,
}

/// What few connections are watched for: boxed, so that the others do not carry it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) pings: Pings,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) rate_limit: Option<RateLimit>,
}

/// Whether a connection pings its peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Pings {
    /// At the server's side, if it has a task that does.
    #[default]
    ByServers,
    /// As the options say.
    Set(Option<HeartbeatOptions>),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            send_buffer_size: 64 << 10,
            read_ahead_size: 64 << 10,
            auto_pong: true,
            close_timeout: Duration::from_secs(5),
            message_timeout: Some(Duration::from_secs(30)),
            send_timeout: Some(Duration::from_secs(10)),
            has_task: false,
            watch: None,
            clock: Clock::default(),
        }
    }
}

impl Settings {
    /// Those of a connection with a task of its own.
    pub(crate) fn with_task(self) -> Self {
        Self { has_task: true, ..self }
    }

    fn watch(&mut self) -> &mut Watch {
        self.watch.get_or_insert_default()
    }
}

impl WebSocketOptions {
    /// Largest message to receive, in bytes: the sum of its frames. Default 1 MiB.
    ///
    /// A message that announces more fails the connection with 1009, before memory is spent on it.
    #[must_use]
    pub fn max_message_size(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_message_size = max;
        self
    }

    /// Largest frame to receive, in bytes. Default: no limit but that of the message.
    ///
    /// A frame that announces more fails the connection with 1009.
    #[must_use]
    pub fn max_frame_size(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_frame_size = max;
        self
    }

    /// Most frames a received message may come in. Default 1 024; at least one.
    ///
    /// A message of more fails the connection with 1008.
    #[must_use]
    pub fn max_fragments(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_fragments = max.max(1);
        self
    }

    /// The clock that the deadlines of the connection follow. Default: the clock of the system.
    ///
    /// For tests, which turn it by hand: see [`ManualClock`].
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.parts.settings.clock = Clock::manual(clock);
        self
    }

    /// Bytes that may be queued before `send` waits for the peer to read. Default 64 KiB.
    ///
    /// A message is queued whole once there is less than this, so the queue holds at most this
    /// much and one message.
    #[must_use]
    pub fn send_buffer_size(mut self, size: usize) -> Self {
        self.parts.settings.send_buffer_size = size.max(1);
        self
    }

    /// Bytes that are received ahead while the handler is busy elsewhere. Default 64 KiB.
    ///
    /// Up to there pings are answered and a close is noticed although nobody calls `recv`; beyond
    /// it the peer is left waiting.
    #[must_use]
    pub fn read_ahead_size(mut self, size: usize) -> Self {
        self.parts.settings.read_ahead_size = size;
        self
    }

    /// Answer pings without being asked? Default `true` (RFC 6455 §5.5.2).
    ///
    /// With `false` the caller answers the pings that `recv_frame` shows, by
    /// [`pong`](crate::WebSocket::pong), and nobody else does.
    #[must_use]
    pub fn auto_pong(mut self, auto: bool) -> Self {
        self.parts.settings.auto_pong = auto;
        self
    }

    /// Subprotocols that the server speaks, in its order of preference (RFC 6455 §1.9). Default:
    /// none.
    ///
    /// The first that the client offers too is agreed on; where there is none, the connection goes
    /// on without, which browsers do not accept if their page has offered some.
    /// [`WebSocket::subprotocol`](crate::WebSocket::subprotocol) tells which. Names are tokens, and
    /// case matters.
    ///
    /// ```
    /// # use tidewire::WebSocketOptions;
    /// let options = WebSocketOptions::default().subprotocols(["chat.v2", "chat.v1"]);
    /// ```
    #[must_use]
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.parts.subprotocols.supported = names.into_iter().map(Into::into).collect();
        self
    }

    /// The subprotocol that the handler has chosen itself, out of
    /// `RequestContext::offered_subprotocols`. The upgrade fails if the client does not offer it.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.parts.subprotocols.chosen = Some(name.into());
        self
    }

    /// Refuses clients, with 400, that offer none of the [`subprotocols`](Self::subprotocols).
    #[must_use]
    pub fn require_subprotocol(mut self) -> Self {
        self.parts.subprotocols.is_required = true;
        self
    }

    /// Compresses messages where the client offers to (permessage-deflate, RFC 7692). Default: no.
    ///
    /// [`WebSocket::deflate`](crate::WebSocket::deflate) tells what was agreed. Secrets beside text
    /// that somebody else chooses should not be compressed with it: see
    /// [`Message::uncompressed`](crate::Message::uncompressed).
    #[must_use]
    pub fn deflate(mut self, options: DeflateOptions) -> Self {
        self.parts.deflate = Some(options);
        self
    }

    /// What an opening handshake elsewhere has agreed on, for
    /// [`WebSocket::from_stream`](crate::WebSocket::from_stream) and
    /// [`WebSocket::run`](crate::WebSocket::run), which see none. Without it they do not compress.
    ///
    /// Level and threshold are those of [`deflate`](Self::deflate), or the defaults.
    #[must_use]
    pub fn agreed_deflate(mut self, parameters: DeflateParameters) -> Self {
        self.parts.agreed_deflate = Some(parameters);
        self
    }

    /// How long to wait for the peer's close frame after ours. Default 5 s.
    ///
    /// It begins anew whenever the peer makes room for bytes that wait before our close frame, or for that.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.parts.settings.close_timeout = timeout;
        self
    }

    /// How long a message may take from its first byte to its last. Default 30 s; `None` for no limit.
    ///
    /// Time in which this side does not read, because the handler is busy or the server has no
    /// `message_memory` left, does not count. However much arrives meanwhile, the message has no more time: for the largest one of 1 MiB a peer needs 35 kB/s.
    /// Where links are slower, raise this, or lower [`max_message_size`](Self::max_message_size).
    #[must_use]
    pub fn message_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.message_timeout = timeout.into();
        self
    }

    /// How long the peer may take nothing of what is queued. Default 10 s; `None` for no limit.
    #[must_use]
    pub fn send_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.send_timeout = timeout.into();
        self
    }

    /// Pings by which a peer that is gone is noticed, for as long as the connection is open. `None` switches
    /// them off.
    ///
    /// Default: [`HeartbeatOptions::default()`] at the server's side of a connection with a task of its own,
    /// as a `Server` gives to every one, and `OpeningRequest::run` and
    /// [`WebSocket::run`](crate::WebSocket::run) have. Else none: a client does not ping, and without a task
    /// nobody may be there to read the pong. See [`WebSocket::heartbeat`](crate::WebSocket::heartbeat).
    ///
    /// ```
    /// # use tidewire::WebSocketOptions;
    /// let silent = WebSocketOptions::default().heartbeat(None);
    /// ```
    #[must_use]
    pub fn heartbeat(mut self, options: impl Into<Option<HeartbeatOptions>>) -> Self {
        self.parts.settings.watch().pings = Pings::Set(options.into());
        self
    }

    /// How long no message may pass, in either direction. Default: no limit. At least 10 ms.
    ///
    /// The connection is then closed with 1001. A long message passes for as long as bytes of it arrive, or
    /// the peer makes room for more of it. Pings and pongs do not count, a heartbeat's
    /// included, and neither does time in which this side does not read.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.watch().idle_timeout = timeout.into();
        self
    }

    /// How long a connection may be open, whatever passes over it. Default: for ever. At least
    /// 10 ms.
    ///
    /// It is then closed with 1001: so clients come to new servers, and new balances. That is up to
    /// a tenth early, lest those who came together come back together.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.watch().max_lifetime = lifetime.into();
        self
    }

    /// How fast the peer may send. Default: as fast as it is read.
    ///
    /// Beyond it the connection fails with 1008, after the messages before have been received.
    ///
    /// Set it where strangers speak in a `Room`: each of their messages is work for every member.
    #[must_use]
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
        self.parts.settings.watch().rate_limit = limit.into();
        self
    }

    /// Counts the connection among those of `limit`, and opens it when that has a permit. Default:
    /// no limit. Several may be given, and all must admit.
    ///
    /// The limit is made once, outside of the handler: one that is new for each request limits
    /// nothing. [`ConnectionLimit`] says what becomes of requests that find no permit.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn limit(mut self, limit: &ConnectionLimit) -> Self {
        self.parts.limits.push(limit.clone());
        self
    }

    /// How long the 101 response may take to get on its way, once the connection has its permits.
    /// Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.parts.handshake_timeout = timeout;
        self
    }

    /// Lets pages of these origins connect, besides those of the request's own host.
    ///
    /// An origin is what a browser sends in `Origin`: scheme, host, and port unless it is the
    /// scheme's own, as in `https://example.com:8443`. Requests without `Origin`, which do not
    /// come from a page, always pass.
    ///
    /// Pages of the own host must have come over TLS (`https`, or a program's `wss`) where the client is
    /// known to speak it: to this server, or to a proxy that is trusted to say so.
    #[must_use]
    pub fn allow_origins<T: Into<String>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        self.parts.origins = Origins::Listed(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Lets pages of any site connect, with the cookies their visitor has for this one.
    ///
    /// That is cross-site WebSocket hijacking unless the handler authenticates in another way.
    #[must_use]
    pub fn allow_any_origin(mut self) -> Self {
        self.parts.origins = Origins::Any;
        self
    }

    /// Adds a header to the 101 response.
    ///
    /// Those of the handshake itself (`Upgrade`, `Connection`, `Sec-WebSocket-*`) and of a body are
    /// ignored; a name or value that HTTP does not allow fails the upgrade.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parts.headers.push((name.into(), value.into()));
        self
    }
}
