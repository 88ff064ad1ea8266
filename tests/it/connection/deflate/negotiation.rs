//! The opening handshake with permessage-deflate (RFC 7692 §5, §7.1), as bytes and as a handler
//! sees it.

use std::net::SocketAddr;

use tidewire::deflate::DeflateOptions;
use tidewire::{Message, RequestContext, Server, WebSocketOptions};

use crate::support::deflate::codec::{Deflater, Reader};
use crate::support::deflate::{DEFLATED, parameters, words};
use crate::support::frames::{Seen, TEXT, hex, masked, plain};
use crate::support::peer::echo;
use crate::support::rng::Rng;
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

/// A client that offers these, a line each, and the head of the answer.
fn offer(addr: SocketAddr, lines: &[&str]) -> (Tcp, String) {
    let mut opening = OPENING.trim_end().to_owned();
    for line in lines {
        opening += "\r\nSec-WebSocket-Extensions: ";
        opening += line;
    }
    let mut client = Tcp::connect(addr);
    client.send(opening + "\r\n\r\n");
    let head = client.head();
    (client, head)
}

/// What the head of a 101 says of extensions.
fn answer(head: &str) -> Option<&str> {
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut lines = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-extensions").then_some(value)
    });
    let answer = lines.next();
    assert_eq!(lines.next(), None, "one line: {head}");
    answer
}

/// A server that says what was agreed on, and then is an echo.
fn server(options: &WebSocketOptions) -> Server {
    let mut server = Server::new();
    let options = options.clone();
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let agreed = ws.deflate_parameters().map(|agreed| agreed.to_string());
            ws.send(Message::from(agreed.unwrap_or_default()).uncompressed()).await?;
            echo(ws).await?;
            Ok(())
        }
    });
    server
}

fn takeover() -> DeflateOptions {
    DeflateOptions::default().server_context_takeover(true).client_context_takeover(true)
}

fn with(options: DeflateOptions) -> WebSocketOptions {
    WebSocketOptions::default().deflate(options)
}

#[test]
fn each_offer_has_its_answer_and_the_handler_is_told_the_same() {
    let small = || takeover().server_max_window_bits(11).client_max_window_bits(10);
    for (options, offers, expected) in [
        (takeover(), &["permessage-deflate"] as &[_], "permessage-deflate"),
        (
            DeflateOptions::default(),
            &["permessage-deflate; client_max_window_bits"],
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            takeover(),
            &["permessage-deflate; server_no_context_takeover"],
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            takeover(),
            &["permessage-deflate; client_no_context_takeover"],
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            takeover(),
            &["permessage-deflate; server_max_window_bits=\"9\""],
            "permessage-deflate; server_max_window_bits=9",
        ),
        (
            small(),
            &["permessage-deflate; client_max_window_bits; server_max_window_bits=12"],
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10",
        ),
        (small(), &["permessage-deflate"], "permessage-deflate; server_max_window_bits=11"),
        (
            takeover(),
            &["permessage-deflate; server_max_window_bits=8, permessage-deflate"],
            "permessage-deflate",
        ),
        (
            takeover(),
            &[
                "x-mux; a=\"b\"",
                "permessage-deflate; unknown",
                "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            ],
            "permessage-deflate; server_max_window_bits=10",
        ),
    ] {
        let (mut client, head) = offer(bind(server(&with(options))), offers);
        assert_eq!(answer(&head), Some(expected), "{offers:?}");
        client.expect(plain(TEXT, expected));
        client.send(hex("c1 87 00000000 f248cdc9c90700"));
        client.expect(plain(TEXT, "Hello"));
    }
}

#[test]
fn offers_that_cannot_be_honoured_are_declined_by_silence_and_nothing_is_agreed_on() {
    let addr = bind(server(&with(takeover())));
    for offers in [
        &[] as &[_],
        &[""],
        &["x-webkit-deflate-frame, permessage-bzip2"],
        &["permessage-deflate; server_max_window_bits=8"],
        &["permessage-deflate; server_max_window_bits"],
        &["permessage-deflate; client_max_window_bits=16"],
        &["permessage-deflate; server_no_context_takeover=1"],
        &["permessage-deflate; client_max_window_bits; client_max_window_bits"],
        &["permessage-deflate; unknown", "permessage-deflate; a; b=1"],
    ] {
        is_declined(addr, offers);
    }
}

/// Nothing is answered, the handler is told so, and RSV1 is a violation.
fn is_declined(addr: SocketAddr, offers: &[&str]) {
    let (mut client, head) = offer(addr, offers);
    assert_eq!(answer(&head), None, "{offers:?}");
    client.expect_hex("81 00");
    client.send(hex("c1 87 00000000 f248cdc9c90700"));
    assert_eq!(client.frame().close_code(), Some(1002), "{offers:?}");
}

#[test]
fn without_an_agreement_nothing_is_compressed() {
    let long = "a".repeat(100_000);
    for options in [WebSocketOptions::default(), with(takeover())] {
        let (mut client, head) = offer(bind(echo_server(options)), &["permessage-bzip2"]);
        assert_eq!(answer(&head), None);
        client.send(masked(TEXT, &long));
        client.expect(plain(TEXT, &long));
    }
}

#[test]
fn a_server_without_the_option_never_answers_an_offer() {
    let addr = bind(server(&WebSocketOptions::default()));
    for offers in ["permessage-deflate", "permessage-deflate; client_max_window_bits, x"] {
        is_declined(addr, &[offers]);
    }
}

#[test]
fn a_header_that_is_not_a_list_of_extensions_is_a_400() {
    for options in [WebSocketOptions::default(), with(takeover())] {
        let addr = bind(echo_server(options));
        for malformed in [
            "permessage-deflate;",
            "permessage-deflate; =",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"9 \"",
            "permessage-deflate permessage-deflate",
            "; permessage-deflate",
            "a b",
            "a/b",
        ] {
            for lines in [&[malformed] as &[_], &["permessage-deflate", malformed]] {
                let (_, head) = offer(addr, lines);
                assert!(head.starts_with("HTTP/1.1 400 "), "{lines:?}: {head}");
                assert!(!head.to_lowercase().contains("sec-websocket-extensions"), "{head}");
            }
        }
    }
}

#[test]
fn a_header_that_is_not_even_ascii_is_a_400_as_well() {
    let addr = bind(echo_server(with(takeover())));
    for lines in [&["permessage-deflate; é"] as &[_], &["permessage-deflate", "é"]] {
        let (_, head) = offer(addr, lines);
        assert!(head.starts_with("HTTP/1.1 400 "), "{lines:?}: {head}");
    }
}

/// Sends messages to an echo through one deflater, and reads the echoes strictly.
fn echoes(client: &mut Tcp, deflater: &mut Deflater, answer: &str, texts: &[&str]) {
    let mut reader = Reader::of_server(parameters(answer));
    for text in texts {
        client.send(masked(TEXT | DEFLATED, deflater.deflate(text)));
        let echoed = reader.take(frame(client)).unwrap();
        assert_eq!(echoed.head, TEXT | DEFLATED);
        assert!(echoed.payload == text.as_bytes(), "{echoed:?}");
    }
}

/// The next frame of the server, which is a long one.
fn frame(client: &mut Tcp) -> Seen {
    let start = client.read(4);
    assert_eq!(start[1], 126, "{start:?}");
    let len = u16::from_be_bytes([start[2], start[3]]);
    Seen { head: start[0], payload: client.read(len.into()) }
}

#[test]
fn agreed_parameters_hold_for_messages_to_and_from_a_server() {
    let mut rng = Rng::new(1);
    let (first, second) = (words(&mut rng, 9000), words(&mut rng, 9000));
    for (offered, window_bits, takeover_of_client) in [
        ("", 15, true),
        ("; server_no_context_takeover", 15, true),
        ("; client_no_context_takeover", 15, false),
        ("; server_max_window_bits=9", 15, true),
        ("; server_max_window_bits=10; client_max_window_bits=9", 9, true),
        ("; server_no_context_takeover; server_max_window_bits=9", 15, true),
    ] {
        let offered = format!("permessage-deflate{offered}");
        let (mut client, head) = offer(bind(echo_server(with(takeover()))), &[&offered]);
        assert_eq!(answer(&head), Some(&*offered));
        let mut deflater = Deflater::new(6, window_bits, takeover_of_client);
        let texts = [&*first, &second, &first, &first, &second];
        echoes(&mut client, &mut deflater, &offered, &texts);
        if !takeover_of_client {
            client.send(hex("c1 87 00000000 f248cdc9c90700  c1 85 00000000 f200110000"));
            client.expect(plain(TEXT, "Hello"));
            assert_eq!(client.frame().close_code(), Some(1007));
        }
    }
}

#[test]
fn with_takeover_the_second_of_two_equal_messages_is_the_shorter() {
    let text = words(&mut Rng::new(2), 3000);
    for (offered, is_shorter) in [("", true), ("; server_no_context_takeover", false)] {
        let addr = bind(echo_server(with(takeover())));
        let (mut client, _) = offer(addr, &[&format!("permessage-deflate{offered}")]);
        client.send(masked(TEXT, &text).repeat(2));
        let first = frame(&mut client).payload;
        let second = client.read(2);
        let is_short = second[1] < 126;
        assert_eq!(is_short, is_shorter, "{offered}: {second:?} after {}", first.len());
    }
}

#[test]
fn a_first_compressed_frame_that_comes_with_the_request_is_not_lost() {
    let addr = bind(echo_server(with(takeover())));
    let offer =
        OPENING.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let frames = hex("c1 87 00000000 f248cdc9c90700  c1 85 00000000 f200110000");
    for cut in 0..=frames.len() {
        let mut client = Tcp::connect(addr);
        client.send([offer.as_bytes(), &frames[..cut]].concat());
        assert_eq!(answer(&client.head()), Some("permessage-deflate"));
        client.send(&frames[cut..]);
        client.expect(plain(TEXT, "Hello").repeat(2));
    }
}
