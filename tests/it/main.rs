//! The crate from outside: what a peer sees, and what a handler sees. The folders mirror those of `src/`.
//!
//! | module | shows |
//! | --- | --- |
//! | `accept` | the server's opening handshake without the server |
//! | `admission` | limits on open connections: who waits, who is refused, when a permit is free again |
//! | `client` | the client, against this crate's server and against servers written by hand |
//! | `connection` | WebSocket connections: the wire in hex, cancellation, pressure, timers, abuse |
//! | `http` | HTTP as a client sees it |
//! | `rooms` | what is broadcast, and to whom |
//! | `server` | a server from its first connection to its last |
//! | `testing` | the test kit |
//! | `tls` | TLS on real sockets |
//! | `tungstenite` | connections that are handed over to async-tungstenite, and taken over from it |
//! | `upgrade` | the opening handshake of a server, as bytes and as a handler sees it |
//!
//! These are about more than one folder of `src/`:
//!
//! | module | shows |
//! | --- | --- |
//! | `executors` | executors that an application brings |
//! | `faults` | faults on real sockets, after which nothing is left |
//! | `guide` | that the documentation names files and tests that are there |
//! | `log_levels` | what is logged of clients, and how loud |
//! | `panics` | panics of an application |
//! | `ported` | the examples of the systems that tidewire stands on |
//! | `records` | what is logged of failures and refusals, and the access log |
//! | `rfc_musts` | which test covers which MUST of RFC 6455 |
//!
//! `support` is no test, but what all of them share.

/// Counts what is allocated, for tests that look for leaks.
#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

// `cfg(test)` tells clippy that the helpers are tests, too.
#[cfg(test)]
mod support;

#[cfg(test)]
mod accept;

#[cfg(test)]
mod admission;

#[cfg(feature = "client")]
#[cfg(test)]
mod client;

#[cfg(test)]
mod connection;

#[cfg(test)]
mod executors;

// It reads `/proc`.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod faults;

#[cfg(test)]
mod guide;

#[cfg(test)]
mod http;

// It has servers in processes of their own.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod log_levels;

#[cfg(test)]
mod panics;

#[cfg(test)]
mod ported;

// It has servers in processes of their own.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod records;

#[cfg(test)]
mod rfc_musts;

#[cfg(test)]
mod rooms;

#[cfg(test)]
mod server;

#[cfg(feature = "testing")]
#[cfg(test)]
mod testing;

#[cfg(feature = "tls")]
#[cfg(test)]
mod tls;

#[cfg(feature = "tungstenite")]
#[cfg(test)]
mod tungstenite;

#[cfg(test)]
mod upgrade;
