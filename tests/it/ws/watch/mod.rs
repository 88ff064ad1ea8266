//! What a connection is watched for: how long it is open, and how fast it is sent to.
//!
//! | file | shows |
//! | --- | --- |
//! | `lifetime` | idle connections, old ones, and those whose time is set |
//! | `rate_limit` | peers that send too fast |
//! | `stats` | what is counted |

mod lifetime;
mod rate_limit;
mod stats;

use std::time::Duration;

use futures::future::pending;

/// A limit that is meant to be exceeded.
const SOON: Duration = Duration::from_millis(300);

/// Lets time pass in which nobody does anything.
async fn idle(time: Duration) {
    let _ = async_std::future::timeout(time, pending::<()>()).await;
}
