//! Tungstenite, as the server and as the client of the bytes that ours reads and writes.

use async_tungstenite::tungstenite::protocol::Role;

pub use self::tungstenite::Ended;
use crate::drive;
use crate::oracle::{Limits, Message};

#[path = "../../tests/it/support/tungstenite.rs"]
mod tungstenite;

/// What tungstenite makes of some bytes.
#[derive(Debug)]
pub struct Heard {
    pub messages: Vec<Message>,
    pub end: Ended,
}

/// Has tungstenite read these bytes at the side `role`.
pub fn hear(bytes: &[u8], role: Role, limits: &Limits) -> Heard {
    let Limits { message, frame, .. } = *limits;
    let tungstenite::Heard { messages, end } = tungstenite::hear(bytes, role, message, frame);
    Heard { messages: messages.iter().map(drive::heard).collect(), end }
}

/// What tungstenite makes of a close code that may travel: 1014 was registered (§11.7) after it drew
/// its list, and is a violation to it.
pub fn known(code: Option<u16>) -> Option<u16> {
    code.map(|code| if code == 1014 { 1002 } else { code })
}
