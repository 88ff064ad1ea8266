//! The options of a WebSocket connection.

pub(crate) mod deflate;
pub(crate) mod heartbeat;
pub(crate) mod rate_limit;
#[cfg(feature = "accept")]
pub(crate) mod upgrade;

use std::time::Duration;

pub use self::deflate::{DeflateBudget, DeflateOptions};
pub use self::heartbeat::HeartbeatOptions;
pub use self::rate_limit::RateLimit;
#[cfg(feature = "accept")]
pub use self::upgrade::UpgradeOptions;
use crate::proto::handshake::Subprotocols;
use crate::proto::{DeflateParameters, Limits};
use crate::runtime::Clock;
#[cfg(feature = "testing")]
use crate::runtime::ManualClock;

/// Options of a connection, on either side: limits on its memory and time, and what its opening handshake offers.
///
/// The defaults are safe on the open internet. Sizes are in bytes. Options that only a server has, such as
/// connection limits and origins, are those of [`UpgradeOptions`](crate::upgrade::UpgradeOptions).
///
/// ```
/// use std::time::Duration;
/// use tidewire::WebSocketOptions;
///
/// let options = WebSocketOptions::default()
///     .max_message_size(64 * 1024)
///     .close_timeout(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct WebSocketOptions {
    /// Boxed, since the future of a handler holds its options, and lives as long as its connection.
    pub(crate) parts: Box<Parts>,
}

/// The values of all options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) subprotocols: Subprotocols,
    pub(crate) deflate: Option<DeflateOptions>,
    pub(crate) agreed_deflate: Option<DeflateParameters>,
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
    /// Whether the connection has a task of its own. With one, a server pings by default.
    pub(crate) has_task: bool,
    pub(crate) watch: Option<Box<Watch>>,
    pub(crate) clock: Clock,
}

/// Settings that few connections use. They are boxed, so that other connections stay small.
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
    /// The default: a server with a task pings, nothing else does.
    #[default]
    ByServers,
    /// The options' own choice; `None` switches pings off.
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
    /// The same settings, for a connection with a task of its own.
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
    /// A larger message fails the connection with 1009 as soon as a frame header announces it, before
    /// memory is spent on it.
    #[must_use]
    pub fn max_message_size(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_message_size = max;
        self
    }

    /// Largest frame to receive, in bytes. Default: no limit other than the one for the message.
    ///
    /// A larger frame fails the connection with 1009 as soon as its header announces it.
    #[must_use]
    pub fn max_frame_size(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_frame_size = max;
        self
    }

    /// Largest number of frames in a received message. Default 1 024; at least one.
    ///
    /// A message of more frames fails the connection with 1008.
    #[must_use]
    pub fn max_fragments(mut self, max: usize) -> Self {
        self.parts.settings.limits.max_fragments = max.max(1);
        self
    }

    /// Clock for the deadlines of the connection. Default: that of its server, else the system's clock.
    ///
    /// Tests set a clock that they turn by hand: see [`ManualClock`].
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.parts.settings.clock = Clock::manual(clock);
        self
    }

    /// Bytes that may be queued before `send` waits for the peer to read. Default 64 KiB; at least one.
    ///
    /// A message is queued whole while fewer bytes than this are queued. So the queue holds at most
    /// this many bytes plus one message.
    #[must_use]
    pub fn send_buffer_size(mut self, size: usize) -> Self {
        self.parts.settings.send_buffer_size = size.max(1);
        self
    }

    /// Bytes that the connection reads ahead while the handler is busy elsewhere. Default 64 KiB.
    ///
    /// Up to this size the connection answers pings and notices a close without a call of `recv`. Then
    /// it stops reading, and the peer has to wait.
    #[must_use]
    pub fn read_ahead_size(mut self, size: usize) -> Self {
        self.parts.settings.read_ahead_size = size;
        self
    }

    /// Whether the connection answers pings by itself (RFC 6455 §5.5.2). Default `true`.
    ///
    /// With `false` the caller must answer the pings that `recv_frame` returns, with
    /// [`pong`](crate::WebSocket::pong).
    #[must_use]
    pub fn auto_pong(mut self, auto: bool) -> Self {
        self.parts.settings.auto_pong = auto;
        self
    }

    /// Subprotocols that the server speaks, in its order of preference (RFC 6455 §1.9). Default:
    /// none.
    ///
    /// The server chooses the first of them that the client offers, too. If the client offers none of
    /// them, the connection is opened without a subprotocol; a browser whose page offered some then
    /// fails it. [`WebSocket::subprotocol`](crate::WebSocket::subprotocol) returns the choice. Names are
    /// tokens, and case matters.
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

    /// Refuses clients, with 400, that offer none of the [`subprotocols`](Self::subprotocols).
    #[must_use]
    pub fn require_subprotocol(mut self) -> Self {
        self.parts.subprotocols.is_required = true;
        self
    }

    /// Compresses messages if the client offers it (permessage-deflate, RFC 7692). Default: no
    /// compression.
    ///
    /// [`WebSocket::deflate_parameters`](crate::WebSocket::deflate_parameters) returns the agreed parameters. Do not compress
    /// a secret together with text that another party chooses: see
    /// [`Message::uncompressed`](crate::Message::uncompressed).
    #[must_use]
    pub fn deflate(mut self, options: DeflateOptions) -> Self {
        self.parts.deflate = Some(options);
        self
    }

    /// The compression parameters that an opening handshake elsewhere has agreed on.
    ///
    /// For [`WebSocket::from_stream`](crate::WebSocket::from_stream) and
    /// [`WebSocket::run`](crate::WebSocket::run), which start after the handshake. Without these
    /// parameters they do not compress.
    ///
    /// Level and threshold are those of [`deflate`](Self::deflate), or the defaults.
    #[must_use]
    pub fn agreed_deflate(mut self, parameters: DeflateParameters) -> Self {
        self.parts.agreed_deflate = Some(parameters);
        self
    }

    /// Longest wait for the peer's close frame after ours. Default 5 s.
    ///
    /// The time starts anew whenever the peer takes bytes of our close frame, or bytes queued before it.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.parts.settings.close_timeout = timeout;
        self
    }

    /// Longest time from the first byte of a received message to its last. Default 30 s; `None` for no
    /// limit.
    ///
    /// Time in which this side does not read, because the handler is busy or the server has no
    /// `message_memory` left, does not count. A message gets no more time because parts of it arrive: to
    /// send the largest one of 1 MiB in time, a peer needs 35 kB/s. For slower links, raise this, or
    /// lower [`max_message_size`](Self::max_message_size).
    #[must_use]
    pub fn message_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.message_timeout = timeout.into();
        self
    }

    /// Longest time without progress of queued data; then the connection fails. Default 10 s; `None` for
    /// no limit.
    #[must_use]
    pub fn send_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.send_timeout = timeout.into();
        self
    }

    /// Sends pings while the connection is open, to notice when the peer is gone. `None` switches them
    /// off.
    ///
    /// Default: [`HeartbeatOptions::default()`] on the server's side of a connection with a task of its
    /// own: every connection of a `Server`, of `UpgradeRequest::run` and of
    /// [`WebSocket::run`](crate::WebSocket::run). Otherwise no pings: a client does not send them, and a
    /// connection without a task might not read the pong. See
    /// [`WebSocket::set_heartbeat`](crate::WebSocket::set_heartbeat).
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

    /// Closes the connection with 1001 after this long without a message in either direction. Default:
    /// no limit. At least 10 ms.
    ///
    /// A long message counts for as long as its bytes arrive, or the peer takes more of them. Pings and
    /// pongs do not count, those of a heartbeat included. Time in which this side does not read does not
    /// count either.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.watch().idle_timeout = timeout.into();
        self
    }

    /// Closes the connection with 1001 after this long, even while messages pass. Default: no limit. At
    /// least 10 ms.
    ///
    /// Clients then reconnect, and spread over new servers. A random 0–10 % of the time is subtracted,
    /// so that clients that connected together do not reconnect together.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.parts.settings.watch().max_lifetime = lifetime.into();
        self
    }

    /// Limits the rate at which the peer may send. Default: no limit.
    ///
    /// A peer that sends faster fails the connection with 1008, after the messages before that have been
    /// received.
    ///
    /// Set it where strangers speak in a `Room`: each of their messages is work for every member.
    #[must_use]
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
        self.parts.settings.watch().rate_limit = limit.into();
        self
    }
}
