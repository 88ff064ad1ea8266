//! The open WebSocket connections of a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;

use super::Instance;
use crate::connection::{CloseInfo, ConnectionStats, Shared};
use crate::foreign::tell;
use crate::sync::{Mutex, MutexGuard};

/// The open connections, and the sums over those that have ended.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Table>);

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
        self.0.lock()
    }
}

impl Table {
    fn open(&self) -> Vec<Arc<Shared>> {
        self.open.iter().map(|(_, shared)| Arc::clone(shared)).collect()
    }
}

/// The entry of an open connection in its server. It is dropped when the connection has ended, and then
/// counts that end.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    instance: Arc<Instance>,
    key: usize,
}

impl OpenSocket {
    pub(crate) fn take(instance: Arc<Instance>, shared: Arc<Shared>) -> Self {
        let key = instance.sockets.table().open.insert(shared);
        Self { instance, key }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let sockets = &self.instance.sockets;
        let Some(shared) = sockets.table().open.get(self.key).cloned() else { return };
        let (stats, info) = (shared.stats(), shared.close_info());
        let mut table = sockets.table();
        table.open.try_remove(self.key);
        table.ended.add(&stats);
        table.ended.clean += u64::from(info.as_ref().is_some_and(|info| info.clean));
        let code = info.as_ref().map_or(1006, CloseInfo::reported_code);
        *table.ended.closes.entry(code).or_default() += 1;
        drop(table);
        tell(|| {
            log::debug!(
                code,
                messages_in = stats.messages_in,
                messages_out = stats.messages_out;
                "WebSocket connection closed with {code}"
            );
        });
    }
}
