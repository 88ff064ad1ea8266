//! permessage-deflate, as a peer sees it and as a handler does ([RFC 7692]).
//!
//! | file | shows |
//! | --- | --- |
//! | `negotiation` | the opening handshake: offers, answers, and that both sides keep to them |
//! | `budget` | memory for context takeover that connections share |
//! | `wire` | what is sent and received, in hex: the examples of §7.2.3, and what may come between |
//! | `violations` | what fails the connection, and how both sides learn of it |
//! | `corruption` | messages with a bit, or more, changed |
//! | `bombs` | short messages that become very long ones, and what they cost |
//! | `sending` | which messages are compressed, and what is counted |
//! | `senders` | messages of many tasks |
//! | `frames` | messages by their frames, received and sent |
//! | `cancel` | futures that are dropped at every poll |
//! | `turns` | long messages beside other tasks |
//! | `roundtrip` | random messages under random parameters |
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

mod budget;
mod negotiation;

mod corruption;
mod violations;
mod wire;

// It reads `/proc`.
#[cfg(target_os = "linux")]
mod bombs;

mod frames;
mod senders;
mod sending;

mod cancel;
mod turns;

mod roundtrip;
