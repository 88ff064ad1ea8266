//! The turn of a handler that broadcasts: a message for many members uses up more of it than one for few.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use futures::FutureExt;
use futures::io::AsyncWriteExt;
use tidewire::frame::Role;
use tidewire::{Error, Room, WebSocket};

use super::{options, room};
use crate::support::frames::{BINARY, TEXT, masked};
use crate::support::peer::{Drive, collect, echo};
use crate::support::pipe::{End, Knobs, pipe};

/// A connection whose handler runs when the test polls it.
struct Connection {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    end: End,
}

impl Connection {
    fn of<F, Fut>(drive: Drive, handler: F) -> Self
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = tidewire::Result<()>> + Send + 'static,
    {
        let (stream, end) = pipe(Knobs::default());
        let task = match drive {
            Drive::Task => WebSocket::run(stream, [].as_slice(), Role::Server, &options(), handler),
            Drive::Caller => {
                let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options());
                handler(ws).map(drop).boxed()
            }
        };
        let mut connection = Self { task, end };
        connection.poll();
        connection
    }

    fn poll(&mut self) {
        assert!(self.task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    fn say(&mut self, frame: &[u8]) {
        self.end.write_all(frame).now_or_never().unwrap().unwrap();
    }
}

/// Stays in the room, and says nothing.
fn member(room: &Room) -> Connection {
    let room = room.clone();
    Connection::of(Drive::Task, |mut ws| async move {
        let _member = room.join(&ws);
        collect(&mut ws).await.1
    })
}

/// Passes on to the room what its peer says.
fn speaker(drive: Drive, room: &Room) -> Connection {
    let room = room.clone();
    Connection::of(drive, |mut ws| async move {
        while let Some(message) = ws.recv().await? {
            room.broadcast(message);
        }
        Ok::<_, Error>(())
    })
}

/// The most messages that one poll of the speaker broadcasts when its peer has sent many at once. Checks that
/// none of them is lost.
fn most_in_one_turn(drive: Drive, members: usize, frame: &[u8], messages: u64) -> u64 {
    let room = room();
    let members: Vec<_> = (0..members).map(|_| member(&room)).collect();
    let (mut speaker, mut other) = (speaker(drive, &room), Connection::of(Drive::Task, echo));
    speaker.say(&frame.repeat(usize::try_from(messages).unwrap()));
    let (mut said, mut most, mut turns) = (0, 0, 0_u8);
    while said < messages {
        speaker.poll();
        let now = room.stats().messages;
        most = most.max(now - said);
        said = now;
        // The other connection of this thread goes on in between.
        turns += 1;
        other.say(&masked(TEXT, [b'0' + turns % 10]));
        other.poll();
        assert_eq!(other.end.arrived(), 3 * usize::from(turns), "after {said} messages");
    }
    let stats = room.stats();
    assert_eq!(stats.members.queued, messages * u64::try_from(members.len()).unwrap());
    most
}

#[test]
fn others_are_polled_after_a_bounded_number_of_deliveries_of_a_member_that_never_stops() {
    // A turn is 64 messages, and 160 Ki deliveries.
    let frame = masked(TEXT, "Hello");
    for drive in Drive::BOTH {
        for (members, most) in [(10, 64), (2_000, 64), (3_000, 55), (5_000, 33)] {
            let found = most_in_one_turn(drive, members, &frame, 64);
            assert_eq!(found, most, "{drive:?}, {members} members");
        }
    }
}

#[test]
fn long_messages_for_many_use_a_turn_up_sooner() {
    // A KiB counts as much as a delivery.
    let frame = masked(BINARY, vec![7; 16 << 10]);
    assert_eq!(most_in_one_turn(Drive::Task, 600, &frame, 40), 17);
}
