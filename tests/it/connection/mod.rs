//! WebSocket connections as a peer sees them, and as a handler does.
//!
//! | file | shows |
//! | --- | --- |
//! | `wire` | what is sent, in hex, and what comes back |
//! | `deflate` | permessage-deflate |
//! | `cancel` | futures that are dropped at every poll |
//! | `operations` | random calls, cancelled at random, over streams that stall and split |
//! | `quiescence` | random calls, peers, stalls and times: nothing is owed when nothing can go on |
//! | `handler_blocked` | handlers that wait for something else, or give their connection away; outcomes |
//! | `senders` | what is sent, by whichever task |
//! | `pressure` | peers that do not read, or stop in the middle |
//! | `memory` | what a server holds of messages in progress, all together |
//! | `fairness` | peers that never stop |
//! | `stream_end` | the end of a stream that the caller has brought |
//! | `wakes` | tasks that wait for a connection are woken |
//! | `typed` | messages that are values, by a codec |
//! | `timers` | heartbeats, connections that end with time, limits on rates |
//! | `abuse` | hostile clients of a real server |
//! | `interop` | the client of async-tungstenite |
//! | `differential` | the same bytes for us and for async-tungstenite |

mod deflate;
pub(crate) mod wire;

mod cancel;
mod operations;
#[cfg(feature = "testing")]
mod quiescence;

mod fairness;
pub(crate) mod handler_blocked;
#[cfg(feature = "testing")]
mod memory;
pub(crate) mod pressure;
pub(crate) mod senders;
mod stream_end;
mod wakes;

#[cfg(feature = "testing")]
mod timers;
mod typed;

// It has a server in a process of its own.
#[cfg(target_os = "linux")]
mod abuse;

mod differential;
mod interop;
