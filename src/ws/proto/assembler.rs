//! How frames make messages ([RFC 6455 §5.4]): their order, their size, and the text in them.
//!
//! The payloads stay where they are; this is the bookkeeping that decides whether the next frame,
//! and the next piece of it, may be taken.
//!
//! [RFC 6455 §5.4]: https://www.rfc-editor.org/rfc/rfc6455#section-5.4

use super::utf8::Utf8;
use super::{FrameHeader, Limits, OpCode, ProtocolError};

/// The message under way, if any.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    /// The text so far; `None` for binary, and for text that is compressed.
    utf8: Option<Utf8>,
    is_deflated: bool,
    /// Sum of the frames so far, in bytes.
    len: u64,
    fragments: usize,
}

impl Assembler {
    /// Is a message begun and not finished?
    pub(super) fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// Is the message under way a compressed one?
    pub(super) fn is_deflated(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.is_deflated)
    }

    /// Takes the header of the next data frame, before its payload costs anything.
    pub(super) fn begin_frame(
        &mut self,
        header: &FrameHeader,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        let message = match (header.opcode, &mut self.message) {
            (OpCode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (OpCode::Continuation, Some(message)) => message,
            (opcode, Some(_)) => return Err(ProtocolError::MessageInterrupted(opcode)),
            (opcode, empty) => {
                let is_deflated = header.rsv1;
                let utf8 = (opcode == OpCode::Text && !is_deflated).then(Utf8::default);
                empty.insert(Message { utf8, is_deflated, len: 0, fragments: 0 })
            }
        };
        message.fragments += 1;
        if message.fragments > limits.max_fragments {
            return Err(ProtocolError::TooManyFragments { max: limits.max_fragments });
        }
        if exceeds(header.len, limits.max_frame_size) {
            return Err(ProtocolError::FrameTooBig { len: header.len, max: limits.max_frame_size });
        }
        message.len = message.len.saturating_add(header.len);
        let max =
            if message.is_deflated { limits.max_deflated_size() } else { limits.max_message_size };
        if exceeds(message.len, max) {
            let (len, max) = (message.len, limits.max_message_size);
            return Err(ProtocolError::MessageTooBig { len, max });
        }
        Ok(())
    }

    /// Takes the next piece of the frame's payload.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        match &mut self.message {
            Some(Message { utf8: Some(utf8), .. }) => utf8.push(piece),
            _ => Ok(()),
        }
    }

    /// Takes the end of the frame.
    pub(super) fn end_frame(&mut self, fin: bool) -> Result<(), ProtocolError> {
        if !fin {
            return Ok(());
        }
        match self.message.take() {
            Some(Message { utf8: Some(utf8), .. }) => utf8.finish(),
            _ => Ok(()),
        }
    }
}

fn exceeds(len: u64, max: usize) -> bool {
    usize::try_from(len).map_or(true, |len| len > max)
}
