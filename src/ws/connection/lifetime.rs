//! How long a connection lives, as its user decides: until when.

use std::time::Instant;

use super::WebSocket;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::ws::proto::{CloseCode, CloseFrame, ProtocolError};

impl WebSocket {
    /// Closes the connection at a point in time, with a code of the caller's choice: when a token
    /// expires, say.
    ///
    /// It is closed as by [`close`](Self::close), and [`recv`](Self::recv) returns `None` then. A
    /// later call replaces an earlier one, [`cancel_expiry`](Self::cancel_expiry) takes it back, and
    /// once the connection closes it has no effect. A time that has passed closes the connection as
    /// soon as its handler waits.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (§7.4) or
    /// `reason` exceeds 123 bytes; what was set before remains.
    pub fn expire_at(
        &self,
        at: Instant,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<()> {
        self.shared.expire_at(at, code.try_into().map_err(Into::into), reason)
    }

    /// Takes [`expire_at`](Self::expire_at) back, by whomever it was called.
    pub fn cancel_expiry(&self) {
        self.shared.cancel_expiry();
    }
}

impl Shared {
    pub(crate) fn expire_at(
        &self,
        at: Instant,
        code: Result<CloseCode, ProtocolError>,
        reason: &str,
    ) -> Result<()> {
        let code = code.map_err(Error::InvalidClose)?;
        let frame = CloseFrame::new(code, reason).map_err(Error::InvalidClose)?;
        self.reschedule(|core| core.set_expiry(Some((at, frame))));
        Ok(())
    }

    pub(crate) fn cancel_expiry(&self) {
        self.lock().set_expiry(None);
    }
}
