//! Tungstenite, as the server and as the client of the bytes that ours reads and writes.

use std::io::{self, Cursor, Read, Write};

use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Message, WebSocket};

use crate::oracle::{self, Limits};

/// What tungstenite makes of some bytes.
#[derive(Debug)]
pub struct Heard {
    pub messages: Vec<oracle::Message>,
    pub end: End,
}

/// How they end for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The stream ends, and no close frame has come.
    Cut,
    /// A close frame, with its code if it had one.
    Close(Option<u16>),
    /// What it refuses, by the code that belongs to that.
    Refused(u16),
}

/// Bytes to read, and nowhere to write to.
struct Bytes<'a>(Cursor<&'a [u8]>);

impl Read for Bytes<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has tungstenite read these bytes at the side `role`.
pub fn hear(bytes: &[u8], role: Role, limits: &Limits) -> Heard {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(limits.message))
        .max_frame_size(Some(limits.frame));
    let mut socket = WebSocket::from_raw_socket(Bytes(Cursor::new(bytes)), role, Some(config));
    let (mut messages, mut close) = (Vec::new(), None);
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                let payload = text.as_bytes().to_vec();
                messages.push(oracle::Message { is_text: true, payload });
            }
            Ok(Message::Binary(payload)) => {
                messages.push(oracle::Message { is_text: false, payload: payload.to_vec() });
            }
            Ok(Message::Close(frame)) => {
                close.get_or_insert(frame.map(|frame| u16::from(frame.code)));
            }
            Ok(_) => {}
            Err(error) => break end_of(&error, close),
        }
    };
    Heard { messages, end }
}

/// What tungstenite makes of a close code that may travel: 1014 was registered (§11.7) after it drew
/// its list, and is a violation to it.
pub fn known(code: Option<u16>) -> Option<u16> {
    code.map(|code| if code == 1014 { 1002 } else { code })
}

fn end_of(error: &Error, close: Option<Option<u16>>) -> End {
    // What follows a close frame is nobody's business.
    if let Some(code) = close {
        return End::Close(code);
    }
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Cut,
        Error::Protocol(_) => End::Refused(1002),
        Error::Utf8(_) => End::Refused(1007),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => End::Refused(1009),
        other => panic!("tungstenite: {other}"),
    }
}
