//! The opening handshake of the server (RFC 6455 §4.2), over any stream and on any HTTP library.
//!
//! [`Upgrade`] checks a request that an HTTP library has read. [`accept`] reads the request itself. [`Connections`] are
//! the limits, the counters and the end of connections that have no `Server`.

// All rules of the opening handshake are in `proto/handshake`, and `check` takes every step of it once, for each
// HTTP library: `Upgrade` is the 101 and the connection behind it.
//
// A handler of `Server` or `endpoint` upgrades from the inside: it asks through its `PendingUpgrade`, the
// endpoint answers 101 and moves the handler to a task of its own, and the stream arrives there.
//
// | file | holds |
// | --- | --- |
// | `accept` | the request of a client, read from any stream, and the answer to it |
// | `check` | `Upgrade`: whether a request is an opening handshake, the 101, the connection |
// | `connections` | `Connections`: the upgrades and connections of a program without a `Server` |
// | `pending` | an upgrade under way: what handler and endpoint tell each other |
// | `scope` | the life of the tasks that a handler spawns |
// | `task` | the handler's task: from the 101 to the end of the connection |
// | `transport` | the stream below, on its way from the HTTP server to that task |

mod accept;
mod check;
mod connections;
#[cfg(feature = "server")]
mod pending;
#[cfg(feature = "server")]
mod scope;
#[cfg(feature = "server")]
mod task;
#[cfg(feature = "server")]
mod transport;

pub use self::accept::{UpgradeRequest, accept};
#[cfg(feature = "server")]
pub(crate) use self::check::Field;
pub use self::check::Upgrade;
#[cfg(feature = "server")]
pub(crate) use self::check::kept_path;
pub use self::connections::{Admitted, Connections};
#[cfg(feature = "server")]
pub(crate) use self::pending::{Abandon, PendingUpgrade};
#[cfg(feature = "server")]
pub(crate) use self::scope::Requested;
#[cfg(feature = "server")]
pub(crate) use self::task::{Switched, start};
#[cfg(feature = "server")]
pub(crate) use self::transport::{AnswerLog, Early, OnUpgrade, Origin, Transport, Upgraded};
pub use crate::instance::{Metrics, ShutdownOptions, ShutdownReport, WorkerMetrics};
pub use crate::options::UpgradeOptions;
