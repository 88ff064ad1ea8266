//! One connection of the world, with its tasks and its peer.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tidewire::deflate::DeflateOptions;
use tidewire::frame::Role;
use tidewire::limits::RateLimit;
use tidewire::rooms::{Membership, RoomOptions, SlowConsumer};
use tidewire::testing::ManualClock;
use tidewire::{Room, Sender, WebSocket, WebSocketOptions};

use super::book::Book;
use super::calls::heartbeat;
use super::choices::Choices;
use super::executor::{Executor, Task};
use super::judge::Past;
use super::owner::{Desk, Owner};
use super::peer::Peer;
use super::pipe::{Line, Pipe};

/// What polls a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Driver {
    /// A task of its own, in which the owner runs.
    Handler,
    /// A task of its own; the owner is another task.
    Task,
    /// Its calls.
    Calls,
}

pub(super) struct Connection {
    pub(super) name: String,
    pub(super) driver: Driver,
    pub(super) terms: Terms,
    pub(super) line: Line,
    pub(super) peer: Peer,
    pub(super) sender: Sender,
    pub(super) desk: Arc<Desk>,
    pub(super) book: Arc<Book>,
    /// The connection's own task, if it has one.
    pub(super) task: Option<Arc<Task>>,
    /// Calls that are tasks of their own.
    pub(super) calls: Vec<Arc<Task>>,
    /// Lets the handler return that has given its `WebSocket` away.
    release: Arc<Gate>,
    membership: Option<Membership>,
    /// Messages of rooms for this connection, from memberships that have ended.
    announced: i64,
    pub(super) past: Past,
}

/// What the options of a connection say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    send_buffer_size: usize,
    pub(super) read_ahead_size: usize,
    pub(super) auto_pong: bool,
    pub(super) close_timeout: Duration,
    pub(super) send_timeout: Option<Duration>,
    message_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_lifetime: Option<Duration>,
    has_heartbeat: bool,
    pub(super) is_rate_limited: bool,
    /// Whether the compressor keeps its window, and the least that is compressed.
    deflates: Option<(bool, usize)>,
}

/// Something to wait for.
#[derive(Default)]
struct Gate(Mutex<(bool, Option<Waker>)>);

impl Gate {
    async fn pass(self: Arc<Self>) -> Result<(), &'static str> {
        std::future::poll_fn(|cx| {
            let mut gate = self.0.lock().unwrap();
            gate.1 = Some(cx.waker().clone());
            if gate.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }

    fn open(&self) {
        let waker = {
            let mut gate = self.0.lock().unwrap();
            gate.0 = true;
            gate.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Connection {
    pub(super) fn open(
        number: usize,
        choices: &mut Choices<'_>,
        (stream, line): (Pipe, Line),
        clock: &ManualClock,
        executor: &Arc<Executor>,
        room: &Room,
    ) -> Self {
        let driver = choices.pick([Driver::Task, Driver::Handler, Driver::Calls]);
        let role = choices.pick([Role::Server, Role::Client]);
        let terms = Terms::new(choices);
        let options = terms.options(clock);
        let (desk, book): (Arc<Desk>, Arc<Book>) = Default::default();
        let release = Arc::new(Gate::default());
        let clock = clock.clone();
        let owner = Owner {
            desk: Arc::clone(&desk),
            book: Arc::clone(&book),
            room: room.clone(),
            executor: Arc::downgrade(executor),
            now: Box::new(move || clock.now()),
        };
        let name = |what: &str| format!("{what} of connection {number}");
        // The handler is called at once and polled later, so what it is given is there.
        let mut sender = None;
        let task = match driver {
            Driver::Handler => {
                let handler = |ws: WebSocket| {
                    sender = Some(ws.sender());
                    owner.run(ws)
                };
                let run = WebSocket::run(stream, vec![], role, &options, handler);
                Some(executor.spawn(name("handler"), run))
            }
            Driver::Task => {
                let (mut given, gate) = (None, Arc::clone(&release));
                let handler = |ws: WebSocket| {
                    sender = Some(ws.sender());
                    given = Some(ws);
                    gate.pass()
                };
                let run = WebSocket::run(stream, vec![], role, &options, handler);
                let ws = given.expect("the handler is called");
                executor.spawn(name("owner"), async { _ = owner.run(ws).await });
                Some(executor.spawn(name("task"), run))
            }
            Driver::Calls => {
                let ws = WebSocket::from_stream(stream, vec![], role, &options);
                sender = Some(ws.sender());
                executor.spawn(name("owner"), async { _ = owner.run(ws).await });
                None
            }
        };
        Self {
            name: format!("connection {number} ({role:?}, {driver:?}, {line:?}, {terms:?})"),
            driver,
            terms,
            peer: Peer::new(line.clone(), role, terms.deflates.is_some()),
            line,
            sender: sender.expect("the handler is called"),
            desk,
            book,
            task,
            calls: vec![],
            release,
            membership: None,
            announced: 0,
            past: Past::default(),
        }
    }

    pub(super) fn release(&self) {
        self.release.open();
    }

    /// Whether the connection lives from a task or a call that is there.
    pub(super) fn is_driven(&self) -> bool {
        match &self.task {
            Some(task) => !task.has_ended(),
            None => self.book.with(|entries| !entries.open.is_empty()),
        }
    }

    /// Enters the room, again if it is there.
    pub(super) fn join(&mut self, room: &Room, choices: &mut Choices<'_>) {
        use SlowConsumer::{Close, Conflate, DropNewest, DropOldest};
        let options = RoomOptions::default()
            .max_messages(choices.pick([1000, 1, 3]))
            .max_bytes(choices.pick([1 << 20, 10, 100]))
            .slow_consumer(choices.pick([DropNewest, DropOldest, Conflate, Close]));
        self.leave();
        self.membership = Some(room.join_with_options(&self.sender, (), &options));
    }

    pub(super) fn leave(&mut self) {
        self.announced = self.announced();
        self.membership = None;
    }

    /// Messages of rooms that the peer is to get.
    pub(super) fn announced(&self) -> i64 {
        let stats = self.membership.as_ref().map(Membership::stats);
        // One that is replaced may have been queued before the connection joined again.
        let count = |messages: u64| i64::try_from(messages).expect("few messages");
        let announced = stats.map_or(0, |stats| count(stats.queued) - count(stats.replaced));
        self.announced + announced
    }
}

impl Terms {
    fn new(choices: &mut Choices<'_>) -> Self {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let deflates = choices.one_in(3);
        Self {
            send_buffer_size: choices.pick([64 << 10, 1, 60, 60, 2_000]),
            read_ahead_size: choices.pick([64 << 10, 0, 60, 200, 2_000]),
            auto_pong: !choices.one_in(8),
            close_timeout: Duration::from_secs(choices.pick([5, 5, 1, 0])),
            send_timeout: seconds(choices.pick([None, None, Some(2), Some(10)])),
            message_timeout: seconds(choices.pick([None, None, Some(3)])),
            idle_timeout: seconds(choices.pick([None, None, None, Some(7)])),
            max_lifetime: seconds(choices.pick([None, None, None, None, Some(40)])),
            has_heartbeat: choices.one_in(5),
            is_rate_limited: choices.one_in(12),
            deflates: deflates.then(|| (choices.one_in(2), choices.pick([0, 100]))),
        }
    }

    fn options(&self, clock: &ManualClock) -> WebSocketOptions {
        let rate = RateLimit::default().messages_per_second(1).message_burst(4);
        let rate = rate.control_frames_per_second(1).control_frame_burst(4);
        let options = WebSocketOptions::default()
            .clock(clock)
            .send_buffer_size(self.send_buffer_size)
            .read_ahead_size(self.read_ahead_size)
            .auto_pong(self.auto_pong)
            .close_timeout(self.close_timeout)
            .send_timeout(self.send_timeout)
            .message_timeout(self.message_timeout)
            .idle_timeout(self.idle_timeout)
            .max_lifetime(self.max_lifetime)
            .heartbeat(self.has_heartbeat.then(heartbeat))
            .rate_limit(self.is_rate_limited.then_some(rate));
        let Some((takes_over, threshold)) = self.deflates else { return options };
        let agreed = if takes_over {
            "permessage-deflate"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        };
        let deflate = DeflateOptions::default().level(1).threshold(threshold);
        options.deflate(deflate).agreed_deflate(agreed.parse().expect("parameters of RFC 7692"))
    }
}
