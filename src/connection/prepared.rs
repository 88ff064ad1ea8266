//! One message for many connections: encoded once, and compressed once for those that agreed on the
//! same.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::compression;
use crate::message::Message;
use crate::proto::Frame;
use crate::proto::deflate::{DeflaterConfig, Flush};

/// A message to be sent over many connections.
///
/// Clones share everything. Where connections compress, the message is compressed once for all that
/// agreed on the same parameters (RFC 7692 §7.1), when the first of them is sent it.
///
/// A `Room` prepares what it broadcasts; this is for a fan-out of your own, with
/// [`Sender::send_prepared`](crate::Sender::send_prepared).
///
/// ```
/// use tidewire::PreparedMessage;
///
/// let prepared = PreparedMessage::new(r#"{"price":42}"#);
/// assert_eq!(prepared.message().as_text(), Some(r#"{"price":42}"#));
///
/// # async fn fan_out(senders: &[tidewire::Sender], prepared: PreparedMessage) {
/// for sender in senders {
///     // Waits for each that is slow: rooms do not.
///     let _ = sender.send_prepared(&prepared).await;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct PreparedMessage(Arc<Prepared>);

struct Prepared {
    plain: Frame,
    /// Compressed under one configuration, and from there on under the others.
    deflated: OnceLock<Box<Deflated>>,
}

/// What became of a message under one configuration.
struct Deflated {
    config: DeflaterConfig,
    /// `None` if it goes plain all the same.
    frame: Option<Frame>,
    next: OnceLock<Box<Self>>,
}

impl Deflated {
    fn new(plain: &Frame, config: DeflaterConfig) -> Self {
        let (mut deflater, mut out) = (compression::take_deflater(config), Vec::new());
        let is_good = deflater.deflate(plain.payload(), &mut out, Flush::LastMessage);
        if is_good {
            compression::put_deflater(deflater);
        }
        let frame = compression::deflated(plain, out).filter(|_| is_good);
        Self { config, frame, next: OnceLock::new() }
    }
}

impl PreparedMessage {
    /// Prepares a message.
    #[must_use]
    pub fn new(message: impl Into<Message>) -> Self {
        let plain = message.into().into_frame();
        Self(Arc::new(Prepared { plain, deflated: OnceLock::new() }))
    }

    /// The message, as the application sees it.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::from_frame(self.0.plain.clone())
    }

    /// Length of the payload, in bytes, uncompressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.plain.payload().len()
    }

    /// Has the message no payload?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as it is without compression.
    pub(super) fn plain(&self) -> &Frame {
        &self.0.plain
    }

    /// The frame compressed so that it refers to nothing before it, and nothing after it needs to
    /// refer to it; `None` if it is better sent plain.
    pub(super) fn deflated(&self, config: DeflaterConfig) -> Option<&Frame> {
        let mut place = &self.0.deflated;
        loop {
            // Whoever else wants the same meanwhile waits for less than it would take.
            let known = place.get_or_init(|| Box::new(Deflated::new(&self.0.plain, config)));
            if known.config == config {
                return known.frame.as_ref();
            }
            place = &known.next;
        }
    }
}

impl<M: Into<Message>> From<M> for PreparedMessage {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedMessage").field(&self.message()).finish()
    }
}
