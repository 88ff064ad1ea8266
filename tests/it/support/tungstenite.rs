//! Tungstenite, as the server or the client that reads the bytes which ours reads or writes.
//!
//! The fuzz targets include this file.

use std::io::{self, Cursor, Read, Write};

use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Message, WebSocket};

/// What one side hears of some bytes.
#[derive(Debug, Eq, PartialEq)]
pub struct Heard {
    pub messages: Vec<tidewire::Message>,
    pub end: Ended,
}

/// How the bytes end for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The stream ends, and no close frame has come.
    Cut,
    /// A close frame, with its code if it had one.
    Closed(Option<u16>),
    /// A violation, by the code that belongs to it.
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

/// Has tungstenite read these bytes at the side `role`, with limits on the bytes of a message and of a frame.
pub fn hear(bytes: &[u8], role: Role, message: usize, frame: usize) -> Heard {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(message))
        .max_frame_size(Some(frame));
    let mut socket = WebSocket::from_raw_socket(Bytes(Cursor::new(bytes)), role, Some(config));
    let (mut messages, mut closed) = (Vec::new(), None);
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => messages.push(text.as_str().into()),
            Ok(Message::Binary(payload)) => messages.push(payload.into()),
            Ok(Message::Close(frame)) => {
                closed.get_or_insert(Ended::Closed(frame.map(|frame| frame.code.into())));
            }
            Ok(_) => {}
            // What follows a close frame is nobody's business.
            Err(error) => break closed.unwrap_or_else(|| ended_by(&error)),
        }
    };
    Heard { messages, end }
}

fn ended_by(error: &Error) -> Ended {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Cut,
        Error::Protocol(_) => Ended::Refused(1002),
        Error::Utf8(_) => Ended::Refused(1007),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Ended::Refused(1009),
        other => panic!("tungstenite: {other}"),
    }
}
