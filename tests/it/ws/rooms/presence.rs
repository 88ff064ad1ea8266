//! Who comes and goes, as a stream.

use async_std::task;
use futures::{FutureExt, StreamExt};
use tidewire::{Hub, Membership, Presence, Role, Room, Sender, WebSocket};

use super::options;
use crate::ws::peer::within;
use crate::ws::pipe::{End, Knobs, pipe};

/// A connection that nobody serves.
fn connection() -> (WebSocket, End) {
    let (stream, end) = pipe(Knobs::default());
    (WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options()), end)
}

/// `+name` or `-name`.
fn shown(event: &Presence<String>) -> String {
    match event {
        Presence::Joined(_, name) => format!("+{name}"),
        Presence::Left(_, name) => format!("-{name}"),
        _ => unreachable!(),
    }
}

#[test]
fn comings_and_goings_are_told_in_their_order_to_all_who_watch() {
    within(async {
        let room: Room<String> = Hub::new().room("room");
        let (one, _end) = connection();
        let (other, _end) = connection();
        let early = room.join_with(&one, "early".into());
        let watchers = [room.events(), room.events()];
        let member = room.join_with(&other, "ann".into());
        drop(early);
        let again = room.join_with(&other, "ann again".into());
        drop(member);
        drop(again);
        drop(room);
        for watcher in watchers {
            let events: Vec<_> = watcher.map(|event| shown(&event)).collect().await;
            assert_eq!(events, ["+ann", "-early", "-ann", "+ann again", "-ann again"]);
        }
    });
}

#[test]
fn an_event_tells_the_connection() {
    within(async {
        let room: Room = Hub::new().room("room");
        let (ws, _end) = connection();
        let mut events = room.events();
        let _member = room.join(Sender::from(&ws));
        let Some(Presence::Joined(id, _)) = events.next().await else { panic!() };
        assert_eq!(id, ws.id());
    });
}

#[test]
fn who_watches_and_does_not_look_is_told_the_latest_and_holds_nobody_up() {
    within(async {
        let room: Room<String> = Hub::new().room("room");
        let (ws, _end) = connection();
        let mut slow = room.events();
        for number in 0..1000 {
            drop(room.join_with(&ws, number.to_string()));
        }
        let mut seen = vec![];
        while let Some(Some(event)) = slow.next().now_or_never() {
            seen.push(shown(&event));
        }
        assert_eq!(seen.len(), 256);
        assert_eq!((&*seen[0], &*seen[255]), ("+872", "-999"));
        drop(room.join_with(&ws, "next".into()));
        assert_eq!(shown(&slow.next().await.unwrap()), "+next");
    });
}

#[test]
fn who_only_watches_does_not_keep_the_room() {
    within(async {
        let hub: Hub<String> = Hub::new();
        let mut events = hub.room("room").events();
        assert!(hub.find("room").is_none());
        assert!(events.next().await.is_none());
        // Another room of the same name is another one.
        let (ws, _end) = connection();
        let _member = hub.room("room").join_with(&ws, "ann".into());
        assert!(events.next().await.is_none());
    });
}

/// A user who has brought a friend, who leaves when it is dropped.
struct Host {
    _friend: Option<Membership<Self>>,
}

#[test]
fn users_whom_only_an_event_has_left_may_use_the_room_when_it_is_dropped() {
    within(async {
        // In a thread of its own, so that one that stops there does not stop the test.
        let done = task::spawn_blocking(|| {
            let room: Room<Host> = Hub::new().room("room");
            let [(one, _one), (other, _other)] = [(); 2].map(|()| connection());
            let events = room.events();
            let friend = room.join_with(&one, Host { _friend: None });
            drop(room.join_with(&other, Host { _friend: Some(friend) }));
            assert_eq!(room.len(), 1);
            drop(events);
            room.len()
        });
        assert_eq!(done.await, 0);
    });
}
