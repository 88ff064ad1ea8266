//! What the load generator and the peers share.
//!
//! The programs are in `bin/`: `load` measures, every other one is an echo server that takes its
//! address as first argument. How they are run, and what is compared, says `../README.md`.

#![expect(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "programs for one machine: a failure ends the run and says where"
)]

pub mod client;
pub mod server;
pub mod wire;
