//! One running server, or a program with an HTTP server of its own: the state that its connections share.
//!
//! | file | holds |
//! | --- | --- |
//! | `server` | the whole of a running server |
//! | `tasks` | the tasks that serve its connections |
//! | `sockets` | its WebSocket connections, what they share, and their end |
//! | `idle` | its HTTP connections that wait for a request |
//! | `ending` | the end of all WebSocket connections |
//! | `busy` | whether any of them can go on, for a test that waits until none can |
//! | `counters` | counters since it was bound |
//! | `metrics` | a snapshot of all counters |
//! | `failures` | failures of handlers, for the test that watches it |
//!
//! `server/` creates it and shuts it down. Each request carries it to its handler.

#[cfg(feature = "testing")]
mod busy;
#[cfg(feature = "server")]
mod counters;
mod ending;
#[cfg(feature = "testing")]
mod failures;
#[cfg(feature = "server")]
mod idle;
mod metrics;
#[cfg(feature = "server")]
mod server;
mod sockets;
#[cfg(feature = "server")]
mod tasks;

#[cfg(feature = "server")]
pub(crate) use self::counters::{Counters, OpenHttp};
pub(crate) use self::ending::close_all;
pub use self::ending::{ShutdownOptions, ShutdownReport};
#[cfg(feature = "testing")]
pub(crate) use self::failures::Failures;
#[cfg(feature = "testing")]
pub use self::failures::HandlerFailure;
#[cfg(feature = "server")]
pub(crate) use self::idle::{IdleConnections, Lease};
pub use self::metrics::{Metrics, WorkerMetrics};
#[cfg(feature = "server")]
pub(crate) use self::server::Instance;
pub(crate) use self::sockets::{OpenSocket, Sockets};
#[cfg(feature = "server")]
pub(crate) use self::tasks::Tasks;
