//! A connection's worth of frames, right and wrong, in pieces of any size: the messages are those of
//! RFC 6455 §5.4, and the end is the right one, whether they are asked for by message or by frame.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidewire::WebSocketOptions;
use tidewire::frame::Role;
use tidewire_fuzz::oracle::{self, Frame, Verdict};
use tidewire_fuzz::stream::Splits;
use tidewire_fuzz::{choice, drive, memory};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let role = choice::role(choice)?;
    let limits = choice::limits(choice)?;
    let splits = choice::splits(choice)?;
    let read_ahead = *choice.choose(&[0, 1, 100, 64 << 10])?;
    let by_frame = choice.arbitrary()?;
    let wire = choice::wire(choice, role)?;
    let expected = oracle::read(&wire, role, &limits);
    let options = drive::options(&limits).read_ahead_size(read_ahead);
    memory::within(200_000 + 12 * wire.len(), || {
        if by_frame {
            check_frames(&wire, splits, role, &options, &expected);
        } else {
            check_messages(&wire, splits, role, &options, &expected);
        }
    });
    Ok(())
}

fn check_messages(
    wire: &[u8],
    splits: Splits,
    role: Role,
    options: &WebSocketOptions,
    expected: &Verdict,
) {
    let (mut ws, _) = drive::connect(wire, splits, role, options);
    let (messages, end) = drive::run(drive::collect(&mut ws));
    assert_eq!(messages, expected.messages);
    drive::check_end(&end, expected.end);
}

fn check_frames(
    wire: &[u8],
    splits: Splits,
    role: Role,
    options: &WebSocketOptions,
    expected: &Verdict,
) {
    let (mut ws, _) = drive::connect(wire, splits, role, options);
    let mut frames = Vec::new();
    let end = drive::run(async {
        loop {
            match ws.recv_frame().await {
                Ok(Some(frame)) => {
                    let (opcode, payload) = (frame.opcode().into(), frame.payload().to_vec());
                    frames.push(Frame { fin: frame.fin(), opcode, payload });
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        }
    });
    assert_eq!(frames, expected.frames);
    drive::check_end(&end, expected.end);
}
