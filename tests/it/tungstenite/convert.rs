//! Values, from one crate's types to the other's.

use async_tungstenite::tungstenite::protocol::frame::coding;
use async_tungstenite::tungstenite::{self, Bytes, protocol};
use tidewire::frame::ProtocolError;
use tidewire::{CloseCode, CloseFrame, Message};

#[test]
fn messages_convert_in_both_directions() {
    let long = "é".repeat(100);
    let cases = [
        (Message::text("hello"), tungstenite::Message::text("hello")),
        (Message::text(""), tungstenite::Message::text("")),
        (Message::text(long.clone()), tungstenite::Message::text(long)),
        (Message::binary("hello"), tungstenite::Message::binary("hello".as_bytes())),
        (Message::binary(vec![0xff; 200]), tungstenite::Message::binary(vec![0xff; 200])),
    ];
    for (ours, theirs) in cases {
        assert_eq!(tungstenite::Message::from(ours.clone()), theirs);
        assert_eq!(Message::try_from(theirs), Ok(ours));
    }
}

#[test]
fn a_value_that_is_not_a_message_is_given_back() {
    let frame = protocol::frame::Frame::ping(b"p".as_slice());
    let others = [
        tungstenite::Message::Ping(Bytes::from_static(b"p")),
        tungstenite::Message::Pong(Bytes::from_static(b"p")),
        tungstenite::Message::Close(None),
        tungstenite::Message::Frame(frame),
    ];
    for other in others {
        assert_eq!(Message::try_from(other.clone()), Err(other));
    }
}

#[test]
fn every_close_code_that_may_travel_converts_and_no_other() {
    for number in 0..=u16::MAX {
        let theirs = (number > 0).then(|| coding::CloseCode::from(number));
        let ours = CloseCode::try_from(number);
        if let Ok(code) = ours {
            assert_eq!(u16::from(coding::CloseCode::from(code)), number);
        }
        if let Some(theirs) = theirs {
            assert_eq!(CloseCode::try_from(theirs), ours, "{number}");
        }
    }
}

#[test]
fn close_frames_convert_if_they_may_travel() {
    let ours = CloseFrame::new(CloseCode::GOING_AWAY, "later").unwrap();
    let theirs = |code, reason: &str| protocol::CloseFrame { code, reason: reason.into() };
    assert_eq!(protocol::CloseFrame::from(ours.clone()), theirs(coding::CloseCode::Away, "later"));
    assert_eq!(theirs(coding::CloseCode::Away, "later").try_into(), Ok(ours));

    let unsent = CloseFrame::try_from(theirs(coding::CloseCode::Abnormal, ""));
    assert_eq!(unsent, Err(ProtocolError::InvalidCloseCode(1006)));
    let long = CloseFrame::try_from(theirs(coding::CloseCode::Normal, &"x".repeat(124)));
    assert_eq!(long, Err(ProtocolError::ControlFrameTooLong { len: 126 }));
}
