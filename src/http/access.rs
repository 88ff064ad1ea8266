//! The access log: one record for each request that is answered, when the last byte of its response is sent.
//!
//! It stands beside tide, as no middleware of it, so that requests still go straight to their handlers.

use std::time::Instant;

use crate::escaped::Escaped;
use crate::records::record;
use crate::reject::Subject;
use crate::runtime::Clock;

/// The record of an answer that is being sent.
#[derive(Debug)]
pub(super) struct Access {
    clock: Clock,
    since: Instant,
    status: Option<u16>,
    /// Bytes of the body that were given to the connection.
    bytes: u64,
}

impl Access {
    /// A request has come.
    pub(super) fn begin(clock: &Clock) -> Self {
        Self { clock: clock.clone(), since: clock.now(), status: None, bytes: 0 }
    }

    pub(super) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    pub(super) fn count(&mut self, len: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    }

    /// Writes the record, unless there was no answer.
    pub(super) fn tell(&self, Subject { method, path, peer, connection }: Subject<'_>) {
        let Some(status) = self.status else { return };
        let elapsed = self.clock.since(self.since).as_millis();
        record!(
            target: "tidewire::access",
            info,
            "request",
            method = method.map(Escaped),
            path = path.map(Escaped),
            status = status,
            bytes = self.bytes,
            elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX),
            peer = peer,
            connection = connection,
        );
    }
}
