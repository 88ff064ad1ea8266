//! The protocol state of one connection: messages under way, and close frames that have passed
//! ([RFC 6455 §7.1]).
//!
//! [RFC 6455 §7.1]: https://www.rfc-editor.org/rfc/rfc6455#section-7.1

use super::utf8::Utf8;
use super::{CloseFrame, Frame, FrameError, MAX_CONTROL_PAYLOAD, OpCode, ProtocolError};

/// The facts about sent and received frames that later frames depend on.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The message that the caller sends frame by frame, until its last frame.
    sending: Option<Fragments>,
    sent_close: Option<Passed>,
    received_close: Option<Passed>,
}

/// A close frame that has passed; `None` if it carried no code. Boxed, since most connections are open.
#[derive(Debug)]
struct Passed(Option<Box<CloseFrame>>);

#[derive(Clone, Copy, Debug)]
enum Fragments {
    Binary,
    Text(Utf8),
}

impl State {
    /// Whether data may still be sent. It may not after our close frame (§5.5.1).
    pub(crate) fn can_send(&self) -> bool {
        self.sent_close.is_none()
    }

    /// Whether close frames have passed in both directions (§7.1.4).
    pub(crate) fn is_closed(&self) -> bool {
        self.sent_close.is_some() && self.received_close.is_some()
    }

    /// Whether the peer's close frame has arrived, and ours has not been sent.
    pub(crate) fn received_close_first(&self) -> bool {
        self.sent_close.is_none() && self.received_close.is_some()
    }

    /// Whether the caller is sending a message frame by frame.
    pub(crate) fn is_sending_fragments(&self) -> bool {
        self.sending.is_some()
    }

    /// Code and reason that we sent, if any.
    pub(crate) fn sent_close(&self) -> Option<&CloseFrame> {
        self.sent_close.as_ref()?.0.as_deref()
    }

    /// Code and reason that the peer sent, if any.
    pub(crate) fn received_close(&self) -> Option<&CloseFrame> {
        self.received_close.as_ref()?.0.as_deref()
    }

    /// Checks and records a frame that the caller wants to send.
    pub(crate) fn send_frame(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let (opcode, len) = (frame.opcode(), frame.payload().len());
        if opcode == OpCode::Close {
            return Err(FrameError::CloseFrame);
        }
        if opcode.is_control() {
            if !frame.fin() {
                return Err(FrameError::ControlFrameFragmented(opcode));
            }
            if len > MAX_CONTROL_PAYLOAD {
                return Err(FrameError::ControlFrameTooLong { len });
            }
            return Ok(());
        }
        let message = match (opcode, self.sending) {
            (OpCode::Continuation, None) => return Err(FrameError::UnexpectedContinuation),
            (OpCode::Continuation, Some(message)) => message,
            (_, Some(_)) => return Err(FrameError::MessageInterrupted(opcode)),
            (OpCode::Text, None) => Fragments::Text(Utf8::default()),
            (_, None) => Fragments::Binary,
        };
        let message = message.with(frame).map_err(|_| FrameError::InvalidUtf8)?;
        self.sending = (!frame.fin()).then_some(message);
        Ok(())
    }

    /// Records our close frame. Returns false if one was sent before: only the first goes out.
    pub(crate) fn send_close(&mut self, frame: Option<CloseFrame>) -> bool {
        let is_first = self.sent_close.is_none();
        if is_first {
            self.sent_close = Some(Passed(frame.map(Box::new)));
        }
        is_first
    }

    /// Records the peer's close frame.
    pub(crate) fn receive_close(&mut self, frame: Option<CloseFrame>) {
        self.received_close.get_or_insert(Passed(frame.map(Box::new)));
    }
}

impl Fragments {
    /// Adds one more frame to the message.
    fn with(mut self, frame: &Frame) -> Result<Self, ProtocolError> {
        if let Self::Text(utf8) = &mut self {
            utf8.push(frame.payload())?;
            if frame.fin() {
                utf8.finish()?;
            }
        }
        Ok(self)
    }
}
