//! Compressed messages, whole, corrupt, cut and far too long, in frames of any size: what comes out is
//! what miniz makes of them, never more than the limit, and what is refused has the right code.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidewire::Error;
use tidewire::frame::{Frame, Role};
use tidewire_fuzz::inflate::{Deflater, Inflater, Refusal, message};
use tidewire_fuzz::oracle::{Limits, Message};
use tidewire_fuzz::wire::RawFrame;
use tidewire_fuzz::{choice, drive, memory};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let (role, splits) = (choice::role(choice)?, choice::splits(choice)?);
    let max = *choice.choose(&[0, 10, 300, 70_000])?;
    let limits = Limits { message: max, frame: usize::MAX, fragments: usize::MAX };
    let (takeover, by_frame) = (choice.arbitrary()?, choice.arbitrary()?);
    let mut expected = Expected::default();
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::new(choice.arbitrary()?));
    let mut wire = Vec::new();
    while !choice.is_empty() {
        let is_text = choice.ratio(1, 4)?;
        let (payload, is_sound) = payload(choice, &mut deflater, takeover)?;
        encode(choice, role, is_text, &payload, &mut wire)?;
        if expected.codes.is_empty() {
            if !is_sound {
                expected.sound.get_or_insert(expected.messages.len());
            }
            expected.take(is_text, &payload, max, inflater.message(&payload, max, takeover));
        }
    }
    // With nothing but the end of the stream, that might be noticed first.
    let mask = (role == Role::Server).then_some([0; 4]);
    RawFrame::new(true, 8, mask, &[]).encode(&mut wire);
    let agreed = if takeover {
        "permessage-deflate"
    } else {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    };
    let options = drive::options(&limits).agreed_deflate(agreed.parse().unwrap());
    // What has been received is kept here, and some bytes may be many a message.
    let kept: usize = expected.messages.iter().map(|message| message.payload.len()).sum();
    let most = 500_000 + 4 * max + 12 * wire.len() + 2 * kept;
    let (messages, end) = memory::within(most, || {
        let (mut ws, _) = drive::connect(&wire, splits, role, &options);
        drive::run(async {
            if by_frame { collect_frames(&mut ws).await } else { drive::collect(&mut ws).await }
        })
    });
    let code = match &end {
        Ok(()) => None,
        Err(Error::Protocol(error)) => Some(drive::code_of(*error)),
        Err(error) => panic!("{error}"),
    };
    expected.check(&messages, code);
    Ok(())
}

/// Messages before the first that is refused, and the codes that it may be refused with.
#[derive(Debug, Default)]
struct Expected {
    messages: Vec<Message>,
    codes: Vec<u16>,
    /// How many come before any that was tampered with. Miniz puts up with codes that are incomplete
    /// and used all the same, where zlib refuses them.
    sound: Option<usize>,
}

impl Expected {
    fn check(&self, messages: &[Message], code: Option<u16>) {
        let may_refuse = self.sound.is_some_and(|sound| messages.len() >= sound);
        if code == Some(1007) && may_refuse && self.messages.starts_with(messages) {
            return;
        }
        assert_eq!(messages, self.messages);
        let is_expected = code.map_or(self.codes.is_empty(), |code| self.codes.contains(&code));
        assert!(is_expected, "{code:?}, {self:?}");
    }

    fn take(
        &mut self,
        is_text: bool,
        compressed: &[u8],
        max: usize,
        (payload, result): (Vec<u8>, std::result::Result<(), Refusal>),
    ) {
        let text = std::str::from_utf8(&payload);
        let is_bad_text =
            |is_whole| is_text && text.is_err_and(|e| is_whole || e.error_len().is_some());
        self.codes = match result {
            // The header of a later frame says so, after the first have been looked into.
            _ if compressed.len() > max + max / 8 + 64 => vec![1007, 1009],
            Err(Refusal::Corrupt) => vec![1007],
            Err(Refusal::Both) => vec![1007, 1009],
            Err(Refusal::TooBig) if is_bad_text(false) => vec![1007, 1009],
            Err(Refusal::TooBig) => vec![1009],
            Ok(()) if is_bad_text(true) => vec![1007],
            Ok(()) => return self.messages.push(Message { is_text, payload }),
        };
    }
}

/// A compressed message, or something that only looks like one; true if it is one.
fn payload(
    choice: &mut Unstructured<'_>,
    deflater: &mut Deflater,
    takeover: bool,
) -> Result<(Vec<u8>, bool)> {
    let kind: u8 = choice.int_in_range(0..=9)?;
    if kind == 0 {
        let len = choice.int_in_range(0..=40)?;
        return Ok((choice.bytes(len.min(choice.len()))?.to_vec(), false));
    }
    let plain = message(choice)?;
    if kind == 1 {
        // A stream that ends, and what may follow it.
        let mut payload = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        payload.extend(choice.bytes(choice.len().min(1))?);
        return Ok((payload, false));
    }
    let mut payload = deflater.message(&plain, takeover);
    if kind == 2 && !payload.is_empty() {
        let at = choice.choose_index(payload.len())?;
        if choice.arbitrary()? {
            payload.truncate(at);
        } else {
            payload[at] ^= choice.arbitrary::<u8>()?;
        }
    }
    Ok((payload, kind != 2))
}

fn encode(
    choice: &mut Unstructured<'_>,
    role: Role,
    is_text: bool,
    payload: &[u8],
    wire: &mut Vec<u8>,
) -> Result<()> {
    let mask = (role == Role::Server).then_some([1, 2, 3, 4]);
    let (mut rest, mut opcode, mut rsv) = (payload, if is_text { 1 } else { 2 }, 4);
    loop {
        let most = if choice.is_empty() { usize::MAX } else { choice.arbitrary::<u16>()?.into() };
        let len = rest.len().min(most);
        let (piece, after) = rest.split_at(len);
        let frame = RawFrame::new(after.is_empty(), opcode, mask, piece);
        RawFrame { rsv, ..frame }.encode(wire);
        (rest, opcode, rsv) = (after, 0, 0);
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// As [`drive::collect`], of frames that are joined here.
async fn collect_frames(ws: &mut tidewire::WebSocket) -> (Vec<Message>, tidewire::Result<()>) {
    let (mut messages, mut partial) = (Vec::new(), Vec::<Frame>::new());
    loop {
        match ws.recv_frame().await {
            Ok(Some(frame)) if frame.opcode().is_data() => partial.push(frame),
            Ok(Some(_)) => continue,
            Ok(None) => return (messages, Ok(())),
            Err(error) => return (messages, Err(error)),
        }
        if partial.last().is_some_and(Frame::fin) {
            let is_text = partial[0].opcode() == tidewire::frame::OpCode::Text;
            let payload = partial.drain(..).flat_map(Frame::into_payload).collect();
            messages.push(Message { is_text, payload });
        }
    }
}
