//! Compressed messages that something on the way has changed.

use std::ops::ControlFlow;

use futures::future::join;
use tidewire::frame::{ProtocolError, Role};
use tidewire::{Error, Message, WebSocket};

use crate::support::deflate::codec::Deflater;
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed, words};
use crate::support::frames::{CLOSE, Seen, TEXT, close, masked, take_frame};
use crate::support::peer::{Peer, collect, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::rng::Rng;

/// What came of a message and one after it.
type Outcome = (Vec<Message>, Option<ProtocolError>);

/// Sends both to a handler that collects. The peer learns what the handler does.
async fn received(answer: &str, payload: &[u8], after: &[u8]) -> Outcome {
    let (stream, end) = pipe(Knobs::default());
    let options = agreed(answer).max_message_size(600);
    let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options);
    let mut peer = Peer { end };
    let talking = async move {
        let head = TEXT | DEFLATED;
        let bye = masked(CLOSE, close(1000, ""));
        peer.send([masked(head, payload), masked(head, after), bye].concat()).await;
        peer.rest().await
    };
    let ((messages, end), seen) = join(collect(&mut ws), talking).await;
    let code = take_frame(&mut &*seen, false).as_ref().and_then(Seen::close_code);
    match end {
        Ok(()) => {
            assert_eq!((messages.len(), code), (2, Some(1000)));
            (messages, None)
        }
        Err(Error::Protocol(error)) => {
            assert_eq!(code, Some(error.close_code().into()));
            (messages, Some(error))
        }
        Err(other) => panic!("{other:?} instead of a protocol error"),
    }
}

fn is_one_of_compression(error: ProtocolError) -> bool {
    let (corrupt, invalid) = (ProtocolError::DeflateCorrupt, ProtocolError::InvalidUtf8);
    error == corrupt || error == invalid || matches!(error, ProtocolError::MessageTooBig { .. })
}

/// Changes a message of some 200 bytes in each way that `change` knows, and sends it.
fn each_change(change: impl Fn(usize, &mut Vec<u8>) -> ControlFlow<()>) {
    let text = words(&mut Rng::new(7), 450);
    for answer in [ALONE, TAKEOVER] {
        let mut deflater = Deflater::new(6, 15, answer == TAKEOVER);
        let [payload, after] = [&*text, "after"].map(|text| deflater.deflate(text));
        assert!((150..=250).contains(&payload.len()), "{} bytes", payload.len());
        let whole = within(received(answer, &payload, &after));
        assert_eq!(whole, (vec![Message::from(&*text), Message::from("after")], None));

        let (mut errors, mut others) = (0, 0);
        for number in 0.. {
            let mut changed = payload.clone();
            if change(number, &mut changed).is_break() {
                break;
            }
            let (messages, error) = within(received(answer, &changed, &after));
            let is_told = error.is_none_or(is_one_of_compression);
            assert!(is_told, "{answer}, change {number}: {messages:?}, {error:?}");
            errors += usize::from(error.is_some());
            others += usize::from(messages.first().is_some_and(|other| other.len() <= 600));
        }
        eprintln!("{answer}: {errors} errors, {others} messages");
        assert!(errors > 0 && others > 0, "{errors} errors, {others} messages");
    }
}

#[test]
fn a_message_changed_in_any_bit_is_an_error_or_another_message() {
    each_change(|bit, payload| match payload.get_mut(bit / 8) {
        None => ControlFlow::Break(()),
        Some(byte) => {
            *byte ^= 1 << (bit % 8);
            ControlFlow::Continue(())
        }
    });
}

#[test]
fn a_message_with_any_byte_replaced_is_an_error_or_another_message() {
    each_change(|number, payload| match payload.get_mut(number / 4) {
        None => ControlFlow::Break(()),
        Some(byte) => {
            *byte = [0x00, 0xff, !*byte, byte.wrapping_add(1)][number % 4];
            ControlFlow::Continue(())
        }
    });
}

#[test]
fn a_message_without_any_of_its_bytes_or_with_one_twice_is_an_error_or_another_message() {
    each_change(|number, payload| {
        let (at, is_twice) = (number / 2, number % 2 == 1);
        if at == payload.len() {
            return ControlFlow::Break(());
        }
        if is_twice {
            payload.insert(at, payload[at]);
        } else {
            payload.remove(at);
        }
        ControlFlow::Continue(())
    });
}
