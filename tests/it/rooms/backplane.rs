//! Rooms that span hubs.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_std::task;
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{BoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tidewire::rooms::{Backplane, LocalBackplane};
use tidewire::{Hub, Message, Room};

use super::{enter, options};
use crate::support::deflate::codec::read_frame;
use crate::support::deflate::{ALONE, agreed, words};
use crate::support::frames::{BINARY, TEXT, hex, plain};
use crate::support::peer::within;
use crate::support::pipe::Knobs;
use crate::support::rng::Rng;

/// Two hubs that share a backplane, and the room of each.
fn rooms(backplane: &LocalBackplane) -> [Room; 2] {
    [(); 2].map(|()| Hub::with_backplane(backplane.clone()).room("room"))
}

#[test]
fn a_broadcast_on_one_hub_is_received_on_the_other_and_not_twice_on_its_own() {
    within(async {
        let [here, there] = rooms(&LocalBackplane::new());
        let (mut near, _) = enter(&here, Knobs::default(), &options()).await;
        let (mut far, _) = enter(&there, Knobs::default(), &options()).await;
        assert_eq!(here.broadcast("text").queued, 1, "those who are known here");
        far.expect(plain(TEXT, "text")).await;
        there.broadcast(vec![0, 255]);
        near.expect([plain(TEXT, "text"), plain(BINARY, [0, 255])].concat()).await;
        far.expect(plain(BINARY, [0, 255])).await;
        here.broadcast("the end");
        for peer in [&mut near, &mut far] {
            peer.expect(plain(TEXT, "the end")).await;
        }
    });
}

#[test]
fn a_message_that_must_stay_uncompressed_is_not_compressed_in_any_process() {
    within(async {
        let [here, there] = rooms(&LocalBackplane::new());
        let mut peers = vec![];
        for room in [&here, &there] {
            peers.push(enter(room, Knobs::default(), &agreed(ALONE)).await.0);
        }
        let long = words(&mut Rng::new(1), 1_000);
        for (message, head) in [
            (Message::from(&*long), 0xc1),
            (Message::from(&*long).uncompressed(), 0x81),
            (Message::binary(long.clone()).uncompressed(), 0x82),
            (Message::from("xxxxxxxx"), 0x81),
            (Message::from("xxxxxxxx").compressed(), 0xc1),
            (Message::binary("xxxxxxxx").compressed(), 0xc2),
        ] {
            here.broadcast(message.clone());
            for (place, peer) in ["here", "there"].iter().zip(&mut peers) {
                let seen = read_frame(peer, false).await;
                assert_eq!(
                    format!("{:02x}", seen.head),
                    format!("{head:02x}"),
                    "{message:?} {place}"
                );
            }
        }
    });
}

#[test]
fn the_excluded_and_the_addressed_member_are_known_here_only() {
    within(async {
        let [here, there] = rooms(&LocalBackplane::new());
        let (mut near, sender) = enter(&here, Knobs::default(), &options()).await;
        let (mut far, _) = enter(&there, Knobs::default(), &options()).await;
        here.broadcast_except(sender.id(), "others");
        assert!(here.send_to(sender.id(), "you"));
        assert!(!there.send_to(sender.id(), "nobody"));
        here.broadcast("all");
        near.expect([plain(TEXT, "you"), plain(TEXT, "all")].concat()).await;
        far.expect([plain(TEXT, "others"), plain(TEXT, "all")].concat()).await;
        assert_eq!((here.len(), there.len()), (1, 1));
    });
}

#[test]
fn the_order_of_each_hub_is_kept_on_the_others() {
    const TASKS: usize = 4;
    const MESSAGES: usize = 100;
    within(async {
        let [here, there] = rooms(&LocalBackplane::new());
        let (mut near, _) = enter(&here, Knobs::default(), &options()).await;
        let (mut far, _) = enter(&there, Knobs::default(), &options()).await;
        let tasks = (0..TASKS).map(|number| {
            let here = here.clone();
            task::spawn(async move {
                for message in 0..MESSAGES {
                    here.broadcast(format!("{number} {message}"));
                    task::yield_now().await;
                }
            })
        });
        join_all(tasks.collect::<Vec<_>>()).await;
        for _ in 0..TASKS * MESSAGES {
            assert_eq!(near.frame().await, far.frame().await);
        }
    });
}

#[test]
fn rooms_of_other_names_hear_nothing_and_topics_go_with_their_rooms() {
    within(async {
        let backplane = LocalBackplane::new();
        let [one, other] = [(); 2].map(|()| Hub::<()>::with_backplane(backplane.clone()));
        let (mut peer, _) = enter(&other.room("b"), Knobs::default(), &options()).await;
        one.room("a").broadcast("a");
        one.room("b").broadcast("b");
        peer.expect(plain(TEXT, "b")).await;
        for number in 0..100 {
            one.room(&number.to_string()).broadcast("to nobody");
        }
        // A task of its own ends each subscription.
        while format!("{backplane:?}") != "LocalBackplane { topics: 1 }" {
            task::yield_now().await;
        }
    });
}

#[test]
fn topics_go_with_the_last_of_two_subscriptions_that_end_at_once() {
    let backplane = LocalBackplane::new();
    let (arrived, topics) = (AtomicUsize::new(0), || format!("{backplane:?}"));
    // Not a barrier, after which one goes on long before the other.
    let meet = |number: usize| {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < 2 * number {
            std::thread::yield_now();
        }
    };
    let subscribe_and_end = || {
        for round in 0..20_000 {
            let subscription = backplane.subscribe("topic".into());
            meet(3 * round + 1);
            drop(subscription);
            meet(3 * round + 2);
            assert_eq!(topics(), "LocalBackplane { topics: 0 }");
            meet(3 * round + 3);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(subscribe_and_end);
        subscribe_and_end();
    });
}

/// A broker whose every step is the test's.
#[derive(Clone, Default)]
struct Manual(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The latest subscription of each topic.
    subscribers: HashMap<Arc<str>, mpsc::UnboundedSender<Bytes>>,
    /// Who waits for the next subscription.
    subscribed: Option<oneshot::Sender<()>>,
    published: Vec<Bytes>,
    fails: bool,
    /// Does it panic over the next that is published?
    panics: bool,
}

impl Manual {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn say(&self, payload: impl Into<Bytes>) {
        self.state().subscribers["room"].unbounded_send(payload.into()).unwrap();
    }

    /// Says what another hub has published: version, kind, flags, origin, message.
    fn say_of_another(&self, kind: u8, message: &'static str) {
        let head = [&[1, kind, 0][..], &[0; 8]].concat();
        self.say([&head, message.as_bytes()].concat());
    }
}

impl Backplane for Manual {
    fn publish(&self, _: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>> {
        let mut state = self.state();
        if std::mem::take(&mut state.panics) {
            return async { panic!("a broker of a test panics") }.boxed();
        }
        state.published.push(payload);
        let result = if state.fails { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) };
        async { result }.boxed()
    }

    fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes> {
        let (sender, receiver) = mpsc::unbounded();
        let mut state = self.state();
        state.subscribers.insert(topic, sender);
        if let Some(subscribed) = state.subscribed.take() {
            let _ = subscribed.send(());
        }
        let receiver = receiver.inspect(|payload: &Bytes| assert_ne!(payload, "panic"));
        receiver.boxed()
    }
}

#[test]
fn a_subscription_that_ends_is_asked_for_again() {
    within(async {
        let manual = Manual::default();
        let room: Room = Hub::with_backplane(manual.clone()).room("room");
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        manual.say_of_another(1, "before");
        peer.expect(plain(TEXT, "before")).await;

        let (tell, subscribed) = oneshot::channel();
        let ended = {
            let mut state = manual.state();
            state.subscribed = Some(tell);
            state.subscribers.remove("room")
        };
        drop(ended);
        subscribed.await.unwrap();
        manual.say_of_another(2, "after");
        peer.expect(plain(BINARY, "after")).await;
    });
}

#[test]
fn a_payload_that_no_hub_of_this_version_writes_is_skipped_and_the_next_is_received() {
    within(async {
        let manual = Manual::default();
        let room: Room = Hub::with_backplane(manual.clone()).room("room");
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        for payload in [
            "",
            "01 01 00",
            "02 01 00 0000000000000000 6e65772076657273696f6e",
            "01 03 00 0000000000000000 6e6577206b696e64",
            "01 01 08 0000000000000000 6e657720666c6167",
            "01 01 00 0000000000000000 ff",
            "01 01 04 0000000000000000 6e6f20706f736974696f6e",
            "7b226d657373616765223a2248656c6c6f227d",
        ] {
            manual.say(hex(payload));
        }
        // A message that has a position in the history of its room.
        manual.say(hex("01 01 05 0000000000000000 0000000000000001 0000000000000002 48656c6c6f"));
        peer.expect_hex("81 05 48656c6c6f").await;
        manual.say_of_another(1, "last");
        peer.expect(plain(TEXT, "last")).await;
    });
}

#[test]
fn a_broker_that_panics_is_asked_again() {
    within(async {
        let manual = Manual::default();
        let room: Room = Hub::with_backplane(manual.clone()).room("room");
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        manual.state().panics = true;
        room.broadcast("lost");
        room.broadcast("published");
        for text in ["lost", "published"] {
            peer.expect(plain(TEXT, text)).await;
        }
        while manual.state().published.is_empty() {
            task::yield_now().await;
        }
        assert!(manual.state().published[0].ends_with(b"published"));

        let (tell, subscribed) = oneshot::channel();
        manual.state().subscribed = Some(tell);
        manual.say("panic");
        subscribed.await.unwrap();
        manual.say_of_another(1, "heard");
        peer.expect(plain(TEXT, "heard")).await;
    });
}

#[test]
fn local_members_are_sent_messages_that_the_broker_refuses_and_each_is_offered_to_it() {
    within(async {
        let manual = Manual::default();
        manual.state().fails = true;
        let room: Room = Hub::with_backplane(manual.clone()).room("room");
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        for number in 0..3 {
            room.broadcast(number.to_string());
        }
        peer.expect_hex("81 01 30 81 01 31 81 01 32").await;
        let published = || manual.state().published.clone();
        while published().len() < 3 {
            task::yield_now().await;
        }
        let published = published();
        let texts: Vec<_> = published.iter().map(|payload| &payload[11..]).collect();
        assert_eq!(texts, [b"0", b"1", b"2"]);
        // The same hub, which knows its own again.
        let head = published[0].slice(..11);
        assert!(head.starts_with(&hex("01 01 00")));
        assert!(published.iter().all(|payload| payload.starts_with(&head)));
        let echo = published[0].clone();
        manual.state().subscribers["room"].unbounded_send(echo).unwrap();
        manual.say_of_another(1, "other");
        peer.expect(plain(TEXT, "other")).await;
    });
}

/// A broker that never has anything.
struct Hanging;

impl Backplane for Hanging {
    fn publish(&self, _: Arc<str>, _: Bytes) -> BoxFuture<'static, io::Result<()>> {
        futures::future::pending().boxed()
    }

    fn subscribe(&self, _: Arc<str>) -> BoxStream<'static, Bytes> {
        futures::stream::pending().boxed()
    }
}

#[test]
fn local_members_do_not_wait_for_a_broker_that_hangs_and_its_queue_is_bounded() {
    within(async {
        let room: Room = Hub::with_backplane(Hanging).room("room");
        let bytes = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..2_000 {
            assert_eq!(room.broadcast(bytes.clone()), tidewire::rooms::BroadcastReport::default());
        }
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        room.broadcast("still here");
        peer.expect(plain(TEXT, "still here")).await;
    });
}
