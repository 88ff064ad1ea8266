//! What the tests share. None of it is a test, but for one of the frames that are made here.
//!
//! | file | offers |
//! | --- | --- |
//! | `frames` | frames written and read without the crate's own code; the transcript of one side |
//! | `pipe` | a stream in memory, as slow and narrow as a test wants it, that can be cut |
//! | `peer` | the other side of a connection over such a stream, byte by byte; `within`, the most that a test may take |
//! | `attempts` | calls that are given up, and what may arrive of them |
//! | `cancel_each_poll` | calls that are given up after 0, 1, 2 … polls |
//! | `deflate` | the peer's side of permessage-deflate |
//! | `tungstenite` | what tungstenite hears of some bytes, as a second opinion |
//! | `rng` | random numbers that a seed repeats |
//! | `log_sink` | what a process has logged, by `tracing` or by `log` |
//! | `tcp` | a blocking client of a real server, and waiting for what the server does on its own |
//! | `separate_process` | a program in a process of its own: this test binary again, for one test |
//! | `server_process` | a server in such a process, whose memory, CPU time and descriptors are counted |

#[expect(unreachable_pub, reason = "the fuzz targets include it, and their own programs use it")]
pub(crate) mod attempts;
pub(crate) mod cancel_each_poll;
pub(crate) mod deflate;
pub(crate) mod frames;
pub(crate) mod log_sink;
pub(crate) mod peer;
pub(crate) mod pipe;
pub(crate) mod rng;
pub(crate) mod separate_process;
// It reads `/proc`.
#[cfg(target_os = "linux")]
pub(crate) mod server_process;
pub(crate) mod tcp;
#[expect(unreachable_pub, reason = "the fuzz targets include it, and their own programs use it")]
pub(crate) mod tungstenite;
