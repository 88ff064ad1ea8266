//! A world of connections, peers and tasks, in which the bytes of an input decide what happens next, and a
//! judge looks for debts.
//!
//! One thread polls at a time, one executor polls the tasks that have been woken, and one clock is turned
//! when no task is woken. When nothing can go on, nothing may be owed: no frame that the stream would take,
//! no pong, no close reply, no call whose condition holds, no byte that would be read.
//!
//! The judge knows the public API, the bytes of the peer and RFC 6455, and nothing of how a connection
//! works. A debt is a panic that begins with `owed:` and the kind of debt; `judge` lists the kinds.
//!
//! | file | holds |
//! | --- | --- |
//! | `choices` | choices that the bytes of an input make |
//! | `executor` | tasks, polled when they have been woken |
//! | `pipe`, `seen` | a stream in memory; the frames that passed over it |
//! | `peer` | what a peer says, and what is known of that |
//! | `connection` | a connection with its options, its tasks and its peer |
//! | `owner`, `calls` | the task of a `WebSocket`; the calls of a `Sender` |
//! | `book` | the calls that wait, and what came of the others |
//! | `judge` | the debts, and when each is owed |

mod book;
mod calls;
mod choices;
mod connection;
mod executor;
mod judge;
mod owner;
mod peer;
mod pipe;
mod seen;

use std::sync::Arc;
use std::time::Duration;

use tidewire::testing::ManualClock;
use tidewire::{Hub, Room};

use self::calls::{Call, len, message};
use self::choices::Choices;
use self::connection::Connection;
use self::executor::Executor;
use self::owner::Order;
use self::pipe::{End, pipe};

pub(crate) use self::executor::Spawned;

/// The most time that passes in a world, so that an input does not take long.
const MOST_TIME: Duration = Duration::from_secs(600);

/// More deadlines than a world has once its peers and owners do nothing any more.
const MOST_DEADLINES: usize = 500;

struct World<'a> {
    choices: Choices<'a>,
    clock: ManualClock,
    executor: Arc<Executor>,
    room: Room,
    connections: Vec<Connection>,
    steps: usize,
    /// How far the clock has been turned.
    passed: Duration,
}

/// Runs a world to its end. `spawned` returns what the crate has given to the spawner, and `forgets` says
/// whether streams forget to wake those who wait for them, to try the judge.
///
/// # Panics
///
/// If something is owed.
pub(crate) fn run(input: &[u8], spawned: Spawned, forgets: bool) {
    let mut world = World::new(input, spawned, forgets);
    while !world.choices.is_empty() {
        world.step();
    }
    world.end();
}

impl<'a> World<'a> {
    fn new(input: &'a [u8], spawned: Spawned, forgets: bool) -> Self {
        let mut world = Self {
            choices: Choices::new(input),
            clock: ManualClock::new(),
            executor: Arc::new(Executor::new(spawned)),
            room: Hub::new().room("room"),
            connections: vec![],
            steps: 0,
            passed: Duration::ZERO,
        };
        for number in 0..world.choices.pick([1, 1, 1, 2, 4]) {
            let Self { choices, clock, executor, room, .. } = &mut world;
            let ends = pipe(choices, forgets);
            let connection = Connection::open(number, choices, ends, clock, executor, room);
            world.say(&connection.name);
            world.connections.push(connection);
        }
        world
    }

    fn step(&mut self) {
        self.steps += 1;
        let kind = self.choices.below(64);
        let index = match self.connections.len() {
            1 => 0,
            count => self.choices.below(count),
        };
        let what = match kind {
            0..=12 => self.order(index),
            13..=19 => self.call(index),
            20..=22 => self.give_up(index),
            23..=31 => self.connections[index].peer.speak(&mut self.choices),
            32 => self.end_stream(index),
            33..=36 => self.read(index),
            37 | 38 => {
                let most = self.choices.pick([1, 2, 7, 100]);
                self.connections[index].peer.deliver(most);
                format!("{most} bytes arrive")
            }
            39..=41 => self.answer(index),
            42..=45 => self.poll_one(),
            46..=56 => {
                self.judge();
                "rest".into()
            }
            57 | 58 => self.pass_time(),
            59 => self.broadcast(),
            60 => {
                self.connections[index].join(&self.room, &mut self.choices);
                "joins".into()
            }
            61 => {
                self.connections[index].leave();
                "leaves".into()
            }
            62 => self.disturb(),
            _ => self.lose(index),
        };
        self.say(&format!("{}: {index}: {what}", self.steps));
    }

    /// The owner gets an order. If it is at one, that is perhaps given up.
    fn order(&mut self, index: usize) -> String {
        let order = Order::new(&mut self.choices);
        let desk = &self.connections[index].desk;
        let gives_up = desk.is_busy() && self.choices.one_in(2);
        if gives_up {
            desk.cancel();
        }
        desk.order(order);
        format!("order {order:?}{}", if gives_up { " instead" } else { "" })
    }

    /// A call of a sender begins, in a task of its own or in that of the owner.
    fn call(&mut self, index: usize) -> String {
        let call = Call::new(&mut self.choices);
        let goes_along = self.choices.one_in(3);
        let connection = &mut self.connections[index];
        let begun = call.begin(connection.sender.clone(), Arc::clone(&connection.book));
        if goes_along {
            connection.desk.accompany(begun);
            return format!("call {call:?} in the task of the owner");
        }
        let task = self.executor.spawn(format!("{call:?} of connection {index}"), begun);
        connection.calls.push(task);
        format!("call {call:?}")
    }

    fn give_up(&mut self, index: usize) -> String {
        let connection = &mut self.connections[index];
        connection.calls.retain(|call| !call.has_ended());
        match (self.choices.below(4), connection.calls.len()) {
            (0, _) => connection.desk.cancel(),
            (1, _) => connection.desk.part(),
            (_, 0) => {}
            (_, count) => {
                let call = connection.calls.swap_remove(self.choices.below(count));
                call.cancel();
                return format!("gives {} up", call.name);
            }
        }
        "gives up".into()
    }

    fn end_stream(&mut self, index: usize) -> String {
        let (end, is_cut) =
            (self.choices.pick([End::Fin, End::Fin, End::Reset]), self.choices.one_in(2));
        self.connections[index].peer.end(end, is_cut);
        format!("peer: {end:?}, cut: {is_cut}")
    }

    fn read(&mut self, index: usize) -> String {
        let most = self.choices.pick([usize::MAX, 1, 10, 500]);
        self.connections[index].line.read(most);
        format!("peer reads {most}")
    }

    /// The peer answers what it was sent: a close frame, or pings.
    fn answer(&mut self, index: usize) -> String {
        let peer = &mut self.connections[index].peer;
        let (has_closed, pings) = {
            let seen = &mut peer.line.wire().seen;
            (seen.has_closed, std::mem::take(&mut seen.unanswered))
        };
        for ping in &pings {
            peer.pong(ping);
        }
        if has_closed {
            peer.close(&mut self.choices);
            peer.deliver(usize::MAX);
        }
        format!("peer answers {} pings, close: {has_closed}", pings.len())
    }

    fn poll_one(&mut self) -> String {
        let woken = self.executor.woken();
        if woken.is_empty() {
            return "no task is woken".into();
        }
        let task = &woken[self.choices.below(woken.len())];
        task.poll();
        format!("{} is polled", task.name)
    }

    /// A task is polled for nothing, or with another waker from now on; or one of the crate's is dropped.
    fn disturb(&mut self) -> String {
        let tasks = self.executor.tasks();
        if tasks.is_empty() {
            return "no task is there".into();
        }
        let task = &tasks[self.choices.below(tasks.len())];
        if task.name == "background" {
            task.cancel();
            return "a task of the crate is dropped".into();
        }
        task.change_waker();
        format!("{} has another waker", task.name)
    }

    /// The connection's task is dropped, or the handler returns that has given its `WebSocket` away.
    fn lose(&mut self, index: usize) -> String {
        let connection = &mut self.connections[index];
        match &connection.task {
            Some(task) if self.choices.one_in(4) => {
                task.cancel();
                "the task is dropped".into()
            }
            _ => {
                connection.release();
                "the handler returns".into()
            }
        }
    }

    fn broadcast(&mut self) -> String {
        let len = len(&mut self.choices);
        let broadcast = self.room.broadcast(message(len));
        format!("{broadcast:?} of {len} bytes")
    }

    /// Time passes, once nothing else can happen.
    fn pass_time(&mut self) -> String {
        self.judge();
        let seconds = self.choices.pick([None, None, Some(1), Some(3), Some(30)]);
        let by = match seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None => match self.clock.next_deadline() {
                Some(deadline) => deadline.saturating_duration_since(self.clock.now()),
                None => return "no deadline".into(),
            },
        };
        if self.passed >= MOST_TIME {
            return "too much time has passed".into();
        }
        if self.choices.one_in(4) {
            // The machine was busy, and several deadlines have passed at once.
            self.turn(by);
            let now = self.clock.now();
            self.connections.iter_mut().for_each(|connection| connection.past.forget(now));
            self.judge();
            return format!("{by:?} pass at once");
        }
        let until = self.clock.now() + by;
        while let Some(deadline) = self.clock.next_deadline().filter(|at| *at < until) {
            self.turn(deadline.saturating_duration_since(self.clock.now()));
            self.judge();
        }
        self.turn(until.saturating_duration_since(self.clock.now()));
        self.judge();
        format!("{by:?} pass")
    }

    fn turn(&mut self, by: Duration) {
        self.passed += by;
        self.clock.advance(by);
    }

    /// The owners leave, the peers stand still, and time passes: all comes to an end.
    fn end(mut self) {
        self.judge();
        for connection in &mut self.connections {
            connection.desk.cancel();
            connection.desk.order(Order::Leave(true));
            connection.release();
        }
        self.say("the owners leave");
        self.judge();
        let mut deadlines = 0;
        while let Some(deadline) = self.clock.next_deadline() {
            deadlines += 1;
            assert!(deadlines < MOST_DEADLINES, "owed: rest: deadlines without an end");
            self.say("a deadline passes");
            self.turn(deadline.saturating_duration_since(self.clock.now()));
            self.judge();
        }
        self.judge_end();
    }

    fn say(&self, what: &str) {
        if judge::traces() {
            eprintln!("{:?} {what}", self.passed);
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.executor.clear();
    }
}
