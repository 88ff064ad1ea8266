//! A room whose members are slow, closed or gone, whoever's turn it is: each sees its messages in
//! order, what is counted as queued arrives, and nobody waits for ever.

#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};
use futures::FutureExt;
use futures::channel::oneshot;
use libfuzzer_sys::fuzz_target;
use tidewire::frame::Role;
use tidewire::rooms::{Membership, RoomOptions, SlowConsumer};
use tidewire::{Error, Hub, Message, Room, Sender, WebSocket, WebSocketOptions};
use tidewire_fuzz::crowd::{Peer, Task, pipe, spawned};
use tidewire_fuzz::wire::RawFrame;
use tidewire_fuzz::{choice, inflate};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let mut crowd = Crowd::new();
    for _ in 0..choice.int_in_range(1..=6)? {
        crowd.enter(choice)?;
    }
    while !choice.is_empty() {
        crowd.step(choice)?;
    }
    crowd.settle();
    crowd.broadcast(5);
    crowd.settle();
    crowd.check();
    Ok(())
}

/// Everybody, and what is under way.
struct Crowd {
    room: Room,
    said: Arc<Mutex<Said>>,
    members: Vec<Member>,
    /// Of the crate: those who write.
    background: Vec<Task<()>>,
}

/// What was said; numbers tell it apart.
#[derive(Default)]
struct Said {
    messages: u32,
    /// Those to everybody in the room then.
    broadcasts: usize,
}

impl Said {
    /// A message with the next number and so much behind it.
    fn next(&mut self, len: usize) -> Message {
        self.messages += 1;
        let mut payload = self.messages.to_be_bytes().to_vec();
        payload.resize(4 + len, b'x');
        Message::binary(payload)
    }
}

struct Member {
    peer: Peer,
    sender: Sender,
    /// What the crate calls the member; it stays when the handler has ended.
    membership: Arc<Membership>,
    /// The connection's task, if it has one, and whoever receives.
    tasks: Vec<Task<()>>,
    sends: Vec<Task<tidewire::Result<()>>>,
    flushes: Vec<Task<tidewire::Result<()>>>,
    /// How many messages were meant for it.
    meant: u64,
    /// Numbers of messages that were sent directly, and taken at once.
    direct: Vec<u32>,
    /// Numbers of those that had to wait.
    late: Vec<u32>,
    takeover: bool,
    is_closed: bool,
}

impl Crowd {
    fn new() -> Self {
        // What another input left is nobody's.
        drop(spawned());
        let room = Hub::new().room("room");
        Self { room, said: Arc::default(), members: vec![], background: vec![] }
    }

    fn enter(&mut self, choice: &mut Unstructured<'_>) -> Result<()> {
        let (stream, peer) = pipe(*choice.choose(&[1, 20, 300, 1 << 20])?);
        let (options, takeover) = options(choice)?;
        let bounds = room_options(choice)?;
        let (tell, told) = oneshot::channel();
        let (room, said) = (self.room.clone(), Arc::clone(&self.said));
        let handler = move |ws: WebSocket| async move {
            let membership = Arc::new(room.join_with_options(&ws, (), &bounds));
            let _ = tell.send((ws.sender(), membership));
            receive(ws, &room, &said).await
        };
        let mut tasks = match choice.int_in_range(0..=2)? {
            // A task of its own, and the handler in it.
            0 => vec![Task::new(WebSocket::run(stream, vec![], Role::Server, &options, handler))],
            // The same, and the handler gives the connection away.
            1 => {
                let (give, given) = oneshot::channel();
                let giver = |ws: WebSocket| async move {
                    let sender = ws.sender();
                    drop(give.send(ws));
                    sender.closed().await;
                    Ok::<_, Error>(())
                };
                let run = WebSocket::run(stream, vec![], Role::Server, &options, giver);
                vec![
                    Task::new(run),
                    Task::new(async move { drop(handler(given.await.unwrap()).await) }),
                ]
            }
            // None.
            _ => {
                let ws = WebSocket::from_stream(stream, vec![], Role::Server, &options);
                vec![Task::new(async move { drop(handler(ws).await) })]
            }
        };
        tasks.iter_mut().for_each(|task| _ = task.go_on());
        let (sender, membership) = told.now_or_never().unwrap().unwrap();
        let (meant, is_closed) = (0, false);
        let [sends, flushes] = [vec![], vec![]];
        let [direct, late] = [vec![], vec![]];
        self.members.push(Member {
            peer,
            sender,
            membership,
            tasks,
            sends,
            flushes,
            meant,
            direct,
            late,
            takeover,
            is_closed,
        });
        Ok(())
    }

    fn step(&mut self, choice: &mut Unstructured<'_>) -> Result<()> {
        self.background.extend(spawned());
        let (kind, which, len): (u8, u8, u8) = choice.arbitrary()?;
        let place = usize::from(which) % self.members.len();
        let len = if len < 0xf0 { usize::from(len & 0x3f) } else { 2_000 };
        match kind % 12 {
            0..=2 => self.broadcast(len),
            3 => self.say_to(place, len, true),
            4 => self.say_to(place, len, false),
            5 => self.members[place].send(&self.said, len),
            6 => self.members[place].flush(),
            7 => _ = self.members[place].go_on(),
            8 => _ = self.members[place].peer.read(len),
            9 => self.members[place].speak(),
            10 => match which {
                // An executor that ends drops what it has.
                0..16 => drop(self.background.pop()),
                _ => self.go_on_in_background(usize::from(which)),
            },
            _ if len < 10 => self.members[place].peer.go(),
            _ if len < 20 => self.members[place].close(),
            _ => {}
        }
        Ok(())
    }

    fn broadcast(&mut self, len: usize) {
        let message = self.said.lock().unwrap().next(len);
        self.said.lock().unwrap().broadcasts += 1;
        self.room.broadcast(message);
    }

    /// To one member, or to all but that.
    fn say_to(&mut self, place: usize, len: usize, is_alone: bool) {
        let message = self.said.lock().unwrap().next(len);
        let id = self.members[place].membership.id();
        if is_alone {
            self.members[place].meant += 1;
            self.room.send_to(id, message);
            return;
        }
        let others = self.members.iter_mut().enumerate().filter(|(other, _)| *other != place);
        others.for_each(|(_, member)| member.meant += 1);
        self.room.broadcast_except(id, message);
    }

    fn go_on_in_background(&mut self, which: usize) {
        if let Some(last) = self.background.len().checked_sub(1) {
            self.background.swap_remove(which % (last + 1)).go_on();
        }
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            self.background.extend(spawned());
            let mut goes_on = !self.background.is_empty();
            self.background.drain(..).for_each(|mut task| _ = task.go_on());
            for member in &mut self.members {
                goes_on |= member.go_on();
                goes_on |= member.peer.read(usize::MAX);
            }
            if !goes_on {
                return;
            }
        }
    }

    fn check(&self) {
        let broadcasts = self.said.lock().unwrap().broadcasts;
        for member in &self.members {
            member.check(broadcasts as u64);
        }
    }
}

/// Receives to the end; each message is a reason to broadcast, and to answer.
async fn receive(mut ws: WebSocket, room: &Room, said: &Mutex<Said>) -> tidewire::Result<()> {
    while ws.recv().await?.is_some() {
        for _ in 0..2 {
            let message = said.lock().unwrap().next(3);
            said.lock().unwrap().broadcasts += 1;
            room.broadcast(message);
        }
    }
    Ok(())
}

fn options(choice: &mut Unstructured<'_>) -> Result<(WebSocketOptions, bool)> {
    let options = WebSocketOptions::default()
        .send_buffer_size(*choice.choose(&[1, 60, 2_000, 64 << 10])?)
        .message_timeout(None)
        .send_timeout(None);
    choice::deflate(choice, options)
}

fn room_options(choice: &mut Unstructured<'_>) -> Result<RoomOptions> {
    use SlowConsumer::{Close, Conflate, DropNewest, DropOldest};
    Ok(RoomOptions::default()
        .max_messages(*choice.choose(&[1, 3, 1000])?)
        .max_bytes(*choice.choose(&[10, 100, 1 << 20])?)
        .slow_consumer(*choice.choose(&[DropNewest, DropOldest, Conflate, Close])?))
}

impl Member {
    /// Sends directly, and waits if it has to.
    fn send(&mut self, said: &Mutex<Said>, len: usize) {
        let message = said.lock().unwrap().next(len);
        let number = said.lock().unwrap().messages;
        let sender = self.sender.clone();
        let mut task = Task::new(async move { sender.send(message).await });
        task.go_on();
        match &task.output {
            Some(Ok(())) => self.direct.push(number),
            Some(Err(_)) => {}
            None => {
                self.late.push(number);
                self.sends.push(task);
            }
        }
    }

    fn flush(&mut self) {
        let sender = self.sender.clone();
        self.flushes.push(Task::new(async move { sender.flush().await }));
    }

    fn close(&mut self) {
        self.is_closed = true;
        let sender = self.sender.clone();
        self.flushes.push(Task::new(async move { sender.close(1000, "").await.map(drop) }));
    }

    /// The peer says something.
    fn speak(&self) {
        let mut frame = Vec::new();
        RawFrame::new(true, 2, Some([1, 2, 3, 4]), b"hi").encode(&mut frame);
        self.peer.say(&frame);
    }

    fn go_on(&mut self) -> bool {
        let tasks = self.tasks.iter_mut().fold(false, |goes, task| goes | task.go_on());
        let calls = self.sends.iter_mut().chain(&mut self.flushes);
        calls.fold(tasks, |goes, task| goes | task.go_on())
    }

    fn check(&self, broadcasts: u64) {
        let stats = self.membership.stats();
        assert_eq!(stats.queued + stats.dropped + stats.gone, self.meant + broadcasts);
        if self.peer.is_gone() {
            assert!(!self.sender.is_open());
            return;
        }
        let verdict = inflate::read(&self.peer.arrived(), Role::Server, self.takeover);
        let numbers: Vec<u32> = verdict.messages.iter().map(|it| number(&it.payload)).collect();
        let (late, others): (Vec<u32>, Vec<u32>) =
            numbers.iter().partition(|number| self.late.contains(number));
        assert!(others.is_sorted_by(|one, next| one < next), "{others:?}");
        let (direct, room): (Vec<u32>, Vec<u32>) =
            others.iter().partition(|number| self.direct.contains(number));
        if self.is_closed || !self.sender.is_open() {
            return;
        }
        assert_eq!(direct, self.direct);
        assert_eq!(room.len() as u64, stats.queued - stats.replaced, "{stats:?}, {room:?}");
        let sent = self.sends.iter().filter(|task| matches!(task.output, Some(Ok(())))).count();
        assert_eq!(
            (late.len(), sent),
            (self.late.len(), self.late.len()),
            "somebody waits for ever"
        );
        assert!(self.flushes.iter().all(|task| matches!(task.output, Some(Ok(())))), "a flush");
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk().expect("a number"))
}
