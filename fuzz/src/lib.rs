//! What the fuzz targets share.
//!
//! | module | holds |
//! | --- | --- |
//! | `choice` | frames and options, chosen by the bytes of an input |
//! | `wire` | frames, written without the crate's own code |
//! | `oracle` | the rules of RFC 6455, written a second time and without care for speed |
//! | `stream` | the test kit's stream in memory, which splits and stalls as the input says |
//! | `drive` | futures, polled when they have been woken, and a connection driven to its end |
//! | `crowd` | many tasks and streams, of which a target says who goes on |
//! | `attempts` | calls that are given up, and what may arrive of them: a file of the tests |
//! | `memory` | how much an input costs at most |
//! | `peer` | tungstenite, as the server and as the client: a file of the tests |
//! | `inflate` | permessage-deflate by miniz |
//! | `compare` | what tungstenite makes of a connection, beside ours |

#[path = "../../tests/it/support/attempts.rs"]
pub mod attempts;
pub mod choice;
pub mod compare;
pub mod crowd;
pub mod drive;
pub mod inflate;
pub mod memory;
pub mod oracle;
pub mod peer;
pub mod stream;
pub mod wire;
