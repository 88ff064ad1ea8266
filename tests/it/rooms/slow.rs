//! Members that do not keep up: how much waits for them, what is left out, and what is counted.

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::oneshot;
use tidewire::rooms::{BroadcastReport, MemberStats, PresenceEvent, RoomOptions, SlowConsumer};
use tidewire::{Hub, Message, Room, WebSocketOptions};

use super::{enter, narrow, options, until_arrived};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, collect, serve_over, within};

/// One frame of a letter on its way to the peer, one more in the connection's own buffer.
fn small() -> WebSocketOptions {
    options().send_buffer_size(1)
}

const ONE_FRAME: usize = 3;

fn room_of(policy: SlowConsumer) -> Room {
    let options = RoomOptions::default().max_messages(3).max_bytes(10).slow_consumer(policy);
    Hub::with_options(options).room("room")
}

/// Broadcasts each letter; how many were queued, dropped and closed.
fn broadcast(room: &Room, letters: &str) -> BroadcastReport {
    let mut sum = BroadcastReport::default();
    for letter in letters.chars() {
        let one = room.broadcast(letter.to_string());
        sum.queued += one.queued;
        sum.dropped += one.dropped;
        sum.closed += one.closed;
        sum.gone += one.gone;
    }
    sum
}

/// A member whose peer has not read, and for whom nothing more can be written.
async fn enter_stuck(room: &Room) -> Peer {
    let (peer, sender) = enter(room, narrow(ONE_FRAME), &small()).await;
    sender.send("0").await.unwrap();
    sender.send("1").await.unwrap();
    // The first is on its way, the second stays where it is.
    until_arrived(&peer, ONE_FRAME).await;
    peer
}

async fn expect_letters(peer: &mut Peer, letters: &str) {
    for letter in letters.chars() {
        peer.expect(plain(TEXT, letter.to_string())).await;
    }
}

#[test]
fn a_message_without_room_is_treated_by_the_policy() {
    use SlowConsumer::{Conflate, DropNewest, DropOldest};
    for (policy, arrives, dropped, replaced) in
        [(DropNewest, "abc", 3, 0), (DropOldest, "def", 0, 3), (Conflate, "f", 0, 5)]
    {
        eprintln!("{policy:?}");
        within(async {
            let room = room_of(policy);
            let mut peer = enter_stuck(&room).await;
            let sum = broadcast(&room, "abcdef");
            assert_eq!((sum.queued, sum.dropped, sum.closed), (6 - dropped, dropped, 0));
            expect_letters(&mut peer, "01").await;
            expect_letters(&mut peer, arrives).await;
            // There is room again.
            assert_eq!(broadcast(&room, "g").queued, 1);
            expect_letters(&mut peer, "g").await;

            let members = room.stats().members;
            assert_eq!(usize::try_from(members.dropped).unwrap(), dropped);
            assert_eq!(members.replaced, replaced);
            assert_eq!(members.queued + members.dropped + members.gone, 7);
        });
    }
}

#[test]
fn a_member_that_is_closed_for_being_too_slow_is_told_so() {
    within(async {
        let room = room_of(SlowConsumer::Close);
        let mut events = room.events();
        let mut peer = enter_stuck(&room).await;
        let sum = broadcast(&room, "abcdef");
        assert_eq!((sum.queued, sum.dropped, sum.closed, sum.gone), (3, 0, 1, 2));
        // What was written before; not what waited.
        expect_letters(&mut peer, "01").await;
        let frame = peer.frame().await;
        assert_eq!(frame.close_code(), Some(1013), "{frame:?}");
        peer.send(masked(CLOSE, close(1013, ""))).await;
        peer.expect_end().await;
        assert!(matches!(events.next().await, Some(PresenceEvent::Joined(..))));
        assert!(matches!(events.next().await, Some(PresenceEvent::Left(..))));
        let stats = room.stats();
        assert_eq!((stats.messages, stats.closed), (6, 1));
        let members = stats.members;
        assert_eq!((members.queued, members.dropped, members.gone), (3, 1, 2));
    });
}

#[test]
fn conflation_keeps_the_message_being_sent_and_replaces_the_rest() {
    within(async {
        let room = room_of(SlowConsumer::Conflate);
        let (mut peer, _) = enter(&room, narrow(1), &options()).await;
        // The first is queued to be written, whatever comes then.
        assert_eq!(broadcast(&room, "abc").queued, 3);
        expect_letters(&mut peer, "ac").await;
        assert_eq!(room.stats().members.replaced, 1);
    });
}

#[test]
fn a_member_may_be_treated_another_way_than_the_others() {
    within(async {
        let room = room_of(SlowConsumer::Close);
        let (tell, told) = oneshot::channel();
        let inside = room.clone();
        let mut peer = serve_over(narrow(1), &small(), |mut ws| async move {
            let conflate = RoomOptions::default().slow_consumer(SlowConsumer::Conflate);
            let _member = inside.join_with_options(&ws, (), &conflate);
            let _ = tell.send(());
            collect(&mut ws).await.1
        });
        told.await.unwrap();
        assert_eq!(broadcast(&room, "abcdef").closed, 0);
        expect_letters(&mut peer, "af").await;
    });
}

#[test]
fn the_bounds_are_those_of_a_connection_over_all_its_rooms() {
    for (long, fits) in [("", 3), ("aaaaa", 2)] {
        within(async {
            let hub = Hub::with_options(RoomOptions::default().max_messages(3).max_bytes(10));
            let rooms: Vec<Room> = (0..4).map(|name| hub.room(&name.to_string())).collect();
            let inside = rooms.clone();
            let (tell, told) = oneshot::channel();
            let mut peer = serve_over(narrow(1), &small(), |mut ws| async move {
                let _members: Vec<_> = inside.iter().map(|room| room.join(&ws)).collect();
                ws.send("0").await?;
                let _ = tell.send(());
                collect(&mut ws).await.1
            });
            told.await.unwrap();
            until_arrived(&peer, 1).await;
            let queued: usize = rooms.iter().map(|room| room.broadcast(long).queued).sum();
            assert_eq!(queued, fits, "{long:?}");
            peer.expect(plain(TEXT, "0")).await;
            peer.expect(plain(TEXT, long).repeat(fits)).await;
        });
    }
}

#[test]
fn a_message_longer_than_the_bound_reaches_members_without_waiting_messages() {
    within(async {
        let room = room_of(SlowConsumer::DropOldest);
        let mut slow = enter_stuck(&room).await;
        let (mut fast, _) = enter(&room, narrow(usize::MAX), &options()).await;
        broadcast(&room, "a");
        let long = room.broadcast("longer than ten bytes");
        assert_eq!((long.queued, long.dropped), (1, 1));
        fast.expect([plain(TEXT, "a"), plain(TEXT, "longer than ten bytes")].concat()).await;
        expect_letters(&mut slow, "01a").await;
    });
}

#[test]
fn waiting_messages_are_freed_with_the_stream() {
    within(async {
        let room = Hub::<()>::new().room("room");
        let (peer, sender) = enter(&room, narrow(1), &small()).await;
        let bytes = Bytes::from(vec![7; 1000]);
        for _ in 0..100 {
            room.broadcast(Message::binary(bytes.clone()));
        }
        assert!(!bytes.is_unique());
        peer.end.reset();
        sender.closed().await;
        assert!(bytes.is_unique(), "nobody keeps a copy");
    });
}

#[test]
fn every_message_is_counted_once_for_every_member_it_was_meant_for() {
    const MESSAGES: u64 = 200;
    use SlowConsumer::{Close, Conflate, DropNewest, DropOldest};
    for policy in [DropNewest, DropOldest, Conflate, Close] {
        eprintln!("{policy:?}");
        within(async {
            let room = room_of(policy);
            let mut fast = vec![];
            for _ in 0..3 {
                fast.push(enter(&room, narrow(usize::MAX), &options()).await);
            }
            let _stuck = [enter_stuck(&room).await, enter_stuck(&room).await];
            let mut sum = 0;
            for number in 0..MESSAGES {
                let told = room.broadcast(number.to_string());
                sum += told.queued + told.dropped + told.closed + told.gone;
                assert_eq!(sum % 5, 0, "{told:?}");
                async_std::task::yield_now().await;
            }
            let stats = room.stats();
            let MemberStats { queued, dropped, gone, replaced, .. } = stats.members;
            assert_eq!(queued + dropped + gone, 5 * MESSAGES, "{stats:?}");
            assert_eq!(stats.messages, MESSAGES);
            assert_eq!(stats.closed, if policy == Close { 2 } else { 0 });
            assert!(replaced <= queued);
        });
    }
}
