//! Who comes, changes and goes, as a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_std::task;
use futures::stream::FusedStream;
use futures::{FutureExt, StreamExt, select};
use tidewire::frame::Role;
use tidewire::rooms::{Membership, PresenceEvent, PresenceEvents};
use tidewire::websocket::ConnectionId;
use tidewire::{Hub, Room, Sender, WebSocket};

use super::options;
use crate::support::peer::within;
use crate::support::pipe::{End, Knobs, pipe};

/// A connection that nobody serves.
fn connection() -> (WebSocket, End) {
    let (stream, end) = pipe(Knobs::default());
    (WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options()), end)
}

/// `+name`, `=name` or `-name`.
fn shown(event: &PresenceEvent<String>) -> String {
    match event {
        PresenceEvent::Joined(_, name) => format!("+{name}"),
        PresenceEvent::Updated(_, name) => format!("={name}"),
        PresenceEvent::Left(_, name) => format!("-{name}"),
        PresenceEvent::Lagged(missed) => format!("{missed} missed"),
    }
}

#[test]
fn joins_and_leaves_are_told_in_order_to_all_watchers() {
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
fn a_member_that_changes_is_told_in_order_with_joins_and_leaves() {
    within(async {
        let room: Room<String> = Hub::new().room("room");
        let [(one, _one), (other, _other)] = [(); 2].map(|()| connection());
        let watchers = [room.events(), room.events()];
        let mut ann = room.join_with(&one, "ann".into());
        assert!(ann.set("anna".into()));
        let bob = room.join_with(&other, "bob".into());
        assert!(ann.set("hannah".into()));
        let (members, later) = room.watch();
        let names: Vec<_> = members.iter().map(|(_, name)| &***name).collect();
        assert_eq!((names, ann.user().as_str()), (vec!["hannah", "bob"], "hannah"));
        drop(bob);
        // A membership that is over changes nobody.
        let again = room.join_with(&one, "ann again".into());
        assert!(!ann.set("nobody".into()));
        assert_eq!((ann.user().as_str(), again.user().as_str()), ("hannah", "ann again"));
        drop((ann, again, room));
        let after = ["-bob", "-hannah", "+ann again", "-ann again"];
        let before = ["+ann", "=anna", "+bob", "=hannah"];
        for watcher in watchers {
            let events: Vec<_> = watcher.map(|event| shown(&event)).collect().await;
            assert_eq!(events, [before, after].concat());
        }
        let events: Vec<_> = later.map(|event| shown(&event)).collect().await;
        assert_eq!(events, after);
    });
}

#[test]
fn a_stream_of_events_is_fused_for_select() {
    within(async {
        let room: Room = Hub::new().room("room");
        let (ws, _end) = connection();
        let mut events = room.events();
        drop(room.join(&ws));
        drop(room);
        let mut seen = 0;
        loop {
            assert!(!events.is_terminated());
            select! {
                _ = events.select_next_some() => seen += 1,
                complete => break,
            }
        }
        assert_eq!(seen, 2);
        assert!(events.is_terminated());
        assert!(events.next().await.is_none());
    });
}

#[test]
fn an_event_tells_the_connection() {
    within(async {
        let room: Room = Hub::new().room("room");
        let (ws, _end) = connection();
        let mut events = room.events();
        let _member = room.join(Sender::from(&ws));
        let Some(PresenceEvent::Joined(id, _)) = events.next().await else { panic!() };
        assert_eq!(id, ws.id());
    });
}

#[test]
fn a_reader_that_does_not_read_is_told_how_much_it_has_missed_and_holds_no_other_up() {
    within(async {
        let room: Room<String> = Hub::new().room("room");
        let (ws, _end) = connection();
        let (mut slow, mut other) = (room.events(), room.events());
        for number in 0..1000 {
            drop(room.join_with(&ws, number.to_string()));
        }
        let seen = all_there_is(&mut slow);
        assert_eq!(seen.len(), 1 + 256);
        assert_eq!([&*seen[0], &*seen[1], &*seen[256]], ["1744 missed", "+872", "-999"]);
        // A fast one misses nothing, and each its own.
        drop(room.join_with(&ws, "next".into()));
        assert_eq!(shown(&slow.next().await.unwrap()), "+next");
        assert_eq!(shown(&other.next().await.unwrap()), "1746 missed");
        assert_eq!(all_there_is(&mut other).len(), 256);
        // As often as it happens.
        for _ in 0..150 {
            drop(room.join_with(&ws, "again".into()));
        }
        assert_eq!(shown(&slow.next().await.unwrap()), "45 missed");
    });
}

/// What is told now.
fn all_there_is(events: &mut PresenceEvents<String>) -> Vec<String> {
    let told = std::iter::from_fn(|| events.next().now_or_never().flatten());
    told.map(|event| shown(&event)).collect()
}

#[test]
fn the_events_of_watch_go_on_from_the_members_that_it_returns() {
    within(async {
        let room: Room<String> = Hub::new().room("room");
        let [(one, _one), (other, _other)] = [(); 2].map(|()| connection());
        let early = room.join_with(&one, "early".into());
        drop(room.join_with(&other, "gone".into()));
        let (members, mut events) = room.watch();
        assert_eq!(members, [(one.id(), Arc::new("early".to_owned()))]);
        drop(early);
        let _late = room.join_with(&other, "late".into());
        assert_eq!(all_there_is(&mut events), ["-early", "+late"]);
    });
}

#[test]
fn a_reader_that_begins_while_others_come_and_go_misses_no_event_and_sees_none_twice() {
    const COMING: usize = 4;
    const ROUNDS: usize = 300;
    let room: Room<String> = Hub::new().room("room");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let coming: Vec<_> = (0..COMING)
            .map(|number| {
                let (room, is_over) = (&room, &is_over);
                scope.spawn(move || {
                    let (ws, _end) = connection();
                    let mut members: Vec<Membership<_>> = vec![];
                    for round in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        // Leaves, comes, and comes again in place of itself.
                        members.push(room.join_with(&ws, format!("{number} {round}")));
                        if let Some(member) = members.last_mut().filter(|_| round % 2 == 0) {
                            member.set(format!("{number} {round} changed"));
                        }
                        if round % 3 == 0 {
                            members.clear();
                        }
                    }
                    drop(members);
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            let (members, mut events) = room.watch();
            let mut here: BTreeMap<ConnectionId, Arc<String>> = members.into_iter().collect();
            std::thread::yield_now();
            let (after, _events) = room.watch();
            let after: BTreeMap<_, _> = after.into_iter().collect();
            // Each event fits what was known before, until all of them lead to what is known after.
            while here != after {
                match events.next().now_or_never() {
                    Some(Some(PresenceEvent::Joined(id, user))) => {
                        assert_eq!(here.insert(id, user), None, "is told twice");
                    }
                    Some(Some(PresenceEvent::Updated(id, user))) => {
                        let before = here.insert(id, Arc::clone(&user));
                        assert!(before.is_some_and(|before| before != user), "is told twice");
                    }
                    Some(Some(PresenceEvent::Left(id, user))) => {
                        assert_eq!(here.remove(&id), Some(user), "was not told before");
                    }
                    Some(Some(PresenceEvent::Lagged(_))) => break,
                    event => panic!("{event:?} although {here:?} is not {after:?}"),
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for coming in coming {
            coming.join().unwrap();
        }
    });
    assert!(room.is_empty());
}

#[test]
fn a_watcher_does_not_keep_the_room_alive() {
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
fn users_that_only_an_event_holds_may_use_the_room_when_it_is_dropped() {
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
