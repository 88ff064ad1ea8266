//! Random calls, abandoned after a random number of polls, over streams that stall and split as
//! they like: whatever happens, what is received is what was sent.
//!
//! A test that fails names its seed; `ONLY` repeats that one.

use std::future::Future;

use async_std::task;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::join3;
use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tidewire::WebSocketOptions;
use tidewire::frame::{Frame, FrameError, OpCode, Role};
use tidewire::{Error, Message, Result, WebSocket};

use crate::support::attempts::{Attempt, Attempts, check_pongs, patience};
use crate::support::frames::{CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT, Transcript};
use crate::support::frames::{close, masked, take_frame};
use crate::support::peer::{Drive, drive, within};
use crate::support::pipe::{End, Knobs, Stutter, pipe};
use crate::support::rng::Rng;

/// A seed to run alone.
const ONLY: Option<u64> = None;

const SEEDS: u64 = 600;

/// Calls of a handler before it says goodbye.
const CALLS: usize = 40;

/// Messages that the peer sends meanwhile.
const MESSAGES: usize = 25;

/// The last message of a handler, after which the peer closes.
const GOODBYE: &[u8] = b"goodbye";

#[test]
fn received_messages_are_the_sent_ones_with_futures_dropped_anywhere() {
    for seed in ONLY.map_or(0..SEEDS, |seed| seed..seed + 1) {
        eprintln!("seed {seed}");
        within(try_one(seed));
    }
}

async fn try_one(seed: u64) {
    let mut rng = Rng::new(seed);
    let by = if rng.one_in(2) { Drive::Task } else { Drive::Caller };
    let is_moved = rng.one_in(3);
    let knobs = Knobs {
        read: pick(&mut rng, [1, 7, 100, usize::MAX]),
        write: pick(&mut rng, [1, 7, 100, usize::MAX]),
        in_flight: pick(&mut rng, [16, 200, 5_000, usize::MAX]),
        stutter: Stutter::Random(seed),
    };
    let (stream, end) = pipe(knobs);
    let options = WebSocketOptions::default()
        .send_buffer_size(pick(&mut rng, [1, 60, 2_000, 64 << 10]))
        .read_ahead_size(pick(&mut rng, [0, 60, 2_000, 64 << 10]));
    eprintln!("{by:?}, moved: {is_moved}, {knobs:?}, {options:?}");

    let (tell, told) = oneshot::channel();
    let handler_rng = rng.clone();
    drive(by, stream, Role::Server, &options, |ws| async move {
        let work = Handler::new(ws, handler_rng).run().map(|outcome| tell.send(outcome));
        // A handler may give its connection to another task, and return.
        if is_moved {
            drop(task::spawn(work));
        } else {
            drop(work.await);
        }
        Ok(())
    });
    let (reader, writer) = end.split();
    let (said, goodbye) = oneshot::channel();
    let (told, sent, heard) =
        join3(told, talk(writer, Rng::new(!seed), goodbye), listen(reader, said)).await;
    let (attempts, received) = told.expect("the handler ends").expect("the handler succeeds");

    assert_eq!(received, sent.messages, "what the handler received");
    assert_eq!(heard.close.as_ref().and_then(Seen::close_code), Some(1000));
    check_pongs(heard.pongs.iter().map(Vec::as_slice), &sent.pings);
    let messages = heard.messages.iter().map(|seen| (seen.head & 0x0f, &*seen.payload));
    attempts.check(messages, heard.pings.iter().map(Vec::as_slice));
}

fn pick<const N: usize>(rng: &mut Rng, values: [usize; N]) -> usize {
    values[rng.below(N)]
}

struct Handler {
    ws: WebSocket,
    rng: Rng,
    attempts: Attempts,
    received: Vec<Message>,
}

impl Handler {
    fn new(ws: WebSocket, rng: Rng) -> Self {
        Self { ws, rng, attempts: Attempts::default(), received: vec![] }
    }

    async fn run(mut self) -> Result<(Attempts, Vec<Message>)> {
        for number in 0..CALLS {
            match self.rng.below(9) {
                0 | 1 => self.send(number, false).await?,
                2 => self.send(number, true).await?,
                3 => self.send_fragments(number).await?,
                4 => self.ping(number).await?,
                5 => drop(maybe(&mut self.rng, self.ws.flush()).await.transpose()?),
                6 => task::yield_now().await,
                // Who waits for more than the peer has to say waits for ever.
                _ if self.received.len() == MESSAGES => {}
                _ => {
                    let received = maybe(&mut self.rng, self.ws.recv()).await.transpose()?;
                    self.received.extend(received.flatten());
                }
            }
        }
        self.ws.send_binary(GOODBYE).await?;
        while let Some(message) = self.ws.recv().await? {
            self.received.push(message);
        }
        Ok((self.attempts, self.received))
    }

    async fn send(&mut self, number: usize, by_sender: bool) -> Result<()> {
        let payload = payload(&mut self.rng, number, 0);
        let message = Message::from(String::from_utf8(payload.clone()).unwrap());
        let sender = self.ws.sender();
        let sent = if by_sender {
            maybe(&mut self.rng, sender.send(message)).await
        } else {
            maybe(&mut self.rng, self.ws.send(message)).await
        };
        let is_certain = sent.transpose()?.is_some();
        self.attempts.messages.push(Attempt::new(1, payload, is_certain));
        Ok(())
    }

    async fn ping(&mut self, number: usize) -> Result<()> {
        let payload = number.to_be_bytes().to_vec();
        let sent = maybe(&mut self.rng, self.ws.ping(payload.clone())).await.transpose()?;
        self.attempts.pings.push(Attempt::new(9, payload, sent.is_some()));
        Ok(())
    }

    /// Sends a message in fragments, any of which may be given up, and then ends it.
    async fn send_fragments(&mut self, number: usize) -> Result<()> {
        let mut attempt = Attempt { opcode: 2, parts: vec![] };
        for part in 0..=self.rng.below(4) {
            let opcode = if part == 0 { OpCode::Binary } else { OpCode::Continuation };
            let payload = payload(&mut self.rng, number, part);
            let frame = Frame::new(false, opcode, payload.clone());
            match maybe(&mut self.rng, self.ws.send_frame(frame)).await {
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

/// The output of a call, unless it is abandoned.
async fn maybe<F: Future>(rng: &mut Rng, call: F) -> Option<F::Output> {
    let polls = if rng.one_in(2) { usize::MAX } else { rng.below(6) };
    patience(polls, call).await
}

/// A payload that no other attempt has, sometimes a long one.
fn payload(rng: &mut Rng, number: usize, part: usize) -> Vec<u8> {
    let most = pick(rng, [0, 1, 100, 200, 1_000]);
    format!("<{number}.{part}>{}", "x".repeat(rng.below(most + 1))).into_bytes()
}

/// What the peer sent.
struct Sent {
    messages: Vec<Message>,
    pings: Vec<Vec<u8>>,
}

/// Sends messages in fragments, with pings between them, in writes of any size.
async fn talk(mut writer: WriteHalf<End>, mut rng: Rng, goodbye: oneshot::Receiver<()>) -> Sent {
    let mut sent = Sent { messages: vec![], pings: vec![] };
    for number in 0..MESSAGES {
        let (mut head, mut whole, mut wire) = (TEXT, vec![], vec![]);
        for part in 0..=rng.below(3) {
            if rng.one_in(4) {
                let ping = vec![u8::try_from(number).unwrap(), u8::try_from(part).unwrap()];
                wire.extend(masked(PING, &ping));
                sent.pings.push(ping);
            }
            if rng.one_in(10) {
                wire.extend(masked(PONG, ""));
            }
            let payload = payload(&mut rng, number, part);
            wire.extend(masked(head & !FIN, &payload));
            whole.extend(payload);
            head = CONTINUATION;
        }
        wire.extend(masked(CONTINUATION, ""));
        sent.messages.push(Message::text(String::from_utf8(whole).unwrap()));
        while !wire.is_empty() {
            let len = (1 + rng.below(600)).min(wire.len());
            writer.write_all(&wire[..len]).await.unwrap();
            wire.drain(..len);
            if rng.one_in(3) {
                task::yield_now().await;
            }
        }
    }
    goodbye.await.unwrap();
    writer.write_all(&masked(CLOSE, close(1000, ""))).await.unwrap();
    sent
}

/// Reads to the end of the stream, and tells when the handler says goodbye.
async fn listen(mut reader: ReadHalf<End>, said: oneshot::Sender<()>) -> Transcript {
    let (mut said, mut all, mut pos, mut buf) = (Some(said), vec![], 0, [0; 4096]);
    loop {
        let len = reader.read(&mut buf).await.unwrap();
        if len == 0 {
            let mut seen = Transcript::of(&all, false);
            assert_eq!(seen.messages.pop().unwrap().payload, GOODBYE);
            return seen;
        }
        all.extend_from_slice(&buf[..len]);
        let mut rest = &all[pos..];
        while let Some(seen) = take_frame(&mut rest, false) {
            if seen.payload == GOODBYE {
                said.take().unwrap().send(()).unwrap();
            }
        }
        pos = all.len() - rest.len();
    }
}
