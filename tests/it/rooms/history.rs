//! Members that come back: what they have missed, or that it is lost. And rooms that wait for them.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_std::task;
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::rooms::{
    History, Membership, Position, PresenceEvent, Recovery, RoomOptions, SlowConsumer, Start,
};
use tidewire::{Hub, Message, Room, WebSocketOptions};

use super::{narrow, options};
use crate::support::frames::{TEXT, plain};
use crate::support::peer::{Peer, collect, serve_over, within};
use crate::support::pipe::Knobs;
use crate::support::rng::Rng;

fn hub(history: History) -> Hub {
    Hub::with_options(RoomOptions::default().history(history))
}

fn room() -> Room {
    hub(History::default()).room("room")
}

/// A peer that comes with this position, and is in the room for as long as its membership lives.
async fn come_over(
    room: &Room,
    knobs: Knobs,
    options: &WebSocketOptions,
    from: impl Into<Start>,
) -> (Peer, Membership, Recovery) {
    let (tell, told) = oneshot::channel();
    let (room, from) = (room.clone(), from.into());
    let peer = serve_over(knobs, options, move |mut ws| async move {
        let _ = tell.send(room.join_from(&ws, (), from));
        collect(&mut ws).await.1
    });
    let (member, recovery) = told.await.unwrap();
    (peer, member, recovery)
}

async fn come(room: &Room, from: impl Into<Start>) -> (Peer, Membership, Recovery) {
    come_over(room, Knobs::WIDE, &options(), from).await
}

async fn expect(peer: &mut Peer, texts: &[&str]) {
    for text in texts {
        peer.expect(plain(TEXT, text)).await;
    }
}

fn say(room: &Room, texts: &[&str]) -> Position {
    let told: Vec<_> = texts.iter().map(|text| room.broadcast(*text).position.unwrap()).collect();
    *told.last().unwrap()
}

#[test]
fn who_comes_back_is_sent_what_was_missed_and_then_what_comes() {
    within(async {
        let room = room();
        let (mut peer, member, recovery) = come(&room, None).await;
        assert_eq!(recovery, Recovery::Fresh);
        say(&room, &["a", "b"]);
        expect(&mut peer, &["a", "b"]).await;
        let left_at = member.position().unwrap();
        drop((peer, member));
        say(&room, &["c", "d", "e"]);

        // What a client keeps is a text.
        let kept: Position = left_at.to_string().parse().unwrap();
        let (mut peer, member, recovery) = come(&room, kept).await;
        assert_eq!(recovery, Recovery::Complete(3));
        say(&room, &["f"]);
        expect(&mut peer, &["c", "d", "e", "f"]).await;

        // A recovery that is cut off can be made again, from the same position.
        drop((peer, member));
        let (mut peer, member, recovery) = come(&room, kept).await;
        assert_eq!(recovery, Recovery::Complete(4));
        expect(&mut peer, &["c", "d", "e", "f"]).await;
        let (mut other, _member, recovery) = come(&room, room.position()).await;
        assert_eq!(room.position().map(|it| it.to_string().len()), Some(33));
        assert_eq!(member.position().map(|it| it.to_string().len()), Some(50));
        assert_eq!(recovery, Recovery::Complete(0));
        say(&room, &["g"]);
        expect(&mut peer, &["g"]).await;
        expect(&mut other, &["g"]).await;
    });
}

#[test]
fn the_position_is_known_before_the_first_message() {
    within(async {
        let room = room();
        let (peer, member, _) = come(&room, None).await;
        let start = member.position();
        drop((peer, member));
        say(&room, &["a"]);
        let (mut peer, _member, recovery) = come(&room, start).await;
        assert_eq!(recovery, Recovery::Complete(1));
        expect(&mut peer, &["a"]).await;
    });
}

#[test]
fn what_is_not_all_there_is_lost_and_nothing_of_it_is_sent() {
    within(async {
        let hub = hub(History::default().messages(2));
        let room = hub.room("room");
        let start = room.position().unwrap();
        say(&room, &["a", "b"]);
        let last = say(&room, &["c"]);
        let elsewhere = hub.room("other");
        say(&elsewhere, &["x", "y", "z", "w"]);
        let number = "f".repeat(16);
        let made_up = format!("{number}.{number}.{number}").parse().unwrap();
        for (what, from) in [
            ("too far behind", start),
            ("of another room", elsewhere.position().unwrap()),
            ("made up", made_up),
        ] {
            let (mut peer, member, recovery) = come(&room, from).await;
            assert_eq!(recovery, Recovery::Lost, "{what}");
            assert!(member.position().is_some(), "{what}");
            say(&room, &["next"]);
            expect(&mut peer, &["next"]).await;
        }
        // Four messages are behind this one, and two of them are kept.
        assert_eq!(come(&room, last).await.2, Recovery::Lost);

        let plain = Hub::new().room("room");
        assert_eq!(plain.position(), None);
        assert_eq!(plain.broadcast("a").position, None);
        let (mut peer, member, recovery) = come(&plain, last).await;
        assert_eq!((recovery, member.position()), (Recovery::Lost, None));
        assert_eq!(come(&plain, Start::Latest(3)).await.2, Recovery::Fresh);
        assert!(!member.send_position(|position| position.to_string()));
        say_plain(&plain, "b");
        expect(&mut peer, &["b"]).await;
    });
}

fn say_plain(room: &Room, text: &str) {
    room.broadcast(text);
}

#[test]
fn a_greeting_stands_before_what_is_replayed_and_its_position_behind_it() {
    within(async {
        let room = room();
        let start = room.position();
        say(&room, &["a", "b"]);
        let mut greeted = 0;
        let (tell, told) = oneshot::channel();
        let (joining, said) = (room.clone(), room.clone());
        let mut peer = serve_over(Knobs::WIDE, &options(), move |mut ws| async move {
            let joined = joining.join_from_with(&ws, (), start, |recovery, position| {
                // A message that comes meanwhile: the first greeting is for what was before.
                if greeted == 0 {
                    say(&said, &["c"]);
                }
                greeted += 1;
                format!("{greeted}: {recovery:?} {}", position.unwrap())
            });
            let _ = tell.send(joined);
            collect(&mut ws).await.1
        });
        let (member, recovery) = told.await.unwrap();
        assert_eq!(recovery, Recovery::Complete(3));
        let position = member.position().unwrap();
        say(&room, &["d"]);
        let greeting = format!("2: Complete(3) {position}");
        expect(&mut peer, &[&greeting, "a", "b", "c", "d"]).await;
    });
}

#[test]
fn a_newcomer_may_have_the_latest_messages() {
    within(async {
        let room = room();
        say(&room, &["a", "b", "c"]);
        let (mut peer, _member, recovery) = come(&room, Start::Latest(2)).await;
        assert_eq!(recovery, Recovery::Fresh);
        say(&room, &["d"]);
        expect(&mut peer, &["b", "c", "d"]).await;
    });
}

/// Broadcasts of several threads, and clients that are cut and come back all the time: each client has each message once,
/// in order, unless it is told that something is lost.
#[test]
fn no_message_is_missed_or_doubled_whenever_a_client_is_cut() {
    const MESSAGES: usize = 1500;
    const CLIENTS: u64 = 6;

    within(async {
        // On a busy machine a client may be far behind, and is not too slow for that.
        let options = RoomOptions::default().max_messages(100_000).max_bytes(1 << 30);
        let hub: Hub = Hub::with_options(options.history(History::default().messages(200)));
        let room = hub.room("room");
        let order = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let said = AtomicUsize::new(0);
        let (lost, resumed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|seed| {
                    let (room, is_over) = (room.clone(), &is_over);
                    let (lost, resumed) = (&lost, &resumed);
                    scope.spawn(move || task::block_on(client(&room, seed, is_over, lost, resumed)))
                })
                .collect();
            let speakers: Vec<_> = (0..3)
                .map(|_| {
                    let (room, order, said, resumed) = (&room, &order, &said, &resumed);
                    scope.spawn(move || {
                        // On, until enough of them have come back.
                        while said.fetch_add(1, Ordering::SeqCst) < MESSAGES
                            || resumed.load(Ordering::SeqCst) <= 10
                        {
                            // Numbered in the order of the room.
                            let mut order = order.lock().unwrap();
                            let number = order.len();
                            let report = room.broadcast(number.to_string());
                            order.push(report.position.unwrap());
                            drop(order);
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            for speaker in speakers {
                speaker.join().unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
            while clients.iter().any(|it| !it.is_finished()) {
                room.broadcast(END);
                std::thread::yield_now();
            }
            for client in clients {
                client.join().unwrap();
            }
        });
        let (lost, resumed) = (lost.into_inner(), resumed.into_inner());
        assert!(resumed > 10, "{resumed} came back, {lost} were lost");
    });
}

/// After the last number.
const END: &str = "end";

async fn client(
    room: &Room,
    seed: u64,
    is_over: &AtomicBool,
    lost: &AtomicUsize,
    resumed: &AtomicUsize,
) {
    let mut rng = Rng::new(seed);
    let mut from: Option<Position> = None;
    // The number that comes next; `None` when anything may.
    let mut next: Option<u64> = None;
    while !is_over.load(Ordering::SeqCst) {
        let (mut peer, member, recovery) = come(room, from).await;
        match recovery {
            Recovery::Fresh => next = None,
            Recovery::Complete(_) => {
                resumed.fetch_add(1, Ordering::SeqCst);
            }
            Recovery::Lost => {
                lost.fetch_add(1, Ordering::SeqCst);
                next = None;
            }
        }
        let count = 1 + rng.below(40);
        let mut received = 0;
        // The position comes as a message of its own, exactly where it stands.
        member.send_position(|position| format!("at {position}"));
        let mut asked = true;
        while received < count || asked {
            let text = String::from_utf8(peer.frame().await.payload.clone()).unwrap();
            if text == END {
                return;
            }
            if let Some(position) = text.strip_prefix("at ") {
                from = Some(position.parse().unwrap());
                asked = false;
                continue;
            }
            let number: u64 = text.parse().unwrap();
            if let Some(next) = next {
                assert_eq!(number, next, "after {recovery:?}");
            }
            next = Some(number + 1);
            received += 1;
            if received == count {
                asked = member.send_position(|position| format!("at {position}"));
                assert!(asked);
            }
        }
        // Cut, without a word. What comes now is missed.
        drop((peer, member));
        for _ in 0..rng.below(20) {
            task::yield_now().await;
        }
    }
}

#[test]
fn a_member_that_is_too_slow_loses_its_position_and_is_told_once() {
    use SlowConsumer::{Conflate, DropNewest, DropOldest};
    for policy in [DropNewest, DropOldest, Conflate] {
        within(async {
            let options = RoomOptions::default().max_messages(3).slow_consumer(policy);
            let room = Hub::<()>::with_options(options.history(History::default())).room("room");
            let small = super::options().send_buffer_size(1);
            let (mut slow, member, _) = come_over(&room, narrow(3), &small, None).await;
            let (mut quick, other, _) = come(&room, None).await;
            let mut lost = Box::pin(member.lost_step());
            assert!(lost.as_mut().now_or_never().is_none());
            let start = member.position().unwrap();
            for number in 0..20 {
                room.broadcast(number.to_string());
            }
            assert_eq!(member.position(), None, "{policy:?}");
            lost.await;
            assert!(!member.send_position(|position| position.to_string()));
            if policy != Conflate {
                // Who conflates gets the latest, however quick.
                assert!(other.position().is_some());
                assert!(other.lost_step().now_or_never().is_none());
                for number in 0..20 {
                    quick.expect(plain(TEXT, number.to_string())).await;
                }
            }
            let _ = slow.frame().await;
            // It stays lost, also when there is room again. A new connection has all of it.
            assert_eq!(member.position(), None);
            drop((slow, member));
            let (mut peer, member, recovery) = come(&room, start).await;
            assert_eq!(recovery, Recovery::Complete(20), "{policy:?}");
            for number in 0..20 {
                peer.expect(plain(TEXT, number.to_string())).await;
            }
            assert!(member.position().is_some());
        });
    }
}

#[test]
fn a_replay_does_not_count_as_slow() {
    use SlowConsumer::{Close, Conflate, DropNewest, DropOldest};
    for policy in [DropNewest, DropOldest, Close, Conflate] {
        within(async {
            let options =
                RoomOptions::default().max_messages(3).max_bytes(100).slow_consumer(policy);
            let history = History::default().messages(500);
            let room = Hub::<()>::with_options(options.history(history)).room("room");
            let start = room.position();
            for number in 0..500 {
                room.broadcast(number.to_string());
            }
            let small = super::options().send_buffer_size(1);
            let (mut peer, member, recovery) = come_over(&room, narrow(3), &small, start).await;
            assert_eq!(recovery, Recovery::Complete(500), "{policy:?}");
            assert!(member.position().is_some(), "{policy:?}");
            for number in 0..500 {
                peer.expect(plain(TEXT, number.to_string())).await;
            }
            assert!(member.position().is_some(), "{policy:?}");
        });
    }
}

#[test]
fn a_client_that_is_back_closes_its_half_open_connection_and_no_other() {
    within(async {
        let room = room();
        let mut events = room.events();
        let (mut old, first, _) = come(&room, None).await;
        let (mut other, second, _) = come(&room, None).await;
        let kept = first.position().unwrap();
        let (mut new, third, recovery) = come(&room, kept).await;
        assert_eq!(recovery, Recovery::Complete(0));
        assert_eq!(old.frame().await.close_code(), Some(History::RESUMED_ELSEWHERE));
        say(&room, &["a"]);
        expect(&mut other, &["a"]).await;
        expect(&mut new, &["a"]).await;
        // A position without an owner, and one whose owner is gone, close nobody.
        drop(first);
        for from in [room.position().unwrap(), kept] {
            let (_peer, member, _) = come(&room, from).await;
            drop(member);
        }
        say(&room, &["b"]);
        expect(&mut other, &["b"]).await;
        expect(&mut new, &["b"]).await;
        drop((second, third));
        assert!(matches!(events.next_now(), Some(PresenceEvent::Joined(..))));
    });
}

/// The next event, if there is one.
trait NextNow {
    fn next_now(&mut self) -> Option<PresenceEvent>;
}

impl NextNow for tidewire::rooms::PresenceEvents {
    fn next_now(&mut self) -> Option<PresenceEvent> {
        use futures::StreamExt;
        self.next().now_or_never().flatten()
    }
}

#[test]
fn a_room_waits_for_those_who_come_back_and_not_for_ever() {
    within(async {
        let hub = hub(History::default().age(Duration::from_millis(250)));
        let room = hub.room("room");
        let (peer, member, _) = come(&room, None).await;
        let kept = member.position().unwrap();
        say(&room, &["a"]);
        drop((peer, member, room));
        // Nobody is there, and the room is.
        let room = hub.find("room").unwrap();
        assert!(hub.rooms().is_empty());
        let (mut peer, member, recovery) = come(&room, kept).await;
        assert_eq!(recovery, Recovery::Complete(1));
        expect(&mut peer, &["a"]).await;
        drop((peer, member, room));
        while hub.find("room").is_some() {
            task::yield_now().await;
        }
        // It begins anew.
        let room = hub.room("room");
        assert_eq!(come(&room, kept).await.2, Recovery::Lost);
        // One that nobody spoke in goes at once, and so does a hub with all of its rooms.
        drop(hub.room("silent"));
        assert!(hub.find("silent").is_none());
        let held = Arc::new(());
        let payload = Payload(Arc::clone(&held));
        room.broadcast(Message::from(Bytes::from_owner(payload)));
        drop(room);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(hub);
        while Arc::strong_count(&held) > 1 {
            task::yield_now().await;
        }
    });
}

/// A payload that is too long to be copied.
struct Payload(#[expect(dead_code, reason = "it is counted")] Arc<()>);

static LONG: [u8; 1 << 16] = [b'x'; 1 << 16];

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &LONG
    }
}

#[test]
fn a_message_that_is_too_old_is_lost_though_nobody_has_spoken_since() {
    within(async {
        let room = hub(History::default().age(Duration::from_millis(20))).room("room");
        let start = room.position().unwrap();
        let top = say(&room, &["a"]);
        while come(&room, start).await.2 == Recovery::Complete(1) {}
        assert_eq!(come(&room, start).await.2, Recovery::Lost);
        assert_eq!(come(&room, top).await.2, Recovery::Complete(0));
    });
}

#[test]
fn a_message_can_be_forgotten() {
    within(async {
        let room = room();
        let start = room.position();
        say(&room, &["a"]);
        let secret = say(&room, &["a secret"]);
        say(&room, &["b"]);
        assert!(room.forget(secret));
        assert!(!room.forget(secret));
        let (mut peer, _member, recovery) = come(&room, start).await;
        assert_eq!(recovery, Recovery::Complete(2));
        say(&room, &["c"]);
        expect(&mut peer, &["a", "b", "c"]).await;
    });
}

#[test]
fn what_is_sent_to_one_member_is_not_kept_and_moves_no_position() {
    within(async {
        let room = room();
        let (mut peer, member, _) = come(&room, None).await;
        let before = member.position();
        assert!(member.send("to you"));
        assert!(room.send_to(member.id(), "to you, too"));
        assert_eq!(member.position(), before);
        say(&room, &["a"]);
        expect(&mut peer, &["to you", "to you, too", "a"]).await;
        let (mut other, _member, recovery) = come(&room, before).await;
        assert_eq!(recovery, Recovery::Complete(1));
        expect(&mut other, &["a"]).await;
    });
}

/// A payload whose destructor uses the room that lets go of it.
struct Reentrant(Room, Arc<AtomicUsize>);

impl AsRef<[u8]> for Reentrant {
    fn as_ref(&self) -> &[u8] {
        &LONG
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        assert!(self.0.position().is_some());
        assert!(self.0.is_empty());
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_payload_may_use_the_room_that_lets_go_of_it() {
    within(async {
        let room = hub(History::default().messages(1)).room("room");
        let dropped = Arc::new(AtomicUsize::new(0));
        for number in 0..3 {
            let payload = Reentrant(room.clone(), Arc::clone(&dropped));
            room.broadcast(Message::from(Bytes::from_owner(payload)));
            assert_eq!(dropped.load(Ordering::SeqCst), number);
        }
        let last = room.position().unwrap();
        assert!(room.forget(last));
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
        // And one whose function panics leaves the room as it was.
        let (_peer, member, _) = come(&room, None).await;
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| {
            member.send_position(|_| -> String { panic!("on purpose") })
        }));
        assert!(told.is_err());
        assert!(member.send_position(|position| position.to_string()));
    });
}
