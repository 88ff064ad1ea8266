//! Panics of an application in its handlers, and in what they return and hold: each ends its own connection,
//! with 1011, and nothing else.
//!
//! | file | shows |
//! | --- | --- |
//! | `handlers` | what a peer sees, and what others see beside it |
//! | `program` | what a process survives: loggers, shutdowns, threads that end |

mod handlers;
mod program;

use std::fmt;

use tide::Response;
use tidewire::server::IntoResponse;

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bomb")
    }
}

impl std::error::Error for Bomb {}

impl IntoResponse for Bomb {
    fn into_response(self, prepared: Response) -> Response {
        prepared
    }
}

/// Panics when it is written, and when it is dropped.
#[derive(Debug)]
struct Unspeakable(Bomb);

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in a Display");
    }
}

impl std::error::Error for Unspeakable {}
