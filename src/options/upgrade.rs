//! The options of the server for an upgrade.

use std::fmt;
use std::time::Duration;

use super::WebSocketOptions;
use crate::admission::{ConnectionLimit, LimitKey};
use crate::proto::handshake::Origins;

/// Options of the server for an upgrade: who may connect, how long the opening handshake may take, and the
/// [`WebSocketOptions`] of the connection.
///
/// Where a handler sets the options of the connection alone, [`WebSocketOptions`] will do: they convert into these.
///
/// ```
/// use tidewire::upgrade::UpgradeOptions;
/// use tidewire::WebSocketOptions;
///
/// let options = UpgradeOptions::default()
///     .allow_origins(["https://example.com"])
///     .websocket(WebSocketOptions::default().max_message_size(64 * 1024));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
pub struct UpgradeOptions {
    /// Boxed, since the future of a handler holds its options, and lives as long as its connection.
    pub(crate) parts: Box<UpgradeParts>,
}

/// The values of all options.
#[derive(Clone, Debug)]
pub(crate) struct UpgradeParts {
    pub(crate) websocket: WebSocketOptions,
    pub(crate) origins: Origins,
    /// The subprotocol that the handler has chosen itself.
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) limits: Vec<ConnectionLimit>,
    pub(crate) limit_key: LimitKey,
}

impl Default for UpgradeParts {
    fn default() -> Self {
        Self {
            websocket: WebSocketOptions::default(),
            origins: Origins::SameHost,
            subprotocol: None,
            headers: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            limits: Vec::new(),
            limit_key: LimitKey::Missing,
        }
    }
}

impl From<WebSocketOptions> for UpgradeOptions {
    fn from(options: WebSocketOptions) -> Self {
        Self::default().websocket(options)
    }
}

impl UpgradeOptions {
    /// Sets the options of the connection: sizes, deadlines, heartbeat, compression, subprotocols. Default:
    /// [`WebSocketOptions::default()`].
    #[must_use]
    pub fn websocket(mut self, options: WebSocketOptions) -> Self {
        self.parts.websocket = options;
        self
    }

    /// Counts the connection towards `limit`, and opens it once the limit has a permit for it. Default:
    /// no limit.
    ///
    /// Call this once for each of several limits: the connection then needs a permit of all of them.
    /// Create a limit once, outside the handler; one that is new for each request limits nothing.
    /// [`ConnectionLimit`] explains the answer to a request that gets no permit.
    #[must_use]
    pub fn limit(mut self, limit: &ConnectionLimit) -> Self {
        self.parts.limits.push(limit.clone());
        self
    }

    /// Says under which key limits [for each key](ConnectionLimit::per_key) count the connection: the account of the client,
    /// as a name or a number. Default: none, which is an error if there is such a limit.
    ///
    /// Keys are equal if they are written alike. All limits for each key, of the route and of the server, use this one.
    /// Other limits do not look at it. Say only what the handler has checked: a client that may choose its key is not
    /// limited.
    #[must_use]
    pub fn limit_key(mut self, key: impl fmt::Display) -> Self {
        self.parts.limit_key = LimitKey::Known(key.to_string().into());
        self
    }

    /// For a connection that is opened to refuse a client: limits for each key do not count it.
    #[cfg(feature = "server")]
    pub(crate) fn without_limit_key(mut self) -> Self {
        self.parts.limit_key = LimitKey::Exempt;
        self
    }

    /// Longest time from the moment a connection has its permits until its 101 response is sent.
    /// Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.parts.handshake_timeout = timeout;
        self
    }

    /// Lets pages of these origins connect, besides pages of the request's own host.
    ///
    /// An origin is the value of a browser's `Origin` header: scheme, host, and the port unless it is
    /// the scheme's default, as in `https://example.com:8443`. A request without `Origin` does not come
    /// from a page, and is always accepted.
    ///
    /// If the client is known to use TLS, to this server or to a trusted proxy that says so, a page of
    /// the own host must have been loaded over TLS, too: its origin must begin with `https` (or, for a
    /// program, `wss`).
    #[must_use]
    pub fn allow_origins<T: Into<String>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        self.parts.origins = Origins::Listed(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Lets pages of any site connect, with the cookies that their visitor has for this site.
    ///
    /// This permits cross-site WebSocket hijacking, unless the handler authenticates clients by something
    /// other than cookies.
    #[must_use]
    pub fn allow_any_origin(mut self) -> Self {
        self.parts.origins = Origins::Any;
        self
    }

    /// The subprotocol that the handler has chosen itself from `RequestContext::offered_subprotocols`, instead of
    /// one of [`WebSocketOptions::subprotocols`]. The upgrade fails if the client does not offer it.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.parts.subprotocol = Some(name.into());
        self
    }

    /// Adds a header to the 101 response.
    ///
    /// Headers of the handshake itself (`Upgrade`, `Connection`, `Sec-WebSocket-*`) and of a body are
    /// ignored. A name or value that HTTP does not allow fails the upgrade.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parts.headers.push((name.into(), value.into()));
        self
    }
}
