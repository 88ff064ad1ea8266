//! The state of a room: its changes, the first messages of newcomers, and its end.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use futures::channel::oneshot;
use tidewire::frame::Role;
use tidewire::rooms::{LocalBackplane, NestedUpdate, RoomOptions};
use tidewire::{Hub, Room, WebSocket};

use super::{enter, options};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, WITHIN, collect, serve, within};
use crate::support::pipe::{End, Knobs, pipe};
use crate::support::tcp::until;

/// Does it in a thread of its own, so that one that stops there does not stop the test.
fn ends<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = channel();
    thread::spawn(move || tell.send(act()));
    told.recv_timeout(WITHIN).expect("it ends")
}

/// A connection without a task.
fn connection() -> (WebSocket, End) {
    let (stream, end) = pipe(Knobs::default());
    (WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options()), end)
}

/// Panics on purpose.
fn panics<T>(act: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
}

/// The next number, which is counted and broadcast in one step.
fn count(room: &Room<(), usize>) -> usize {
    room.update(|next, room| {
        let number = *next;
        room.broadcast(number.to_string());
        *next += 1;
        number
    })
    .unwrap()
}

#[test]
fn newcomers_miss_no_message_and_see_none_twice_while_many_threads_update() {
    const UPDATING: usize = 4;
    const NEWCOMERS: usize = 40;
    /// The most updates between two newcomers.
    const BETWEEN: usize = 25;

    let ample = RoomOptions::default().max_messages(usize::MAX).max_bytes(usize::MAX);
    let hub: Hub<(), usize> = Hub::with_rooms_and(ample, |_| 0);
    let (room, joined) = (hub.room("room"), Arc::new(AtomicUsize::new(0)));
    let updating = (0..UPDATING).map(|_| {
        let (room, joined) = (room.clone(), Arc::clone(&joined));
        thread::spawn(move || {
            loop {
                let joined = joined.load(Ordering::SeqCst);
                let next = room.update(|next, _| *next).unwrap();
                if next > NEWCOMERS * BETWEEN {
                    break;
                }
                if next <= joined * BETWEEN {
                    count(&room);
                } else {
                    thread::yield_now();
                }
            }
        })
    });
    let updating: Vec<_> = updating.collect();
    let mut peers: Vec<(Peer, usize)> = Vec::new();
    for _ in 0..NEWCOMERS {
        let (tell, told) = oneshot::channel();
        let inside = room.clone();
        let peer = serve(&options(), |mut ws| async move {
            let mut seen = 0;
            let _member = inside
                .join_then(&ws, (), |next, member| {
                    seen = *next;
                    (0..*next).for_each(|number| assert!(member.send(number.to_string())));
                })
                .unwrap();
            let _ = tell.send(seen);
            collect(&mut ws).await.1
        });
        peers.push((peer, within(told).unwrap()));
        joined.fetch_add(1, Ordering::SeqCst);
    }
    for thread in updating {
        thread.join().unwrap();
    }
    let all = room.update(|next, _| *next).unwrap();
    assert!(peers.iter().any(|(_, before)| (1..all).contains(before)), "some came in between");
    for (mut peer, _) in peers {
        within(async {
            for number in 0..all {
                peer.expect(plain(TEXT, number.to_string())).await;
            }
            peer.send(masked(CLOSE, close(1000, ""))).await;
            peer.expect_hex("88 02 03e8").await;
            peer.expect_end().await;
        });
    }
}

/// A state that tells of its end.
struct Board {
    name: String,
    dropped: Arc<Mutex<Vec<String>>>,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.dropped.lock().unwrap().push(std::mem::take(&mut self.name));
    }
}

#[test]
fn a_state_is_made_when_it_is_asked_for_goes_with_its_room_and_is_made_anew() {
    let (made, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![])));
    let hub: Hub<(), Board> = Hub::with_rooms({
        let (made, dropped) = (Arc::clone(&made), Arc::clone(&dropped));
        move |name| {
            let number = made.fetch_add(1, Ordering::SeqCst);
            Board { name: format!("{name} {number}"), dropped: Arc::clone(&dropped) }
        }
    });
    let made = || made.load(Ordering::SeqCst);
    let name = |room: &Room<(), Board>| room.update(|board, _| board.name.clone()).unwrap();

    drop(hub.room("tea"));
    assert_eq!(made(), 0, "nobody has asked for it");
    let room = hub.room("tea");
    assert_eq!((name(&room), name(&hub.room("tea")), made()), ("tea 0".into(), "tea 0".into(), 1));
    assert_eq!(name(&hub.room("milk")), "milk 1");
    assert_eq!(*dropped.lock().unwrap(), ["milk 1"], "and this room is gone");

    within(async {
        // A member keeps it, without a handle.
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            let _member = room.join_then(&ws, (), |board, member| {
                member.send(board.name.as_str());
            });
            drop(room);
            let _ = tell.send(());
            collect(&mut ws).await.1
        });
        told.await.unwrap();
        peer.expect(plain(TEXT, "tea 0")).await;
        assert_eq!(name(&hub.find("tea").unwrap()), "tea 0");
        drop(peer);
    });
    until("the last member has left", || dropped.lock().unwrap().len() == 2);
    assert!(hub.find("tea").is_none());
    assert_eq!(*dropped.lock().unwrap(), ["milk 1", "tea 0"]);
    assert_eq!(name(&hub.room("tea")), "tea 2");

    // A room outlives its hub, and its state can still be made.
    let late = hub.room("late");
    drop(hub);
    assert_eq!(name(&late), "late 3");
    drop(late);
    assert_eq!(dropped.lock().unwrap().last().unwrap(), "late 3");
}

#[test]
fn an_update_inside_an_update_of_the_same_room_is_an_error_and_changes_nothing() {
    ends(|| {
        let hub: Hub<(), u32> = Hub::with_rooms(|_| 0);
        let (room, other) = (hub.room("room"), hub.room("other"));
        let [(one, _one), (two, _two)] = [(); 2].map(|()| connection());
        // Through another handle of it, too.
        let try_both = || {
            let again = hub.room("room");
            assert_eq!(again.update(|number, _| *number += 100), Err(NestedUpdate));
            let joining = again.join_then(&two, (), |number, _| *number += 100);
            assert_eq!(joining.map(drop), Err(NestedUpdate));
        };
        room.update(|number, room| {
            *number += 1;
            try_both();
            assert!(room.is_empty(), "it has not joined");
        })
        .unwrap();
        let member = room.join_then(&one, (), |number, _| {
            *number += 1;
            try_both();
        });
        assert_eq!(room.len(), 1);
        drop(member);

        // Not of another room, and not afterwards. An update of the other one is no way back into this one.
        room.update(|number, _| {
            other.update(|_, _| try_both()).unwrap();
            try_both();
            *number += 1;
        })
        .unwrap();
        assert_eq!(room.update(|number, _| *number), Ok(3));
        assert_eq!(
            NestedUpdate.to_string(),
            "an update of a room is inside another update of the same room"
        );
    });
}

#[test]
fn an_update_where_the_state_is_made_is_an_error() {
    ends(|| {
        let room: Arc<Mutex<Option<Room<(), bool>>>> = Arc::default();
        let inside = Arc::clone(&room);
        let hub: Hub<(), bool> = Hub::with_rooms(move |_| {
            let room = inside.lock().unwrap().take().unwrap();
            room.update(|_, _| ()) == Err(NestedUpdate)
        });
        *room.lock().unwrap() = Some(hub.room("room"));
        assert_eq!(hub.room("room").update(|was_refused, _| *was_refused), Ok(true));
    });
}

#[test]
fn an_update_of_another_thread_waits() {
    ends(|| {
        let room = Hub::<(), Vec<&str>>::with_rooms(|_| vec![]).room("room");
        let (tell, told) = channel();
        let again = room.clone();
        let other = room
            .update(|said, _| {
                let other = thread::spawn(move || {
                    tell.send(()).unwrap();
                    again.update(|said, _| said.push("second"))
                });
                told.recv().unwrap();
                // Time to do it wrong.
                (0..100).for_each(|_| thread::yield_now());
                said.push("first");
                other
            })
            .unwrap();
        assert_eq!(other.join().unwrap(), Ok(()));
        assert_eq!(room.update(|said, _| said.clone()), Ok(vec!["first", "second"]));
    });
}

#[test]
fn after_a_panic_the_state_is_as_it_was_left_and_others_go_on() {
    ends(|| {
        let made = AtomicUsize::new(0);
        let hub: Hub<(), Vec<u32>> = Hub::with_rooms(move |_| {
            assert!(made.fetch_add(1, Ordering::SeqCst) > 0, "where the state is made, on purpose");
            vec![]
        });
        let (room, (ws, _end)) = (hub.room("room"), connection());
        panics(|| room.update(|_, _| ()));
        panics(|| {
            room.update(|numbers, _| {
                numbers.push(1);
                panic!("in an update, on purpose");
            })
        });
        panics(|| {
            room.join_then(&ws, (), |numbers, _| {
                numbers.push(2);
                panic!("in the first messages, on purpose");
            })
        });
        assert!(room.is_empty(), "it has left");
        let other = room.clone();
        let elsewhere = thread::spawn(move || other.update(|numbers, _| numbers.clone()));
        assert_eq!(elsewhere.join().unwrap(), Ok(vec![1, 2]));
        assert_eq!(room.update(|numbers, _| numbers.len()), Ok(2));
    });
}

#[test]
fn a_handler_that_panics_in_an_update_ends_alone() {
    within(async {
        let hub: Hub<(), usize> = Hub::with_rooms(|_| 0);
        let room = hub.room("room");
        let members = [false, true].map(|is_bad| {
            let room = room.clone();
            serve(&options(), move |mut ws| async move {
                let _member = room.join(&ws);
                while ws.recv().await?.is_some() {
                    count(&room);
                    room.update(|_, _| assert!(!is_bad, "on purpose")).unwrap();
                }
                Ok(())
            })
        });
        let [mut good, mut bad] = members;
        while room.len() < 2 {
            async_std::task::yield_now().await;
        }
        bad.send(masked(TEXT, "count")).await;
        good.expect(plain(TEXT, "0")).await;
        bad.expect(plain(TEXT, "0")).await;
        bad.expect(plain(CLOSE, close(1011, ""))).await;
        good.send(masked(TEXT, "count")).await;
        good.expect(plain(TEXT, "1")).await;
    });
}

#[test]
fn a_connection_may_join_inside_an_update_or_be_refused_by_the_state() {
    let hub: Hub<u32, u32> = Hub::with_rooms(|_| 2);
    let room = hub.room("room");
    let guests: Vec<_> = (0..3).map(|_| connection()).collect();
    let places: Vec<_> = guests
        .iter()
        .map(|(ws, _)| {
            room.update(|seats, room| {
                *seats = seats.checked_sub(1)?;
                Some(room.join_with(ws, *seats))
            })
            .unwrap()
        })
        .collect();
    let seats: Vec<_> = places.iter().map(|place| Some(**place.as_ref()?.user())).collect();
    assert_eq!(seats, [Some(1), Some(0), None]);
    assert_eq!(room.len(), 2);
}

#[test]
fn a_user_that_is_dropped_may_update_the_room_but_not_inside_an_update() {
    /// Updates a room when it is dropped.
    struct Leaver(Option<Room<Self, u32>>, std::sync::mpsc::Sender<Result<u32, NestedUpdate>>);

    impl Drop for Leaver {
        fn drop(&mut self) {
            let Some(room) = self.0.take() else { return };
            let update = room.update(|number, _| {
                *number += 1;
                *number
            });
            self.1.send(update).unwrap();
        }
    }

    ends(|| {
        let (tell, told) = channel();
        let (hub, (ws, _end)) = (Hub::<Leaver, u32>::default(), connection());
        let room = hub.room("room");
        drop(room.join_with(&ws, Leaver(Some(room.clone()), tell.clone())));
        assert_eq!(told.recv().unwrap(), Ok(1));
        // Under the lock of the state, it is an error.
        room.update(|_, room| {
            drop(room.join_with(&ws, Leaver(Some(room.clone()), tell.clone())));
        })
        .unwrap();
        assert_eq!(told.recv().unwrap(), Err(NestedUpdate));
        drop(hub);
    });
}

#[test]
fn a_state_that_is_dropped_may_use_the_hub_and_panic() {
    /// A state that makes another room of its name when it is dropped.
    #[derive(Default)]
    struct Heir(Option<(Hub<(), Self>, std::sync::mpsc::Sender<bool>)>);

    impl Drop for Heir {
        fn drop(&mut self) {
            let Some((hub, tell)) = self.0.take() else { return };
            assert!(hub.find("room").is_none());
            let is_new = hub.room("room").update(|heir, _| heir.0.is_none());
            tell.send(is_new.unwrap()).unwrap();
            panic!("in the destructor of a state, on purpose");
        }
    }

    ends(|| {
        let (tell, told) = channel();
        let hub: Hub<(), Heir> = Hub::default();
        let inside = hub.clone();
        let room = hub.room("room");
        room.update(|heir, _| heir.0 = Some((inside, tell))).unwrap();
        drop(room);
        assert!(told.recv().unwrap());
        assert_eq!(format!("{hub:?}"), "Hub { rooms: 0, .. }");
    });
}

#[test]
fn a_state_that_cannot_be_shared_can_be_sent() {
    let room = Hub::<(), Cell<u32>>::default().room("room");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| room.update(|number, _| number.set(number.get() + 1)));
        }
    });
    assert_eq!(room.update(|number, _| number.get()), Ok(4));
}

#[test]
fn with_a_backplane_broadcasts_reach_all_processes_and_the_state_is_of_each() {
    within(async {
        let backplane = LocalBackplane::new();
        let rooms = [(); 2].map(|()| {
            let hub: Hub<(), usize> =
                Hub::with_backplane_and(backplane.clone(), RoomOptions::default(), |_| 0);
            hub.room("room")
        });
        let mut peers = vec![];
        for room in &rooms {
            let (tell, told) = oneshot::channel();
            let room = room.clone();
            peers.push(serve(&options(), |mut ws| async move {
                let _member = room.join(&ws);
                let _ = tell.send(());
                collect(&mut ws).await.1
            }));
            told.await.unwrap();
        }
        assert_eq!((count(&rooms[0]), count(&rooms[0])), (0, 1));
        for peer in &mut peers {
            peer.expect([plain(TEXT, "0"), plain(TEXT, "1")].concat()).await;
        }
        assert_eq!(rooms.map(|room| room.update(|next, _| *next).unwrap()), [2, 0]);
    });
}

#[test]
fn a_message_to_oneself_keeps_its_place_and_reaches_no_later_membership() {
    within(async {
        let room = Hub::<()>::new().room("room");
        let (mut peer, sender) = enter(&room, Knobs::default(), &options()).await;
        // This ends the membership of the handler.
        let member = room.join(&sender);
        room.broadcast("before");
        assert!(member.send("to oneself"));
        room.broadcast("after");
        let later = room.join(&sender);
        assert!(!member.send("to nobody"));
        assert!(later.send("later"));
        for text in ["before", "to oneself", "after", "later"] {
            peer.expect(plain(TEXT, text)).await;
        }
        assert_eq!((later.stats().queued, member.stats().queued), (1, 0));
    });
}
