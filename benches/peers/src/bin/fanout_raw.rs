//! The floor of fan-out: what is left when a room costs nothing but one `send` for each member.
//!
//! All whole frames of one `read` are unmasked into one buffer, and that is written to every socket in
//! turn, from one thread. There is no task, lock, wake-up or queue, and no check of what the peer says.
//! A socket that takes nothing is tried again until it does: nothing here is for a slow member.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use peers::{server, wire};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// The event data of the listener; a member's is its descriptor.
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    let listener = server::listen()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut room = Room { epoll, listener, members: Vec::new(), scratch: vec![0; 256 << 10] };
    let mut events: Vec<Event> = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&room.epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => drop(outcome?),
        }
        for event in &events {
            match usize::try_from(event.data.u64()) {
                Ok(fd) if event.data.u64() != LISTENER => room.hear(fd),
                _ => room.accept()?,
            }
        }
    }
}

struct Room {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor, which the kernel keeps dense.
    members: Vec<Option<Member>>,
    scratch: Vec<u8>,
}

struct Member {
    stream: TcpStream,
    is_upgraded: bool,
    /// What has come and is not whole.
    partial: Vec<u8>,
}

impl Room {
    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            let fd = usize::try_from(stream.as_raw_fd()).expect("a descriptor is not negative");
            epoll::add(&self.epoll, &stream, EventData::new_u64(fd as u64), EventFlags::IN)?;
            if self.members.len() <= fd {
                self.members.resize_with(fd + 1, || None);
            }
            self.members[fd] = Some(Member { stream, is_upgraded: false, partial: Vec::new() });
        }
        Ok(())
    }

    /// Reads what a member says, and tells everybody.
    fn hear(&mut self, fd: usize) {
        let Some(mut member) = self.members[fd].take() else { return };
        let len = match member.stream.read(&mut self.scratch) {
            Ok(0) | Err(_) => return,
            Ok(len) => len,
        };
        member.partial.extend_from_slice(&self.scratch[..len]);
        let said = if member.is_upgraded { member.frames() } else { Some(member.upgrade()) };
        // Whoever closes is gone, without an answer.
        let Some(said) = said else { return };
        self.members[fd] = Some(member);
        if said.is_empty() {
            return;
        }
        for member in self.members.iter_mut().flatten().filter(|member| member.is_upgraded) {
            member.tell(&said);
        }
    }
}

impl Member {
    fn upgrade(&mut self) -> Vec<u8> {
        if let Some(len) = wire::head_len(&self.partial) {
            let head = String::from_utf8_lossy(&self.partial[..len]).into_owned();
            let answer = wire::response(&head).expect("a key");
            self.tell(answer.as_bytes());
            self.is_upgraded = true;
            self.partial.drain(..len);
        }
        Vec::new()
    }

    /// All whole frames as everybody gets them; `None` if one of them closes.
    fn frames(&mut self) -> Option<Vec<u8>> {
        let (mut said, mut at) = (Vec::new(), 0);
        while let Some(header) = wire::Header::parse(&self.partial[at..]) {
            let end = at + header.frame();
            if end > self.partial.len() {
                break;
            }
            if header.first == wire::CLOSE {
                return None;
            }
            let payload = said.len() + wire::header_len(header.payload);
            said.resize(payload, 0);
            wire::put_header_before(&mut said, payload, header.first, header.payload);
            said.extend_from_slice(&self.partial[at + header.len..end]);
            wire::mask(&mut said[payload..], header.key.unwrap_or_default());
            at = end;
        }
        self.partial.drain(..at);
        Some(said)
    }

    fn tell(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                // It is read next, and that is its end.
                Err(_) => return,
            }
        }
    }
}
