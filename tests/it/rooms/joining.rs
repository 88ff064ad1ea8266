//! Who is in a room, and for how long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_std::task;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::pending;
use tidewire::frame::Role;
use tidewire::rooms::PresenceEvent;
use tidewire::{Error, Hub, Room, WebSocket};

use super::{enter, options, room};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, serve, within};
use crate::support::pipe::{Knobs, pipe};

#[test]
fn all_members_of_a_room_are_sent_a_broadcast() {
    within(async {
        let room = room();
        let (mut one, _) = enter(&room, Knobs::default(), &options()).await;
        let (mut other, _) = enter(&room, Knobs::default(), &options()).await;
        let broadcast = room.broadcast("Hello");
        assert_eq!((broadcast.queued, broadcast.dropped, broadcast.closed), (2, 0, 0));
        for peer in [&mut one, &mut other] {
            peer.expect_hex("81 05 48656c6c6f").await;
        }
        room.broadcast(vec![1, 2]);
        for peer in [&mut one, &mut other] {
            peer.expect_hex("82 02 0102").await;
        }
    });
}

#[test]
fn a_broadcast_leaves_out_the_named_member_and_a_message_for_one_reaches_no_other() {
    within(async {
        let room = room();
        let (mut one, id) = enter(&room, Knobs::default(), &options()).await;
        let (mut other, _) = enter(&room, Knobs::default(), &options()).await;
        let id = id.id();
        assert_eq!(room.broadcast_except(id, "not you").queued, 1);
        assert!(room.send_to(id, "only you"));
        room.broadcast("both");
        one.expect([plain(TEXT, "only you"), plain(TEXT, "both")].concat()).await;
        other.expect([plain(TEXT, "not you"), plain(TEXT, "both")].concat()).await;
        let (_peer, stranger) = enter(&super::room(), Knobs::default(), &options()).await;
        assert!(!room.send_to(stranger.id(), "nobody"));
    });
}

#[test]
fn rooms_are_told_apart_and_a_connection_may_be_in_several() {
    within(async {
        let hub = Hub::<()>::new();
        let rooms = ["a", "b", "c"].map(|name| hub.room(name));
        let [a, b, c] = rooms.clone();
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            let members = (a.join(&ws), b.join(&ws));
            let _ = tell.send(());
            let _ = ws.recv().await?;
            drop(members.0);
            ws.send("left a").await?;
            collect(&mut ws).await.1
        });
        told.await.unwrap();
        let broadcast = || rooms.each_ref().map(|room| room.broadcast(room.name()).queued);
        assert_eq!(broadcast(), [1, 1, 0]);
        peer.expect([plain(TEXT, "a"), plain(TEXT, "b")].concat()).await;
        peer.send(masked(TEXT, "go")).await;
        peer.expect(plain(TEXT, "left a")).await;
        assert_eq!(broadcast(), [0, 1, 0]);
        peer.expect(plain(TEXT, "b")).await;
        assert!(c.is_empty());
        let named: Vec<_> = hub.rooms().iter().map(|room| room.name().to_owned()).collect();
        assert_eq!(named, ["b"], "those that somebody is in");
    });
}

#[test]
fn a_room_lasts_as_long_as_a_handle_or_a_member() {
    within(async {
        let hub = Hub::<()>::new();
        assert!(hub.find("room").is_none());
        let held = hub.room("room");
        assert!(hub.find("room").is_some());
        let (mut peer, _) = enter(&held, Knobs::default(), &options()).await;
        let mut events = held.events();
        drop(held);
        assert_eq!(hub.find("room").unwrap().broadcast("still here").queued, 1);
        peer.expect(plain(TEXT, "still here")).await;
        drop(peer);
        assert!(matches!(events.next().await, Some(PresenceEvent::Left(..))));
        assert!(events.next().await.is_none());
        assert!(hub.find("room").is_none());
        assert_eq!(format!("{hub:?}"), "Hub { rooms: 0, .. }");
    });
}

#[derive(Clone, Copy, Debug)]
enum End {
    HandlerReturns,
    HandlerFails,
    HandlerPanics,
    TaskIsDropped,
    PeerCloses,
    PeerResets,
}

#[test]
fn a_connection_leaves_after_every_end() {
    use End::{HandlerFails, HandlerPanics, HandlerReturns, PeerCloses, PeerResets, TaskIsDropped};
    for end in [HandlerReturns, HandlerFails, HandlerPanics, TaskIsDropped, PeerCloses, PeerResets]
    {
        eprintln!("{end:?}");
        within(async {
            let room = room();
            let mut events = room.events();
            let (go, gone) = oneshot::channel::<()>();
            let inside = room.clone();
            let (stream, other_end) = pipe(Knobs::default());
            let task = drive(Drive::Task, stream, Role::Server, &options(), |mut ws| async move {
                let _member = inside.join(&ws);
                if let HandlerReturns | HandlerFails | HandlerPanics = end {
                    gone.await.unwrap();
                }
                match end {
                    HandlerReturns => Ok(()),
                    HandlerFails => Err(Error::Closed),
                    HandlerPanics => panic!("as it should"),
                    TaskIsDropped => pending().await,
                    PeerCloses | PeerResets => collect(&mut ws).await.1,
                }
            });
            assert!(matches!(events.next().await, Some(PresenceEvent::Joined(..))));
            let mut peer = Peer { end: other_end };
            match end {
                HandlerReturns | HandlerFails | HandlerPanics => go.send(()).unwrap(),
                TaskIsDropped => drop(task.cancel().await),
                PeerCloses => peer.send(masked(CLOSE, close(1000, ""))).await,
                PeerResets => peer.end.reset(),
            }
            assert!(matches!(events.next().await, Some(PresenceEvent::Left(..))));
            assert!(room.is_empty());
            assert_eq!(room.broadcast("nobody").queued, 0);
        });
    }
}

#[test]
fn a_connection_that_joins_again_is_one_member_and_its_latest_membership_counts() {
    within(async {
        let room: Room<u32> = Hub::new().room("room");
        let mut peer = serve(&options(), {
            let room = room.clone();
            |ws| async move {
                let first = room.join_with(&ws, 1);
                room.broadcast("once");
                let second = room.join_with(&ws, 2);
                assert_eq!((room.len(), *room.members()[0].1), (1, 2));
                room.broadcast("twice");
                assert_eq!((first.stats().queued, second.stats().queued), (0, 1));
                drop(first);
                room.broadcast("still in");
                drop(second);
                room.broadcast("not any more");
                Ok(())
            }
        });
        peer.expect(["once", "twice", "still in"].map(|text| plain(TEXT, text)).concat()).await;
        peer.expect(plain(CLOSE, close(1000, ""))).await;
        assert_eq!(room.stats().members.queued, 3);
    });
}

#[test]
fn members_are_listed_with_their_presence_data() {
    within(async {
        let room: Room<&str> = Hub::new().room("room");
        let mut peers = vec![];
        for name in ["ann", "bob"] {
            let (tell, told) = oneshot::channel();
            let room = room.clone();
            peers.push(serve(&options(), |mut ws| async move {
                let member = room.join_with(&ws, name);
                assert_eq!((member.id(), **member.user()), (ws.id(), name));
                assert_eq!(member.room().name(), "room");
                tell.send(()).unwrap();
                collect(&mut ws).await.1
            }));
            told.await.unwrap();
        }
        let members = room.members();
        assert_eq!(members.iter().map(|(_, name)| **name).collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(members[0].0 < members[1].0, "in the order in which they were opened");
        assert_eq!(members[0].0.to_string(), u64::from(members[0].0).to_string());
    });
}

/// A user who looks at the room when it is dropped, as somebody does who says good-bye.
struct Leaver {
    room: Mutex<Option<Room<Self>>>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Leaver {
    fn drop(&mut self) {
        if let Some(room) = self.room.get_mut().unwrap().take() {
            room.broadcast("bye");
            self.drops.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn presence_data_may_use_the_room_when_it_is_dropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let room: Room<Leaver> = Hub::new().room("room");
    let (stream, _end) = pipe(Knobs::default());
    let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options());
    let leaver = || Leaver { room: Mutex::new(Some(room.clone())), drops: Arc::clone(&drops) };
    within(async {
        let (room, drops) = (room.clone(), Arc::clone(&drops));
        // In a thread of its own, so that one that stops there does not stop the test.
        let leavers: Vec<_> = (0..300).map(|_| leaver()).collect();
        let done = task::spawn_blocking(move || {
            // One who never looks has the latest 256 kept.
            let _events = room.events();
            let mut member = None;
            for leaver in leavers {
                member = Some(room.join_with(&ws, leaver));
            }
            drop(member);
            room.len()
        });
        assert_eq!(done.await, 0);
        // Of whom the watcher has been told is kept.
        let dropped = drops.load(Ordering::SeqCst);
        assert!(dropped > 0, "{dropped}");
    });
    assert_eq!(drops.load(Ordering::SeqCst), 300);
}

#[test]
fn a_task_without_a_connection_broadcasts() {
    within(async {
        let room = room();
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        let hub_task = task::spawn(async move {
            for number in 0..3 {
                room.broadcast(number.to_string());
                task::yield_now().await;
            }
        });
        hub_task.await;
        peer.expect_hex("81 01 30 81 01 31 81 01 32").await;
    });
}

#[test]
fn eight_tasks_in_eight_rooms_get_through() {
    const TASKS: usize = 8;
    const ROUNDS: usize = 50;
    within(async {
        let hub = Hub::<()>::new();
        let rooms: Vec<_> = (0..TASKS).map(|number| hub.room(&number.to_string())).collect();
        let mut peers = vec![];
        let mut senders = vec![];
        for _ in 0..TASKS {
            let (tell, told) = oneshot::channel();
            let rooms = rooms.clone();
            peers.push(serve(&options(), |mut ws| async move {
                let _members: Vec<_> = rooms.iter().map(|room| room.join(&ws)).collect();
                let _ = tell.send(ws.sender());
                collect(&mut ws).await.1
            }));
            senders.push(told.await.unwrap());
        }
        let tasks = senders.into_iter().enumerate().map(|(number, sender)| {
            let (rooms, hub) = (rooms.clone(), hub.clone());
            task::spawn(async move {
                for round in 0..ROUNDS {
                    let room = &rooms[(number + round) % TASKS];
                    room.broadcast("x");
                    room.broadcast_except(sender.id(), "x");
                    room.send_to(sender.id(), "x");
                    // Comes, goes and looks around in between.
                    let passing = hub.room("passing");
                    let _member = passing.join(&sender);
                    assert!(!passing.is_empty() && hub.rooms().len() > TASKS);
                    task::yield_now().await;
                }
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
        // To all, to all but oneself, to oneself: twice to everybody.
        let each = plain(TEXT, "x").repeat(2 * TASKS * ROUNDS);
        for peer in &mut peers {
            peer.expect(&each).await;
        }
        let stats = rooms.iter().map(Room::stats);
        let queued: u64 = stats.map(|stats| stats.members.queued).sum();
        assert_eq!(queued, u64::try_from(2 * TASKS * TASKS * ROUNDS).unwrap());
    });
}
