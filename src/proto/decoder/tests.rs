use super::*;

const LIMITS: Limits = Limits { max_message_size: 8, max_frame_size: 6, max_fragments: 2 };

/// Decodes `input`, which arrives in pieces of `len` bytes, up to its first error.
fn decode(role: Role, input: &[u8], len: usize) -> Result<(), ProtocolError> {
    let mut decoder = Decoder::new(role, LIMITS, false);
    for mut piece in input.chunks(len) {
        while decoder.next(&mut piece)?.is_some() {}
    }
    Ok(())
}

#[test]
fn each_violation_has_its_own_error_wherever_the_input_is_cut() {
    use ProtocolError as E;
    let cases: [(&[u8], E); 17] = [
        (b"\x88\x01\x03", E::ClosePayloadTruncated),
        (b"\x09\x00", E::ControlFrameFragmented(OpCode::Ping)),
        (b"\x89\x7e\x00\x7e", E::ControlFrameTooLong { len: 126 }),
        (b"\x82\x07", E::FrameTooBig { len: 7, max: 6 }),
        (b"\x88\x02\x03\xed", E::InvalidCloseCode(1005)),
        (b"\x88\x03\x03\xe8\xff", E::InvalidUtf8),
        (b"\x81\x01\xff", E::InvalidUtf8),
        (b"\x01\x01\xc2\x80\x00", E::InvalidUtf8),
        (b"\x82\x7f\x80\0\0\0\0\0\0\0", E::LengthOverflow(1 << 63)),
        (b"\x82\x7e\x00\x05", E::LengthNotMinimal(5)),
        (b"\x82\x80\0\0\0\0", E::MaskUnexpected),
        (b"\x02\x06abcdef\x80\x03", E::MessageTooBig { len: 9, max: 8 }),
        (b"\x01\x00\x82\x00", E::MessageInterrupted(OpCode::Binary)),
        (b"\xa1", E::ReservedBits(0b010)),
        (b"\x83", E::ReservedOpcode(3)),
        (b"\x01\x00\x00\x00\x80\x00", E::TooManyFragments { max: 2 }),
        (b"\x80\x00", E::UnexpectedContinuation),
    ];
    for (input, error) in cases {
        for len in [1, 2, input.len()] {
            assert_eq!(decode(Role::Client, input, len), Err(error), "{input:02x?} by {len}");
        }
    }
    for len in [1, 2] {
        assert_eq!(decode(Role::Server, b"\x81\x00", len), Err(E::MaskMissing));
    }
}

#[test]
fn frames_that_are_just_within_rules_and_limits_are_taken() {
    let input = b"\x02\x06abcdef\x89\x00\x80\x02gh\x01\x01\xc2\x80\x01\xab\x88\x00";
    for len in 1..=input.len() {
        assert_eq!(decode(Role::Client, input, len), Ok(()), "by {len}");
    }
}

/// A frame as it is sent, masked if there is a key.
fn encoded(header: FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    FrameHeader { len: u64::try_from(payload.len()).unwrap(), ..header }.encode(&mut wire);
    let start = wire.len();
    wire.extend_from_slice(payload);
    mask::apply(header.mask.unwrap_or_default(), 0, &mut wire[start..]);
    wire
}

fn header(fin: bool, opcode: OpCode) -> FrameHeader {
    FrameHeader { fin, rsv1: false, opcode, mask: Some([0x37, 0xfa, 0x21, 0x3d]), len: 0 }
}

/// A control frame, or a message that was joined: its opcode, whether it is compressed, its bytes.
type Item = (OpCode, bool, Vec<u8>);

/// Joins frames, whose order has to be that of §5.4.
#[derive(Debug, Default)]
struct Joined {
    items: Vec<Item>,
    message: Option<Item>,
}

impl Joined {
    fn push(&mut self, frame: &Frame) {
        let item = (frame.opcode(), frame.is_deflated(), frame.payload().to_vec());
        if frame.opcode().is_control() {
            return self.items.push(item);
        }
        let mut message = self.message.take();
        if let Some((_, is_deflated, bytes)) = &mut message {
            assert_eq!(frame.opcode(), OpCode::Continuation);
            // On the wire RSV1 follows from it, for the first frame alone.
            assert_eq!(frame.is_deflated(), *is_deflated);
            bytes.extend_from_slice(frame.payload());
        } else {
            assert_ne!(frame.opcode(), OpCode::Continuation);
            message = Some(item);
        }
        if frame.fin() { self.items.extend(message) } else { self.message = message }
    }
}

/// The items of `input`, which arrives in pieces as long as `cut` says, and the first error.
fn joined(
    mut decoder: Decoder,
    mut input: &[u8],
    mut cut: impl FnMut(&mut Decoder) -> usize,
) -> (Vec<Item>, Result<(), ProtocolError>) {
    let mut joined = Joined::default();
    let outcome = loop {
        let len = cut(&mut decoder).clamp(1, input.len().max(1));
        let Some((mut piece, rest)) = input.split_at_checked(len) else { break Ok(()) };
        input = rest;
        let outcome = loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => joined.push(&frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if outcome.is_err() {
            break outcome;
        }
        assert!(piece.is_empty());
        if let Some(len) = decoder.piece_len {
            let most = len.get().max(FrameHeader::MAX_LEN);
            assert!(decoder.buffered() <= most, "{} by {len}", decoder.buffered());
        }
    };
    (joined.items, outcome)
}

#[test]
fn pieces_make_the_same_messages_and_errors_as_whole_frames_wherever_they_are_cut() {
    use OpCode::{Binary, Continuation, Ping, Text};

    let limits = Limits { max_message_size: 24, max_frame_size: 20, max_fragments: 3 };
    let deflated = FrameHeader { rsv1: true, ..header(true, Binary) };
    let text = "dä€\u{1f30a}dä€".as_bytes();
    let frames: [&[Vec<u8>]; 9] = [
        &[encoded(header(true, Text), text), encoded(header(true, Binary), b"0123456789")],
        // A character is cut by the frames, and a control frame stands between them.
        &[
            encoded(header(false, Text), &text[..7]),
            encoded(header(true, Ping), b"ping"),
            encoded(header(false, Continuation), b""),
            encoded(header(true, Continuation), &text[7..]),
            encoded(header(true, Text), b""),
        ],
        &[encoded(deflated, b"not ours to inflate"), encoded(header(true, Text), b"plain")],
        // The text goes wrong in the last byte, or ends inside a character.
        &[encoded(header(true, Text), b"0123456789\xff")],
        &[encoded(header(false, Text), b"0123"), encoded(header(true, Continuation), b"45\xc3")],
        // Limits are those of the frames that were sent, and of their sum.
        &[encoded(header(true, Binary), b"0123456789abcdefghijk")],
        &[encoded(header(false, Binary), &[7; 20]), encoded(header(true, Continuation), &[7; 5])],
        &[
            encoded(header(false, Binary), b"0"),
            encoded(header(false, Continuation), b"1"),
            encoded(header(false, Continuation), b"2"),
            encoded(header(true, Continuation), b"3"),
        ],
        &[encoded(header(false, Binary), b"0123456789"), encoded(header(true, Text), b"01234")],
    ];
    let mut errors = 0;
    for frames in frames {
        let wire = frames.concat();
        let decoder = |piece_len: usize| {
            let mut decoder = Decoder::new(Role::Server, limits, true);
            decoder.set_piece_len(NonZeroUsize::new(piece_len));
            decoder
        };
        let whole = joined(decoder(0), &wire, |_| usize::MAX);
        errors += usize::from(whole.1.is_err());
        for piece_len in 0..24 {
            for cut in 1..=wire.len() {
                let found = joined(decoder(piece_len), &wire, |_| cut);
                assert_eq!(found, whole, "{wire:02x?} in {piece_len} by {cut}");
            }
        }
    }
    assert_eq!(errors, 6);
}

#[test]
fn random_frames_make_the_same_messages_whichever_pieces_they_come_in() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound).unwrap()
    };
    for _ in 0..300 {
        let (mut wire, mut is_inside) = (Vec::new(), false);
        for _ in 0..8 {
            let fin = below(2) == 0;
            let payload: Vec<u8> =
                (0..below(300)).map(|_| u8::try_from(below(256)).unwrap()).collect();
            let opcode = if is_inside { OpCode::Continuation } else { OpCode::Binary };
            let rsv1 = !is_inside && below(3) == 0;
            wire.extend(encoded(FrameHeader { rsv1, ..header(fin, opcode) }, &payload));
            is_inside = !fin;
            if below(4) == 0 {
                wire.extend(encoded(header(true, OpCode::Pong), &payload[..payload.len() / 4]));
            }
        }
        let decoder = || Decoder::new(Role::Server, Limits::default(), true);
        let whole = joined(decoder(), &wire, |_| usize::MAX);
        let found = joined(decoder(), &wire, |decoder| {
            // Told in the middle, too, and told otherwise.
            if below(4) == 0 {
                decoder.set_piece_len(NonZeroUsize::new(75 * below(4)));
            }
            below(150)
        });
        assert_eq!(found, whole);
    }
}

#[test]
fn pieces_are_fragments_that_come_as_their_bytes_arrive() {
    let wire = encoded(header(true, OpCode::Text), b"abcdefghijkl");
    let mut decoder = Decoder::new(Role::Server, Limits::default(), false);
    decoder.set_piece_len(NonZeroUsize::new(4));
    let mut next = |mut input: &[u8]| {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            let payload = String::from_utf8(frame.payload().to_vec()).unwrap();
            frames.push((frame.fin(), frame.opcode(), payload));
        }
        frames
    };
    let continuation = |text: &str| (false, OpCode::Continuation, text.to_owned());
    // The header alone, then nothing.
    assert_eq!(next(&wire[..6]), []);
    assert_eq!(next(&[]), []);
    assert_eq!(next(&wire[6..7]), [(false, OpCode::Text, "a".to_owned())]);
    assert_eq!(
        next(&wire[7..17]),
        [continuation("bcde"), continuation("fghi"), continuation("jk")]
    );
    assert_eq!(next(&wire[17..]), [(true, OpCode::Continuation, "l".to_owned())]);
    // All of its bytes are there at once: it is whole.
    assert_eq!(next(&wire), [(true, OpCode::Text, "abcdefghijkl".to_owned())]);
}

#[test]
fn bytes_that_are_held_are_the_first_piece_as_soon_as_pieces_are_wanted() {
    let wire = encoded(header(true, OpCode::Binary), b"abcdefghijkl");
    let mut decoder = Decoder::new(Role::Server, Limits::default(), false);
    assert_eq!(decoder.next(&mut &wire[..16]), Ok(None));
    assert_eq!(decoder.buffered(), 10);
    decoder.set_piece_len(NonZeroUsize::new(4));
    let first = Frame::new(false, OpCode::Binary, "abcdefghij");
    assert_eq!(decoder.next(&mut &[][..]), Ok(Some(first)));
    assert_eq!(decoder.buffered(), 0);
    // Not any more: the rest of the frame is one piece.
    decoder.set_piece_len(None);
    assert_eq!(decoder.next(&mut &wire[16..17]), Ok(None));
    let last = Frame::new(true, OpCode::Continuation, "kl");
    assert_eq!(decoder.next(&mut &wire[17..]), Ok(Some(last)));
    assert!(!decoder.is_inside_message());
}

#[test]
fn a_long_frame_costs_no_more_memory_than_a_piece() {
    const LEN: usize = 1 << 20;
    const PIECE: usize = 4 << 10;

    let wire = encoded(header(true, OpCode::Binary), &vec![7; LEN]);
    let mut decoder = Decoder::new(Role::Server, Limits::default(), false);
    decoder.set_piece_len(NonZeroUsize::new(PIECE));
    let mut received = 0;
    for mut input in wire.chunks(6_000) {
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            assert!(frame.payload().len() <= PIECE && frame.payload().iter().all(|b| *b == 7));
            received += frame.payload().len();
            if let Part::Body(body) = &decoder.part {
                assert!(body.payload.capacity() <= PIECE, "{}", body.payload.capacity());
            }
        }
    }
    assert_eq!(received, LEN);
}

#[cfg(feature = "tungstenite")]
#[test]
fn the_rest_of_a_frame_is_put_back_as_a_continuation() {
    let wire = encoded(header(true, OpCode::Binary), b"abcdefghijkl");
    let mut decoder = Decoder::new(Role::Server, Limits::default(), false);
    decoder.set_piece_len(NonZeroUsize::new(5));
    let first = Frame::new(false, OpCode::Binary, "abcde");
    assert_eq!(decoder.next(&mut &wire[..11]), Ok(Some(first)));
    decoder.set_piece_len(None);
    assert_eq!(decoder.next(&mut &wire[11..14]), Ok(None));
    assert!(decoder.is_inside_rest());

    let mut rest = Vec::new();
    decoder.put_back(&mut rest);
    rest.extend_from_slice(&wire[14..]);
    let mut other = Decoder::new(Role::Server, Limits::default(), false);
    let begun = encoded(header(false, OpCode::Binary), b"");
    assert!(other.next(&mut &begun[..]).unwrap().is_some());
    let last = Frame::new(true, OpCode::Continuation, "fghijkl");
    assert_eq!(other.next(&mut &rest[..]), Ok(Some(last)));
}
