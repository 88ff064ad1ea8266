//! Rooms that do not wait for each other.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use tidewire::frame::Role;
use tidewire::{Hub, Room, WebSocket};

use super::options;
use crate::support::peer::WITHIN;
use crate::support::pipe::{End, Knobs, pipe};

/// Whoever wakes it is held up until it is told to go on.
struct Holdup {
    entered: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Wake for Holdup {
    fn wake(self: Arc<Self>) {
        let _ = self.entered.send(());
        let _ = self.go_on.lock().unwrap().recv_timeout(WITHIN);
    }
}

/// A member of a room that waits in `recv`, and is woken like this.
fn wait_in(room: &Room, waker: &Waker) -> (WebSocket, End, tidewire::rooms::Membership) {
    let (stream, end) = pipe(Knobs::default());
    let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options());
    let member = room.join(&ws);
    let polled = Box::pin(ws.recv()).as_mut().poll(&mut Context::from_waker(waker));
    assert!(polled.is_pending());
    (ws, end, member)
}

#[test]
fn eight_rooms_are_broadcast_into_while_each_other_is() {
    let hub = Hub::new();
    let rooms: Vec<Room> = (0..8).map(|number| hub.room(&format!("room {number}"))).collect();
    let (entered, has_entered) = channel();
    let (let_go, go_on) = channel();
    let held_up = Waker::from(Arc::new(Holdup { entered, go_on: Mutex::new(go_on) }));
    let members: Vec<_> = rooms
        .iter()
        .enumerate()
        .map(|(number, room)| wait_in(room, if number == 0 { &held_up } else { Waker::noop() }))
        .collect();

    let first = rooms[0].clone();
    let broadcasting = thread::spawn(move || first.broadcast("held up"));
    has_entered.recv_timeout(WITHIN).expect("the first is in the middle of its broadcast");

    // The others go on all the same, and new rooms are made.
    let (tell, told) = channel();
    for room in rooms[1..].iter().cloned().chain([hub.room("a new one")]) {
        let tell = tell.clone();
        thread::spawn(move || tell.send(room.broadcast("on time").queued));
    }
    let mut queued: Vec<_> =
        (0..8).map(|_| told.recv_timeout(WITHIN).expect("no room waits for another")).collect();
    queued.sort_unstable();
    assert_eq!(queued, [0, 1, 1, 1, 1, 1, 1, 1]);
    assert!(!broadcasting.is_finished());

    let_go.send(()).unwrap();
    assert_eq!(broadcasting.join().unwrap().queued, 1);
    drop(members);
}
