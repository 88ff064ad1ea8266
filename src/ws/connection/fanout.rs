//! A connection among many: what a broadcast does with it.

#[cfg(feature = "rooms")]
use std::sync::Arc;

#[cfg(feature = "rooms")]
use super::backlog::{Bounds, Delivery};
use super::prepared::PreparedMessage;
use super::shared::Shared;
#[cfg(feature = "rooms")]
use super::writers::Writers;
use crate::error::Result;

impl Shared {
    /// Queues a broadcast from `source`. Writing and waking is left to `writers`, for the caller holds the
    /// lock of a room.
    #[cfg(feature = "rooms")]
    pub(crate) fn deliver(
        self: &Arc<Self>,
        source: u64,
        message: &PreparedMessage,
        bounds: &Bounds,
        writers: &mut Writers,
    ) -> Delivery {
        self.compress(message);
        let mut core = self.lock();
        let delivery = core.deliver(source, message, bounds);
        match delivery {
            Delivery::Sent if core.claim_write() => writers.add(self),
            // Without a task, those who wait in a call write it.
            Delivery::Sent | Delivery::Closed if !core.has_task => core.owe_look(),
            // A task writes it, or what is in the way, and then goes on with it.
            _ => {}
        }
        if core.postpone_wakes() {
            writers.add_waker(self);
        }
        delivery
    }

    /// Wakes the tasks for which a broadcast has changed something. Call it without a lock.
    #[cfg(feature = "rooms")]
    pub(super) fn wake_for_broadcast(&self) {
        drop(self.lock());
    }

    /// Writes what broadcasts have queued, in place of the connection's task; how many bytes that were.
    #[cfg(feature = "rooms")]
    pub(super) fn write_for_task(&self) -> u64 {
        let mut core = self.lock();
        let before = core.bytes_written();
        core.write_for_task(&mut self.io_context());
        core.bytes_written().saturating_sub(before)
    }

    /// Compresses a message before the lock is taken, which others wait for.
    fn compress(&self, message: &PreparedMessage) {
        if let Some(deflation) = self.deflation() {
            deflation.compress(message);
        }
    }

    /// Sends a prepared message, once there is room.
    pub(crate) async fn send_prepared(&self, message: &PreparedMessage) -> Result<()> {
        self.compress(message);
        let (mut listener, mut place) = (None, None);
        let mark = std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |core| match self.has_room(core, &mut place) {
                Err(error) => Some(Err(error)),
                Ok(has_room) if !has_room || core.state.is_sending_fragments() => None,
                Ok(_) => {
                    core.send_prepared(message);
                    Some(Ok((!core.has_task).then(|| core.outbox.queued())))
                }
            })
        });
        match mark.await? {
            // Nobody else would write it.
            Some(mark) => self.flush_to(mark).await,
            None => Ok(()),
        }
    }
}
