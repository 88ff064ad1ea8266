//! Users that are dropped, wakers and backplanes may use the hub that runs them: it holds no lock then, and
//! so none of them stops there.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Wake, Waker};
use std::thread;

use async_std::task;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tidewire::frame::Role;
use tidewire::rooms::{
    Backplane, LocalBackplane, Membership, PresenceEvents, RoomOptions, SlowConsumer,
};
use tidewire::websocket::ConnectionId;
use tidewire::{Hub, Room, WebSocket};

use super::{enter, narrow, options};
use crate::support::frames::{TEXT, plain};
use crate::support::peer::{WITHIN, within};
use crate::support::pipe::{End, Knobs, pipe};

/// Does it in a thread of its own, so that one that stops there does not stop the test.
fn ends<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = channel();
    thread::spawn(move || tell.send(act()));
    told.recv_timeout(WITHIN).unwrap_or_else(|_| panic!("{what} ends"))
}

/// A connection without a task.
fn connection() -> (WebSocket, End) {
    connection_over(Knobs::default())
}

fn connection_over(knobs: Knobs) -> (WebSocket, End) {
    let (stream, end) = pipe(knobs);
    (WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options()), end)
}

/// All that can be done with a hub and its rooms.
fn use_all<U: Default + Send + Sync + 'static>(hub: &Hub<U>, ws: &WebSocket) {
    let room = hub.room("room");
    let _events = room.events();
    let mut member = room.join(ws);
    member.set(U::default());
    room.broadcast("to all");
    let _ = room.update(|(), room| room.broadcast("in an update"));
    room.broadcast_except(ws.id(), "to others");
    room.send_to(ws.id(), "to one");
    let _ = (room.len(), room.stats(), member.stats(), format!("{hub:?} {room:?}"));
    drop((room.members(), member));
    drop((hub.rooms(), hub.find("room"), hub.room("another")));
}

type Act = Box<dyn FnOnce() + Send>;

/// A user that does something when it is dropped.
#[derive(Default)]
struct Guest(Mutex<Option<Act>>);

impl Guest {
    fn who_then(act: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(act))))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(act) = self.0.get_mut().unwrap().take() {
            act();
        }
    }
}

/// A way in which the last of a user goes.
type Way = fn(&Hub<Guest>, &WebSocket, Guest);

const WAYS: [(&str, Way); 8] = [
    ("one in whose place another comes", |hub, ws, guest| {
        hub.room("room").join_with(ws, guest).set(Guest::default());
    }),
    ("one that leaves", |hub, ws, guest| drop(hub.room("room").join_with(ws, guest))),
    ("one that joins again", |hub, ws, guest| {
        let first = hub.room("room").join_with(ws, guest);
        let _second = hub.room("room").join(ws);
        drop(first);
    }),
    ("one whose room goes", |hub, ws, guest| {
        let room = hub.room("gone");
        let member = room.join_with(ws, guest);
        drop((room, member));
    }),
    ("one of whom a watcher is told", |hub, ws, guest| {
        let room = hub.room("room");
        let mut events = room.events();
        drop(room.join_with(ws, guest));
        while events.next().now_or_never().flatten().is_some() {}
    }),
    ("one that a watcher misses", |hub, ws, guest| {
        let (room, _events) = (hub.room("room"), hub.room("room").events());
        drop(room.join_with(ws, guest));
        (0..300).for_each(|_| drop(room.join(ws)));
    }),
    ("one whose watcher goes", |hub, ws, guest| {
        let (room, events) = (hub.room("room"), hub.room("room").events());
        drop(room.join_with(ws, guest));
        drop((events, room));
    }),
    ("one whose watcher goes after the room", |hub, ws, guest| {
        let (room, events) = (hub.room("gone"), hub.room("gone").events());
        drop(room.join_with(ws, guest));
        drop(room);
        drop(events);
    }),
];

#[test]
fn users_may_use_the_hub_when_they_are_dropped() {
    for (what, way) in WAYS {
        let (acted, has_acted) = channel();
        ends(what, move || {
            let (hub, [(ws, _ws), (other, _other)]) = (Hub::new(), [(); 2].map(|()| connection()));
            let again = hub.clone();
            let guest = Guest::who_then(move || {
                use_all(&again, &other);
                acted.send(()).unwrap();
            });
            way(&hub, &ws, guest);
        });
        has_acted.recv_timeout(WITHIN).unwrap_or_else(|_| panic!("{what} is dropped"));
    }
}

/// A waker that does something each time, but not while it is at it.
struct Busy<F> {
    act: F,
    is_at_it: AtomicBool,
    wakes: AtomicUsize,
}

impl<F: Fn() + Send + Sync + 'static> Busy<F> {
    fn new(act: F) -> Arc<Self> {
        Arc::new(Self { act, is_at_it: AtomicBool::new(false), wakes: AtomicUsize::new(0) })
    }
}

impl<F: Fn() + Send + Sync + 'static> Wake for Busy<F> {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if !self.is_at_it.swap(true, Ordering::SeqCst) {
            (self.act)();
            self.is_at_it.store(false, Ordering::SeqCst);
        }
    }
}

/// What wakes somebody who waits for a room.
type Event = fn(&Room, &WebSocket);

#[test]
fn a_watcher_may_use_the_hub_when_it_is_woken() {
    const EVENTS: [(&str, Event); 3] = [
        ("one who comes", |room, ws| drop(room.join(ws))),
        ("one who comes again", |room, ws| drop((room.join(ws), room.join(ws)))),
        ("a room that goes", |_, _| {}),
    ];
    for (what, event) in EVENTS {
        let wakes = ends(what, move || {
            let (hub, (ws, _ws)) = (Hub::<()>::new(), connection());
            let room = hub.room("watched");
            let events = Arc::new(Mutex::new(room.events()));
            let (again, seen, (other, _end)) = (hub, Arc::clone(&events), connection());
            let waker = Busy::new(move || {
                use_all(&again, &other);
                // As an executor does that polls where it wakes.
                let mut seen: std::sync::MutexGuard<'_, PresenceEvents> = seen.lock().unwrap();
                while seen.next().now_or_never().flatten().is_some() {}
            });
            poll_events(&events, &Waker::from(Arc::clone(&waker)));
            event(&room, &ws);
            drop(room);
            waker.wakes.load(Ordering::SeqCst)
        });
        assert!(wakes > 0, "{what}");
    }
}

fn poll_events(events: &Mutex<PresenceEvents>, waker: &Waker) {
    let mut cx = Context::from_waker(waker);
    assert!(events.lock().unwrap().poll_next_unpin(&mut cx).is_pending());
}

#[test]
fn a_waker_that_is_replaced_or_left_may_use_the_hub_when_it_is_dropped() {
    /// Forgotten rather than woken.
    struct Forgotten(Mutex<Option<Act>>);

    impl Wake for Forgotten {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Forgotten {
        fn drop(&mut self) {
            self.0.get_mut().unwrap().take().unwrap()();
        }
    }

    for is_kept in [true, false] {
        let dropped = ends("a waker that is forgotten", move || {
            let (hub, (ws, _ws)) = (Hub::<()>::new(), connection());
            let events = Mutex::new(hub.room("watched").events());
            let room = hub.room("watched");
            let events = if is_kept { Mutex::new(room.events()) } else { events };
            let (tell, told) = channel();
            let act: Act = Box::new(move || {
                use_all(&hub, &ws);
                tell.send(()).unwrap();
            });
            let waker = Waker::from(Arc::new(Forgotten(Mutex::new(Some(act)))));
            let _ = events.lock().unwrap().poll_next_unpin(&mut Context::from_waker(&waker));
            drop(waker);
            if is_kept {
                poll_events(&events, Waker::noop());
            } else {
                drop(events);
            }
            told.try_recv().is_ok()
        });
        assert!(dropped);
    }
}

#[test]
fn members_may_use_the_hub_when_a_broadcast_wakes_them() {
    type Event = fn(&Room, ConnectionId);
    const EVENTS: [(&str, Event); 3] = [
        ("a broadcast", |room, _| _ = room.broadcast("to all")),
        ("a message for one", |room, id| _ = room.send_to(id, "to one")),
        ("a broadcast to others", |room, _| {
            let (other, _end) = connection();
            room.broadcast_except(other.id(), "to others");
        }),
    ];
    for (what, event) in EVENTS {
        for is_linked in [false, true] {
            let wakes = ends(what, move || {
                let hub: Hub<()> =
                    if is_linked { Hub::with_backplane(LocalBackplane::new()) } else { Hub::new() };
                let (room, (mut ws, _ws)) = (hub.room("room"), connection());
                let (again, (other, _end)) = (hub, connection());
                let waker = Busy::new(move || use_all(&again, &other));
                let _member = room.join(&ws);
                let sender = ws.sender();
                let task = Waker::from(Arc::clone(&waker));
                let recv = Box::pin(ws.recv()).as_mut().poll(&mut Context::from_waker(&task));
                assert!(recv.is_pending());
                event(&room, sender.id());
                waker.wakes.load(Ordering::SeqCst)
            });
            assert!(wakes > 0, "{what}");
        }
    }
}

#[test]
fn members_may_use_the_hub_when_they_are_closed_for_being_too_slow() {
    let closed = ends("a broadcast", || {
        let options = RoomOptions::default().slow_consumer(SlowConsumer::Close).max_messages(1);
        let hub = Hub::<()>::with_options(options);
        let room = hub.room("room");
        let (stream, _end) = pipe(narrow(1));
        let small = super::options().send_buffer_size(1);
        let (again, (other, _other)) = (hub, connection());
        let joining = room.clone();
        let mut task =
            WebSocket::run(stream, [].as_slice(), Role::Server, &small, |ws| async move {
                let _member = joining.join(&ws);
                ws.closed().await;
                Ok::<_, tidewire::Error>(())
            });
        let waker = Busy::new(move || use_all(&again, &other));
        let task_waker = Waker::from(Arc::clone(&waker));
        let mut cx = Context::from_waker(&task_waker);
        assert!(task.as_mut().poll(&mut cx).is_pending());
        // One is on its way, and one waits.
        waker.is_at_it.store(true, Ordering::SeqCst);
        room.broadcast("a broadcast that nobody reads");
        assert!(task.as_mut().poll(&mut cx).is_pending());
        room.broadcast("another");
        waker.is_at_it.store(false, Ordering::SeqCst);
        let before = waker.wakes.load(Ordering::SeqCst);
        let closed = room.broadcast("one more").closed;
        (closed, waker.wakes.load(Ordering::SeqCst) > before)
    });
    assert_eq!(closed, (1, true));
}

#[test]
fn a_waiting_sender_may_use_the_hub_when_a_broadcast_lets_it_go_on() {
    let wakes = ends("a broadcast", || {
        let hub =
            Hub::<()>::with_options(RoomOptions::default().slow_consumer(SlowConsumer::Conflate));
        let room = hub.room("room");
        let (stream, _end) = pipe(narrow(1));
        let small = options().send_buffer_size(1);
        let (joining, (tell, told)) = (room.clone(), channel());
        let handler = |ws: WebSocket| async move {
            let _member = joining.join(&ws);
            tell.send(ws.sender()).unwrap();
            ws.closed().await;
            Ok::<_, tidewire::Error>(())
        };
        let mut task = WebSocket::run(stream, [].as_slice(), Role::Server, &small, handler);
        let mut poll = || task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(poll());
        let sender = told.recv().unwrap();
        room.broadcast("is being sent");
        assert!(poll());
        room.broadcast("waits");
        let (again, (other, _other)) = (hub, connection());
        let waker = Busy::new(move || use_all(&again, &other));
        let mut sending = Box::pin(sender.send("waits behind it"));
        let sending_waker = Waker::from(Arc::clone(&waker));
        assert!(sending.as_mut().poll(&mut Context::from_waker(&sending_waker)).is_pending());
        room.broadcast("takes its place");
        waker.wakes.load(Ordering::SeqCst)
    });
    assert!(wakes > 0);
}

#[test]
fn subscribers_may_use_a_local_backplane_when_they_are_woken() {
    let heard = ends("publishing", || {
        let backplane = LocalBackplane::new();
        let subscription = Arc::new(Mutex::new(backplane.subscribe("topic".into())));
        let (again, seen) = (backplane.clone(), Arc::clone(&subscription));
        let (tell, heard) = channel();
        let waker = Busy::new(move || {
            let _other = again.subscribe("topic".into());
            drop(again.publish("topic".into(), Bytes::from_static(b"again")));
            drop(again.subscribe("another".into()));
            let _ = format!("{again:?}");
            while let Some(Some(payload)) = seen.lock().unwrap().next().now_or_never() {
                tell.send(payload).unwrap();
            }
        });
        let waker = Waker::from(waker);
        let mut cx = Context::from_waker(&waker);
        assert!(subscription.lock().unwrap().poll_next_unpin(&mut cx).is_pending());
        drop(backplane.publish("topic".into(), Bytes::from_static(b"first")));
        heard.try_iter().collect::<Vec<_>>()
    });
    assert_eq!(heard, [&b"first"[..], b"again"]);
}

/// A broker that uses the hub whenever the hub uses it.
#[derive(Clone, Default)]
struct Nosy {
    broker: LocalBackplane,
    hub: Arc<OnceLock<Hub>>,
    published: Arc<Mutex<Vec<Bytes>>>,
    subscribed: Arc<AtomicUsize>,
    /// What it has said by the way.
    said: Arc<AtomicUsize>,
    /// Panics as often.
    panics: Arc<AtomicUsize>,
}

impl Nosy {
    fn use_hub(&self) {
        let Some(hub) = self.hub.get() else { return };
        let (ws, _end) = connection();
        let room = hub.room("room");
        let _member: Membership = room.join(&ws);
        let _ = (room.len(), hub.rooms(), room.members(), room.events());
        for name in ["room", "another"] {
            if self.said.fetch_add(1, Ordering::SeqCst) < 4 {
                hub.room(name).broadcast("by the way");
            }
        }
    }
}

impl Backplane for Nosy {
    fn publish(&self, topic: Arc<str>, payload: Bytes) -> BoxFuture<'static, io::Result<()>> {
        let is_watched = &*topic == "room";
        if is_watched {
            self.use_hub();
        }
        let publishing = self.broker.publish(topic, payload.clone());
        let published = Arc::clone(&self.published);
        async move {
            let outcome = publishing.await;
            if is_watched {
                // Not before: who subscribes from here on does not hear it.
                published.lock().unwrap().push(payload);
            }
            outcome
        }
        .boxed()
    }

    fn subscribe(&self, topic: Arc<str>) -> BoxStream<'static, Bytes> {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        if self
            .panics
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            panic!("a broker of a test panics");
        }
        if &*topic == "room" {
            self.use_hub();
        }
        self.broker.subscribe(topic)
    }
}

#[test]
fn a_backplane_may_use_the_hub_that_uses_it() {
    let (nosy, room) = ends("subscribing", || {
        let nosy = Nosy::default();
        let hub = Hub::with_backplane(nosy.clone());
        assert!(nosy.hub.set(hub.clone()).is_ok());
        let room = hub.room("room");
        room.broadcast("first");
        (nosy, room)
    });
    // One for this room. The other room comes and goes with each of its messages.
    assert!(nosy.subscribed.load(Ordering::SeqCst) >= 2, "one for each room");
    within(async {
        // The first, and what was said by the way.
        while nosy.published.lock().unwrap().len() < 3 {
            task::yield_now().await;
        }
        let there: Room = Hub::with_backplane(nosy.broker.clone()).room("room");
        let (mut peer, _) = enter(&there, Knobs::default(), &options()).await;
        room.broadcast("heard");
        peer.expect(plain(TEXT, "heard")).await;
    });
}

#[test]
fn a_backplane_whose_subscriptions_panic_is_asked_again() {
    let nosy = Nosy::default();
    nosy.panics.store(2, Ordering::SeqCst);
    let room: Room = ends("subscribing", {
        let nosy = nosy.clone();
        move || Hub::with_backplane(nosy).room("room")
    });
    within(async {
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        while nosy.subscribed.load(Ordering::SeqCst) < 3 {
            task::yield_now().await;
        }
        let there: Room = Hub::with_backplane(nosy.broker.clone()).room("room");
        there.broadcast("heard");
        peer.expect(plain(TEXT, "heard")).await;
    });
}

/// Set for the process of the test below.
const INLINE: &str = "TIDEWIRE_TEST_INLINE";

/// A task that runs where it is woken, as on some executors.
struct Inline {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    is_woken: AtomicBool,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self));
        // Woken while it runs, it runs again.
        while let Ok(mut future) = self.future.try_lock() {
            if !self.is_woken.swap(false, Ordering::SeqCst) {
                break;
            }
            if let Some(running) = &mut *future {
                if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    *future = None;
                }
            }
        }
    }
}

#[test]
fn a_process_whose_tasks_run_where_they_are_woken() {
    if std::env::var_os(INLINE).is_none() {
        return;
    }
    tidewire::executor::set_spawner(|future| {
        let task = Inline { future: Mutex::new(Some(future)), is_woken: AtomicBool::new(false) };
        Arc::new(task).wake();
    })
    .unwrap();
    let nosy = Nosy::default();
    let hub = Hub::with_backplane(nosy.clone());
    assert!(nosy.hub.set(hub.clone()).is_ok());
    let there: Room = Hub::with_backplane(nosy.broker.clone()).room("room");
    let (ws, end) = connection();
    let _member = there.join(&ws);
    hub.room("room").broadcast("heard");
    let _ = ws.sender().flush().now_or_never();
    println!("{} published, {} arrived", nosy.published.lock().unwrap().len(), end.arrived());
}

#[test]
fn a_backplane_may_use_the_hub_where_tasks_run_where_they_are_woken() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rooms::reentry::a_process_whose_tasks_run_where_they_are_woken"])
        .arg("--nocapture")
        .env(INLINE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, (tell, told)) = (child.stdout.take().unwrap(), channel());
    thread::spawn(move || tell.send(io::read_to_string(&mut stdout).unwrap()));
    let printed = told.recv_timeout(WITHIN);
    let _ = child.kill();
    child.wait().unwrap();
    // The message, and three by the way.
    let printed = printed.expect("a broadcast ends");
    assert!(printed.contains("4 published, 43 arrived"), "{printed}");
}

/// A broker whose subscriptions end at once at first, and panic when they are dropped.
#[derive(Clone, Default)]
struct Brittle {
    subscribed: Arc<AtomicUsize>,
    latest: Arc<Mutex<Option<mpsc::UnboundedSender<Bytes>>>>,
}

struct PanicsOnDrop(mpsc::UnboundedReceiver<Bytes>);

impl futures::Stream for PanicsOnDrop {
    type Item = Bytes;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> std::task::Poll<Option<Bytes>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(thread::panicking(), "a stream of a test panics when it is dropped");
    }
}

impl Backplane for Brittle {
    fn publish(&self, _: Arc<str>, _: Bytes) -> BoxFuture<'static, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn subscribe(&self, _: Arc<str>) -> BoxStream<'static, Bytes> {
        let (sender, receiver) = mpsc::unbounded();
        if self.subscribed.fetch_add(1, Ordering::SeqCst) > 0 {
            *self.latest.lock().unwrap() = Some(sender);
        }
        PanicsOnDrop(receiver).boxed()
    }
}

#[test]
fn a_subscription_that_panics_when_it_is_dropped_is_followed_by_another() {
    within(async {
        let brittle = Brittle::default();
        let room: Room = Hub::with_backplane(brittle.clone()).room("room");
        let (mut peer, _) = enter(&room, Knobs::default(), &options()).await;
        let latest = loop {
            if let Some(latest) = brittle.latest.lock().unwrap().clone() {
                break latest;
            }
            task::yield_now().await;
        };
        let from_elsewhere = elsewhere("heard").await;
        latest.unbounded_send(from_elsewhere).unwrap();
        peer.expect(plain(TEXT, "heard")).await;
    });
}

/// What another hub publishes when this is broadcast there.
async fn elsewhere(text: &'static str) -> Bytes {
    let broker = LocalBackplane::new();
    let mut published = broker.subscribe("room".into());
    Hub::<()>::with_backplane(broker).room("room").broadcast(text);
    published.next().await.unwrap()
}
