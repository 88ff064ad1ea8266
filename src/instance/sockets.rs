//! The WebSocket connections of a server, or of a program with an HTTP server of its own: those that are open, the
//! sums over those that have ended, what they share, and their end.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use slab::Slab;

use crate::budget::MessageBudget;
use crate::changes::Changes;
use crate::connection::{CloseInfo, ConnectionStats, Shared};
use crate::escaped::Escaped;
use crate::proto::CloseFrame;
use crate::proto::handshake::HandshakeError;
use crate::records::record;
use crate::reject::Subject;
use crate::runtime::Clock;
use crate::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(crate) struct Sockets {
    table: Mutex<Table>,
    /// The number of upgrades that were refused, by [`HandshakeError::name`].
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// The limit on the bytes of messages in progress, if there is one.
    budget: Option<Arc<MessageBudget>>,
    /// Set when all connections are to end: their close frame.
    last_frame: OnceLock<CloseFrame>,
    shutting_down: Changes,
    /// The clock of the access log, if that is written.
    access_log: Option<Clock>,
}

#[derive(Debug, Default)]
struct Table {
    open: Slab<Arc<Shared>>,
    ended: Totals,
}

/// The sums of the counters of several connections, and of their ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: u64,
    /// The number of ends by reported code (RFC 6455 §7.1.5).
    pub(crate) closes: BTreeMap<u16, u64>,
    /// The number that ended with a closing handshake.
    pub(crate) clean: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) wire_bytes_in: u64,
    pub(crate) wire_bytes_out: u64,
    pub(crate) queued_bytes: usize,
}

impl Totals {
    fn add(&mut self, stats: &ConnectionStats) {
        self.connections += 1;
        self.messages_in += stats.messages_in;
        self.messages_out += stats.messages_out;
        self.wire_bytes_in += stats.wire_bytes_in;
        self.wire_bytes_out += stats.wire_bytes_out;
    }
}

impl Sockets {
    /// Creates a table whose connections may hold `message_memory` bytes for messages in progress.
    pub(crate) fn new(message_memory: Option<usize>) -> Self {
        Self { budget: message_memory.map(MessageBudget::new), ..Self::default() }
    }

    /// Has a record of the access log written for each connection that ends.
    #[cfg(feature = "server")]
    pub(crate) fn with_access_log(self, clock: Clock) -> Self {
        Self { access_log: Some(clock), ..self }
    }

    /// Whether the access log is written.
    #[cfg(feature = "server")]
    pub(crate) fn has_access_log(&self) -> bool {
        self.access_log.is_some()
    }

    /// Announces the end of all connections. From now on, new ones are closed with `frame`.
    pub(crate) fn begin_shutdown(&self, frame: CloseFrame) {
        self.last_frame.get_or_init(|| frame);
        self.shutting_down.tell();
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.last_frame.get().is_some()
    }

    /// Waits until the shutdown begins.
    pub(crate) fn shutting_down(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.shutting_down.until(|| self.is_shutting_down().then_some(()))
    }

    /// Enters a connection. It is closed at once if the shutdown has begun, and has closed the others already.
    pub(crate) fn enter(this: &Arc<Self>, shared: &Arc<Shared>) -> OpenSocket {
        let key = this.table().open.insert(Arc::clone(shared));
        let open = OpenSocket { sockets: Arc::clone(this), key };
        if let Some(frame) = this.last_frame.get() {
            shared.start_close(frame.clone());
        }
        open
    }

    /// Counts an upgrade that is refused.
    pub(crate) fn count_refused(&self, error: HandshakeError) {
        let mut refused = self.refused.lock();
        *refused.entry(error.name()).or_default() += 1;
    }

    /// The number of upgrades that were refused, by [`HandshakeError::name`].
    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }

    /// The limit on the bytes of messages in progress, if there is one.
    pub(crate) fn budget(&self) -> Option<&Arc<MessageBudget>> {
        self.budget.as_ref()
    }

    /// The connections that are open.
    pub(crate) fn open(&self) -> Vec<Arc<Shared>> {
        self.table().open()
    }

    pub(crate) fn len(&self) -> usize {
        self.table().open.len()
    }

    /// The sums over the connections that have ended.
    pub(crate) fn ended(&self) -> Totals {
        self.table().ended.clone()
    }

    /// The sums over all connections, and the number of open ones.
    pub(crate) fn totals(&self) -> (Totals, usize) {
        let table = self.table();
        let (mut totals, open) = (table.ended.clone(), table.open());
        drop(table);
        for shared in &open {
            totals.add(&shared.stats());
            totals.queued_bytes += shared.queued_bytes();
        }
        (totals, open.len())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    fn open(&self) -> Vec<Arc<Shared>> {
        self.open.iter().map(|(_, shared)| Arc::clone(shared)).collect()
    }
}

/// The entry of an open connection. It is dropped when the connection has ended, and then
/// counts that end.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    sockets: Arc<Sockets>,
    key: usize,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let sockets = &self.sockets;
        let Some(shared) = sockets.table().open.get(self.key).cloned() else { return };
        let (stats, info) = (shared.stats(), shared.close_info());
        let mut table = sockets.table();
        table.open.try_remove(self.key);
        table.ended.add(&stats);
        table.ended.clean += u64::from(info.as_ref().is_some_and(|info| info.clean));
        let code = info.as_ref().map_or(1006, CloseInfo::reported_code);
        *table.ended.closes.entry(code).or_default() += 1;
        drop(table);
        let Subject { method, path, peer, connection } = shared.subject();
        let (method, path) = (method.map(Escaped), path.map(Escaped));
        record!(
            debug,
            "WebSocket connection closed",
            path = path,
            peer = peer,
            connection = connection,
            code = code,
            messages_in = stats.messages_in,
            messages_out = stats.messages_out,
        );
        if let Some(clock) = &sockets.access_log {
            let elapsed = clock.since(stats.since).as_millis();
            record!(
                target: "tidewire::access",
                info,
                "WebSocket",
                method = method,
                path = path,
                code = code,
                messages_in = stats.messages_in,
                messages_out = stats.messages_out,
                bytes_in = stats.wire_bytes_in,
                bytes_out = stats.wire_bytes_out,
                elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX),
                peer = peer,
                connection = connection,
            );
        }
    }
}
