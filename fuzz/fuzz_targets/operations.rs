//! Any calls, each given up after any number of polls, over a stream that splits and stalls: what is
//! received is what was sent, in both directions, and nobody waits for ever.

#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};
use futures::{FutureExt, SinkExt, StreamExt};
use libfuzzer_sys::fuzz_target;
use tidewire::Error;
use tidewire::frame::{Frame, FrameError, OpCode, Role};
use tidewire::websocket::PreparedMessage;
use tidewire::{WebSocket, WebSocketOptions};
use tidewire_fuzz::attempts::{Attempt, Attempts, check_pongs, patience};
use tidewire_fuzz::oracle::{End, Message};
use tidewire_fuzz::stream::{Last, script};
use tidewire_fuzz::wire::RawFrame;
use tidewire_fuzz::{choice, drive, inflate};

/// The last message of a handler, after which the peer closes.
const GOODBYE: &[u8] = b"goodbye";

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let has_task: bool = choice.arbitrary()?;
    let splits = choice::splits(choice)?;
    let (options, takeover) = options(choice)?;
    let peer = Peer::new(choice)?;
    // A server does not mask, so the last word is found as it is.
    let mut goodbye = Vec::new();
    RawFrame::new(true, 2, None, GOODBYE).encode(&mut goodbye);
    let mut close = Vec::new();
    RawFrame::new(true, 8, Some([1, 2, 3, 4]), &[3, 232]).encode(&mut close);
    let last = Last::Answer { to: goodbye, with: close };
    let (stream, written) = script(&peer.wire, splits, last);

    let calls = std::iter::from_fn(|| Call::new(choice).ok().flatten()).collect();
    let done = Arc::new(Mutex::new(None));
    let (tell, expected) = (Arc::clone(&done), peer.messages.len());
    let handler = move |ws: WebSocket| async move {
        let handler = Handler { ws, attempts: Attempts::default(), received: vec![], expected };
        let done = handler.run(calls).await?;
        *tell.lock().unwrap() = Some(done);
        Ok::<_, Error>(())
    };
    let unread = bytes::Bytes::new();
    if has_task {
        drive::run(WebSocket::run(stream, unread, Role::Server, &options, handler));
    } else {
        let ws = WebSocket::from_stream(stream, unread, Role::Server, &options);
        drive::run(handler(ws)).expect("the handler succeeds");
    }
    let (mut attempts, received) = done.lock().unwrap().take().expect("the handler succeeds");
    assert_eq!(received, peer.messages);
    attempts.messages.push(Attempt::new(2, GOODBYE.to_vec(), true));
    let arrived = inflate::read(&written.bytes(), Role::Server, takeover);
    assert_eq!(arrived.end, End::Close(Some(1000)));
    let messages = arrived.messages.iter();
    let messages = messages.map(|it| (if it.is_text { 1 } else { 2 }, &*it.payload));
    let of = |opcode| {
        let frames = arrived.frames.iter().filter(move |frame| frame.opcode == opcode);
        frames.map(|frame| &*frame.payload)
    };
    attempts.check(messages, of(9));
    check_pongs(of(10), &peer.pings);
    Ok(())
}

fn options(choice: &mut Unstructured<'_>) -> Result<(WebSocketOptions, bool)> {
    let options = WebSocketOptions::default()
        .send_buffer_size(*choice.choose(&[1, 60, 2_000, 64 << 10])?)
        .read_ahead_size(*choice.choose(&[0, 60, 2_000, 64 << 10])?)
        .message_timeout(None)
        .send_timeout(None);
    choice::deflate(choice, options)
}

/// What the peer sends before it closes.
#[derive(Default)]
struct Peer {
    wire: Vec<u8>,
    messages: Vec<Message>,
    pings: Vec<Vec<u8>>,
}

impl Peer {
    fn new(choice: &mut Unstructured<'_>) -> Result<Self> {
        let (mut peer, mask) = (Self::default(), Some([1, 2, 3, 4]));
        for number in 0..choice.int_in_range(0..=12)? {
            let (mut whole, mut opcode) = (vec![], 2);
            for part in 0..=choice.int_in_range(0..=2)? {
                if choice.ratio(1, 4)? {
                    RawFrame::new(true, 9, mask, &[number, part]).encode(&mut peer.wire);
                    peer.pings.push(vec![number, part]);
                }
                let piece = vec![number; choice.int_in_range(0..=300)?];
                RawFrame::new(false, opcode, mask, &piece).encode(&mut peer.wire);
                whole.extend(piece);
                opcode = 0;
            }
            RawFrame::new(true, 0, mask, &[]).encode(&mut peer.wire);
            peer.messages.push(Message { is_text: false, payload: whole });
        }
        Ok(peer)
    }
}

#[derive(Clone, Copy, Debug)]
struct Call {
    kind: u8,
    /// Polls after which it is given up.
    polls: usize,
    len: usize,
}

impl Call {
    fn new(choice: &mut Unstructured<'_>) -> Result<Option<Self>> {
        if choice.is_empty() {
            return Ok(None);
        }
        let (kind, polls, len): (u8, u8, u8) = choice.arbitrary()?;
        let polls = if polls & 1 == 0 { usize::MAX } else { usize::from(polls >> 1 & 7) };
        let len = match len {
            0xff => 200_000,
            0xfe => 70_000,
            len => usize::from(len) * 4,
        };
        Ok(Some(Self { kind: kind % 13, polls, len }))
    }

    /// A payload that no other call has. Numbers that do not repeat do not compress too well.
    fn payload(self, number: usize) -> Vec<u8> {
        let tail = (0..self.len).map(|n| (n.wrapping_mul(n) >> 7) as u8);
        format!("<{number}>").into_bytes().into_iter().chain(tail).collect()
    }

    /// The output of a future, unless that is given up.
    async fn maybe<F: Future>(self, future: F) -> Option<F::Output> {
        patience(self.polls, future).await
    }
}

struct Handler {
    ws: WebSocket,
    attempts: Attempts,
    received: Vec<Message>,
    /// How many messages there will be.
    expected: usize,
}

impl Handler {
    async fn run(mut self, calls: Vec<Call>) -> tidewire::Result<(Attempts, Vec<Message>)> {
        for (number, call) in calls.into_iter().enumerate() {
            self.call(number, call).await?;
        }
        SinkExt::<tidewire::Message>::flush(&mut self.ws).await?;
        self.ws.send(tidewire::Message::binary(GOODBYE).uncompressed()).await?;
        while let Some(message) = self.ws.recv().await? {
            self.received.push(drive::heard(&message));
        }
        Ok((self.attempts, self.received))
    }

    async fn call(&mut self, number: usize, call: Call) -> tidewire::Result<()> {
        let payload = call.payload(number);
        let message = tidewire::Message::binary(payload.clone());
        let sender = self.ws.sender();
        let sent = match call.kind {
            0 => call.maybe(self.ws.send(message)).await,
            1 => call.maybe(sender.send(message)).await,
            2 => call.maybe(sender.send_prepared(&PreparedMessage::from(message))).await,
            3 => call.maybe(self.ws.send(message.compressed())).await,
            4 => return self.feed(payload, call).await,
            5 => return self.send_fragments(number, call).await,
            6 => return self.ping(number, call).await,
            7 => return call.maybe(self.ws.flush()).await.transpose().map(drop),
            8 => return call.maybe(sender.flush()).await.transpose().map(drop),
            9 => {
                drop(call.maybe(self.ws.closed()).now_or_never());
                return Ok(());
            }
            // Who waits for more than the peer has to say waits for ever.
            10.. if self.received.len() == self.expected => return Ok(()),
            10 => {
                let next = call.maybe(self.ws.next()).await.flatten().transpose()?;
                self.received.extend(next.map(|message| drive::heard(&message)));
                return Ok(());
            }
            _ => {
                let received = call.maybe(self.ws.recv()).await.transpose()?.flatten();
                self.received.extend(received.map(|message| drive::heard(&message)));
                return Ok(());
            }
        };
        let is_certain = sent.transpose()?.is_some();
        self.attempts.messages.push(Attempt::new(2, payload, is_certain));
        Ok(())
    }

    /// Through the `Sink`, which has the message once it was ready.
    async fn feed(&mut self, payload: Vec<u8>, call: Call) -> tidewire::Result<()> {
        let message = tidewire::Message::binary(payload.clone());
        let fed = call.maybe(SinkExt::feed(&mut self.ws, message)).await;
        if fed.transpose()?.is_some() {
            // What it has taken is sent before anything else is.
            SinkExt::<tidewire::Message>::flush(&mut self.ws).await?;
            self.attempts.messages.push(Attempt::new(2, payload, true));
        }
        Ok(())
    }

    async fn ping(&mut self, number: usize, call: Call) -> tidewire::Result<()> {
        let payload = number.to_be_bytes().to_vec();
        let sent = call.maybe(self.ws.ping(payload.clone())).await.transpose()?;
        self.attempts.pings.push(Attempt::new(9, payload, sent.is_some()));
        Ok(())
    }

    /// Sends a message in fragments, any of which may be given up, and then ends it.
    async fn send_fragments(&mut self, number: usize, call: Call) -> tidewire::Result<()> {
        let mut attempt = Attempt { opcode: 2, parts: vec![] };
        for part in 0..1 + number % 3 {
            let opcode = if part == 0 { OpCode::Binary } else { OpCode::Continuation };
            let payload = [call.payload(number), vec![part as u8]].concat();
            let frame = Frame::new(false, opcode, payload.clone());
            let frame = if number % 2 == 0 { frame.compressed() } else { frame };
            match call.maybe(self.ws.send_frame(frame)).await {
                // The first frame was given up and not sent.
                Some(Err(Error::Frame(FrameError::UnexpectedContinuation))) => break,
                sent => attempt.parts.push((payload, sent.transpose()?.is_some())),
            }
        }
        match self.ws.send_frame(Frame::new(true, OpCode::Continuation, "")).await {
            Err(Error::Frame(FrameError::UnexpectedContinuation)) => {}
            sent => {
                sent?;
                self.attempts.messages.push(attempt);
            }
        }
        Ok(())
    }
}
