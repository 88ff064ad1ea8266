//! Rooms, as their members see them and as a peer does.
//!
//! | file | shows |
//! | --- | --- |
//! | `joining` | who is in a room, and for how long |
//! | `state` | the state of a room, its changes and its end |
//! | `closing` | members whose connection is closed by others |
//! | `order` | what arrives before what, whoever sends it |
//! | `independence` | rooms that do not wait for each other |
//! | `slow` | members that do not keep up: bounds, policies, counters |
//! | `deflate` | messages that are compressed once for many |
//! | `history` | members that come back, and what they have missed |
//! | `presence` | who comes, changes and goes, as a stream |
//! | `backplane` | rooms that span hubs |
//! | `writing` | who writes, and what becomes of members that cannot be written to |
//! | `turns` | members that never stop speaking, and the others on their thread |
//! | `reentry` | users, wakers and backplanes that use the hub while it uses them |
//! | `servers` | a hub behind real servers, and clients that do not read |

mod backplane;
mod closing;
mod deflate;
mod history;
mod independence;
mod joining;
mod order;
mod presence;
mod reentry;
mod servers;
mod slow;
mod state;
mod turns;
mod writing;

use futures::channel::oneshot;
use tidewire::{Hub, Room, Sender, WebSocketOptions};

use crate::support::peer::{Peer, collect, serve_over};
use crate::support::pipe::{Knobs, Stutter};

/// A stream whose peer has so many bytes on their way to it, until it reads.
const fn narrow(in_flight: usize) -> Knobs {
    Knobs { read: usize::MAX, write: usize::MAX, in_flight, stutter: Stutter::Never }
}

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

/// A room of a hub of its own.
fn room() -> Room {
    Hub::new().room("room")
}

/// So many bytes wait for the peer to read them.
async fn until_arrived(peer: &Peer, len: usize) {
    while peer.end.arrived() < len {
        async_std::task::yield_now().await;
    }
}

/// A peer that is in the room for as long as its connection is open.
async fn enter(room: &Room, knobs: Knobs, options: &WebSocketOptions) -> (Peer, Sender) {
    let (tell, told) = oneshot::channel();
    let room = room.clone();
    let peer = serve_over(knobs, options, |mut ws| async move {
        let _member = room.join(&ws);
        let _ = tell.send(ws.sender());
        collect(&mut ws).await.1
    });
    (peer, told.await.unwrap())
}
