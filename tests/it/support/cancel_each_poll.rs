//! Calls that are abandoned after 0, 1, 2 … polls.

use std::future::Future;

use futures::channel::oneshot;
use futures::future::join;
use tidewire::frame::Role;
use tidewire::{Result, WebSocket, WebSocketOptions};

use super::peer::{Drive, Peer, drive, within};
use super::pipe::{Knobs, Stutter, pipe};

/// One byte at a time, and not each time it is asked.
pub(crate) const TRICKLE: Knobs =
    Knobs { read: 1, write: 1, in_flight: 16, stutter: Stutter::Steady };

/// More polls than any call of these tests needs.
const ENOUGH: usize = 5_000;

/// Calls `$call`, abandons it after `$polls` polls, and calls it again; with its output comes
/// whether the first call was enough.
macro_rules! insist {
    ($polls:expr, $call:expr) => {
        match $crate::support::attempts::patience($polls, $call).await {
            Some(output) => (output, true),
            None => ($call.await, false),
        }
    };
}

pub(crate) use insist;

/// [`insist!`] on `$call` until it gives nothing more; with all it gave comes whether the first calls
/// were enough.
macro_rules! insist_on_all {
    ($polls:expr, $call:expr) => {{
        let (mut all, mut was_enough) = (vec![], true);
        loop {
            let (next, at_once) = $crate::support::cancel_each_poll::insist!($polls, $call);
            was_enough &= at_once;
            let Some(next) = next? else { break (all, was_enough) };
            all.push(next);
        }
    }};
}

pub(crate) use insist_on_all;

/// Runs `handler` over streams of this kind with each number of polls after which it abandons a
/// call, until it says that it abandoned none.
pub(crate) fn each_number_of_polls<H, HF, P, PF, T>(
    knobs: Knobs,
    options: &WebSocketOptions,
    handler: H,
    peer: P,
    check: impl Fn(bool, T),
) where
    H: Fn(usize, WebSocket) -> HF,
    HF: Future<Output = Result<bool>> + Send + 'static,
    P: Fn(Peer) -> PF,
    PF: Future<Output = T>,
{
    // Little room, so that what is sent waits.
    let options = options.clone().send_buffer_size(16);
    for by in Drive::BOTH {
        for polls in 0.. {
            assert!(polls < ENOUGH, "{by:?}: the call never completes");
            let (stream, end) = pipe(knobs);
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &options, |ws| {
                let outcome = handler(polls, ws);
                async move {
                    let _ = tell.send(outcome.await);
                    Ok(())
                }
            });
            eprintln!("{by:?}, {polls} polls");
            let (told, seen) = within(join(told, peer(Peer { end })));
            let has_completed = told.expect("the handler ends").expect("the handler succeeds");
            check(has_completed, seen);
            if has_completed {
                break;
            }
        }
    }
}
