//! The test kit, as the tests of an application use it.
//!
//! | file | shows |
//! | --- | --- |
//! | `clock` | deadlines that follow a clock which the test turns |
//! | `requests` | HTTP in memory, and that it is the HTTP of a port |
//! | `upgrades` | connections, what is negotiated for them, and refusals |
//! | `peers` | clients that speak bytes and frames, most of them wrong |
//! | `sockets` | what a test expects of a socket, and what it says when something else comes |
//! | `time` | time that the test turns |
//! | `cookies` | cookies of a login, and of several visitors |
//! | `handlers` | handlers that fail, and so fail the test |
//! | `executors` | all of this by whichever executor runs the test |
//! | `lines` | what the network does: splits, stalls, cuts, ends |
//! | `endings` | that nothing is left: permits, places, tasks |
//! | `failures` | what a test says when it fails, and that it does |
//! | `auction`, `board`, `login`, `upload` | the tests that the examples of these names have of themselves |
//! | `tokio` | tests with `#[tokio::test]`, with the feature `tokio` |

#[path = "../../../examples/auction.rs"]
mod auction;
#[path = "../../../examples/board.rs"]
mod board;
mod clock;
mod cookies;
mod endings;
mod executors;
mod failures;
mod handlers;
mod lines;
#[path = "../../../examples/login.rs"]
mod login;
mod peers;
mod requests;
mod sockets;
mod time;
#[cfg(feature = "tokio")]
mod tokio;
mod upgrades;
#[path = "../../../examples/upload.rs"]
mod upload;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use tidewire::testing::TestClient;
use tidewire::upgrade::UpgradeOptions;
use tidewire::{CloseInfo, Error, Message, RequestContext, Server};

use crate::support::peer::within;

/// A timeout that is to pass.
const SOON: Duration = Duration::from_millis(30);

/// How a handler that echoes fared: what `recv` ended with, and the connection.
type Outcome = (Result<Option<Message>, Error>, CloseInfo);

/// A client of a server that echoes at `/ws`.
fn echo(options: impl Into<UpgradeOptions>) -> TestClient {
    let options = options.into();
    observed(options).0
}

/// As [`echo`], and what became of each connection.
fn observed(options: impl Into<UpgradeOptions>) -> (TestClient, UnboundedReceiver<Outcome>) {
    let options = options.into();
    let (tell, told) = unbounded();
    let mut server = Server::new();
    server.get("/ws", move |mut ctx: RequestContext| {
        let (options, tell) = (options.clone(), tell.clone());
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let last = loop {
                match ws.recv().await {
                    // Whether it can be sent shows in what is received next.
                    Ok(Some(message)) => drop(ws.send(message).await),
                    last => break last,
                }
            };
            let _ = tell.unbounded_send((last, ws.closed().await));
            Ok(())
        }
    });
    (TestClient::new(&server), told)
}

async fn next(outcomes: &mut UnboundedReceiver<Outcome>) -> Outcome {
    outcomes.next().await.unwrap()
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 0))
}
