//! WebSocket as a peer sees it, and as a handler does.
//!
//! | file | shows |
//! | --- | --- |
//! | `handshake` | the opening handshake, as bytes |
//! | `accept` | the same without the server |
//! | `upgrade` | the upgrade as a handler sees it, and what else it may do with a request |
//! | `limits` | limits on open connections: who waits, who is refused, when a permit is free again |
//! | `subprotocols` | which subprotocol is agreed on |
//! | `wire` | what is sent, in hex, and what comes back |
//! | `musts` | which test covers which MUST of RFC 6455 |
//! | `cancel` | futures that are dropped at every poll |
//! | `operations` | random calls, cancelled at random, over streams that stall and split |
//! | `quiescence` | random calls, peers, stalls and times: nothing is owed when nothing can go on |
//! | `busy` | handlers that wait for something else, or give their connection away; outcomes |
//! | `senders` | what is sent, by whichever task |
//! | `pressure` | peers that do not read, or stop in the middle |
//! | `memory` | what a server holds of messages in progress, all together |
//! | `rooms` | what is broadcast, and to whom |
//! | `endless` | peers that never stop |
//! | `ends` | the end of a stream that the caller has brought |
//! | `abuse` | hostile clients of a real server |
//! | `quiet` | what is logged of clients, and how loud |
//! | `lifecycle` | a server from its first connection to its last |
//! | `watch` | heartbeats, connections that end with time, limits on rates |
//! | `interop` | the client of async-tungstenite |
//! | `differential` | the same bytes for us and for async-tungstenite |
//! | `bridge` | connections that are handed over to async-tungstenite, and taken over from it |

mod accept;
mod handshake;
mod limits;
mod subprotocols;
mod upgrade;

mod deflate;
mod wire;

mod cancel;

mod operations;

#[cfg(feature = "testing")]
mod quiescence;

mod busy;
mod endless;
mod ends;
#[cfg(feature = "testing")]
mod memory;
mod pressure;
mod senders;

mod rooms;

// They have servers in processes of their own.
#[cfg(target_os = "linux")]
mod abuse;
#[cfg(target_os = "linux")]
mod quiet;

mod lifecycle;

mod wakes;
#[cfg(feature = "testing")]
mod watch;

mod differential;
mod interop;

#[cfg(feature = "tungstenite")]
mod bridge;

mod musts;
