//! A server in this process, and clients that die as they are told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use futures::channel::mpsc;
use socket2::SockRef;
use tidewire::WebSocketOptions;
use tidewire::server::{Metrics, ServerHandle, ShutdownOptions};

use super::kernel::entries;
use super::server::{End, Held, server};
use crate::support::peer::within;
use crate::support::tcp::{Tcp, until, until_equal};

/// The client's end of a connection, plain or encrypted.
pub(super) type Client = Tcp<Box<dyn Line>>;

/// What a client speaks over.
pub(super) trait Line: Read + Write {
    /// The connection underneath.
    fn tcp(&self) -> &TcpStream;
}

impl Line for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

#[cfg(feature = "tls")]
impl Line for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Security {
    Plain,
    #[cfg(feature = "tls")]
    Tls,
}

impl Security {
    pub(super) const ALL: &[Self] = &[
        Self::Plain,
        #[cfg(feature = "tls")]
        Self::Tls,
    ];
}

/// A server, with all that can be seen of it.
pub(super) struct Site {
    pub(super) handle: ServerHandle,
    pub(super) security: Security,
    held: Held,
    ends: mpsc::UnboundedReceiver<End>,
}

/// What a server holds because of its clients.
#[derive(Debug, Default, PartialEq)]
struct State {
    http: usize,
    websockets: usize,
    queued_bytes: usize,
    permits: usize,
    members: usize,
    descriptors: usize,
}

impl Site {
    /// A server with room for one WebSocket connection: what stays behind is in the way of the next.
    pub(super) fn start(security: Security, options: &WebSocketOptions) -> Self {
        let held = Held::new(1);
        let (tell, ends) = mpsc::unbounded();
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "nothing is left to be set"))]
        let mut server = server(&held, options, tell);
        #[cfg(feature = "tls")]
        if security == Security::Tls {
            server.tls(crate::tls::server_config());
        }
        let handle = within(server.start("127.0.0.1:0")).unwrap();
        Self { handle, security, held, ends }
    }

    /// Connects, without a word.
    pub(super) fn dial(&self) -> Client {
        Tcp { socket: Box::new(Tcp::connect(self.handle.local_addr()).socket) }
    }

    /// Connects, to the point where a request may follow.
    pub(super) fn connect(&self) -> Client {
        match self.security {
            Security::Plain => self.dial(),
            #[cfg(feature = "tls")]
            Security::Tls => {
                let client = crate::tls::connect(self.handle.local_addr());
                Tcp { socket: Box::new(client.socket) }
            }
        }
    }

    /// Connects, and opens a WebSocket at `path`.
    pub(super) fn upgraded_at(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.upgrade(path);
        client
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.handle.metrics()
    }

    /// Waits until the server has taken the connection, and read all that its client has sent.
    pub(super) fn has_read(&self, client: &Client) {
        let port = client.socket.tcp().local_addr().unwrap().port();
        until("the server has read everything", || {
            let ours = entries(self.handle.local_addr()).into_iter();
            ours.filter(|entry| entry.peer_port == port)
                .any(|entry| entry.is_held && entry.unread == 0)
        });
    }

    /// Waits until the server holds nothing but its listener, and tells how its connections ended.
    pub(super) fn at_rest(&mut self, after: &str) -> Vec<End> {
        until_equal(after, &State::default(), || self.state());
        let ends: Vec<_> = std::iter::from_fn(|| self.ends.try_recv().ok()).collect();
        let Metrics { upgraded, closes, .. } = self.metrics();
        assert_eq!(closes.values().sum::<u64>(), upgraded, "{after}: each has its close code");
        ends
    }

    fn state(&self) -> State {
        let metrics = self.metrics();
        let sockets = entries(self.handle.local_addr());
        State {
            http: metrics.open_http,
            websockets: metrics.open_websockets,
            queued_bytes: metrics.queued_bytes,
            permits: self.held.limit.in_use(),
            members: self.held.room.len(),
            // The listener has no peer.
            descriptors: sockets
                .iter()
                .filter(|entry| entry.is_held && entry.peer_port > 0)
                .count(),
        }
    }

    /// Ends the server, which must have no task left that needs to be told twice.
    pub(super) fn end(self) {
        let options = ShutdownOptions::default().grace(Duration::from_secs(1));
        let report = within(self.handle.shutdown(options));
        assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 0), "{report:?}");
    }
}

/// Ends a connection with a RST, whatever is on its way.
#[expect(clippy::needless_pass_by_value, reason = "the connection ends, as if it were dropped")]
pub(super) fn reset<L: Line>(client: Tcp<L>) {
    SockRef::from(client.socket.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
}

impl Line for Box<dyn Line> {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }
}
