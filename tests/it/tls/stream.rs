//! What goes through: bytes in odd records, much at once, and the end.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use futures::channel::oneshot;
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Error, RequestContext, Server, WebSocketOptions};

use super::{Client, connect, encrypted_echo, server_config};
use crate::support::frames::{BINARY, CLOSE, PING, TEXT, close, masked, plain};
use crate::support::peer::within;
use crate::support::tcp::{OPENING, bind};

/// A client of an echo, after the opening handshake.
fn echo_client() -> Client {
    let mut client = connect(bind(encrypted_echo(WebSocketOptions::default())));
    client.upgrade("/");
    client
}

/// A client, and what the handler's `recv` has to say at the end of the connection.
fn client_and_end() -> (Client, oneshot::Receiver<tidewire::Result<()>>) {
    let (tell, told) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.lock().unwrap().take().unwrap();
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let _ = tell.send(ws.recv().await.map(|message| assert!(message.is_none())));
            Ok(())
        }
    });
    server.tls(server_config());
    let mut client = connect(bind(server));
    client.upgrade("/");
    (client, told)
}

#[test]
fn frames_in_the_record_of_the_request_are_not_lost() {
    let mut client = connect(bind(encrypted_echo(WebSocketOptions::default())));
    let hello = masked(TEXT, "Hello");
    client.send([OPENING.as_bytes(), &hello, &hello, &masked(CLOSE, close(3000, ""))].concat());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.expect_hex("81 05 48656c6c6f 81 05 48656c6c6f 88 02 0bb8");
    client.expect_end();
}

#[test]
fn a_frame_may_come_in_as_many_records_as_it_has_bytes() {
    let mut client = echo_client();
    for byte in masked(TEXT, "Hello") {
        client.send([byte]);
    }
    client.expect_hex("81 05 48656c6c6f");
}

#[test]
fn messages_longer_than_any_record_come_back_whole() {
    let mut client = echo_client();
    for len in [16_384, 16_385, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
        client.send(masked(BINARY, &payload));
        client.expect(plain(BINARY, &payload));
    }
}

#[test]
fn a_thousand_messages_in_one_write_come_back_in_order() {
    let mut client = echo_client();
    let messages: Vec<_> = (0..1000).map(|number| format!("message {number}")).collect();
    client.send(messages.iter().flat_map(|text| masked(TEXT, text)).collect::<Vec<_>>());
    for text in &messages {
        client.expect(plain(TEXT, text));
    }
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    const LEN: usize = 1 << 20;
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        // More than both kernels and the TLS layer hold.
        for number in 0..16 {
            ws.send_binary(vec![number; LEN]).await?;
        }
        Ok(())
    });
    server.tls(server_config());
    let mut client = connect(bind(server));
    client.upgrade("/");
    for number in 0..16 {
        client.expect(plain(BINARY, vec![number; LEN]));
    }
    client.expect_hex("88 02 03e8");
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_end();
}

#[test]
fn a_stream_that_is_cut_is_a_lost_one() {
    let (client, end) = client_and_end();
    client.socket.sock.shutdown(Shutdown::Write).unwrap();
    let Err(Error::Io(error)) = within(end).unwrap() else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_close_notify_without_a_close_frame_is_a_lost_stream_too() {
    let (mut client, end) = client_and_end();
    client.socket.conn.send_close_notify();
    client.socket.flush().unwrap();
    let Err(Error::Io(error)) = within(end).unwrap() else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn bytes_that_were_altered_are_a_lost_stream() {
    let (mut client, end) = client_and_end();
    // An application_data record of nonsense (RFC 8446 §5.2).
    client.socket.sock.write_all(&[b"\x17\x03\x03\x00\x20".as_slice(), &[0; 32]].concat()).unwrap();
    let Err(Error::Io(error)) = within(end).unwrap() else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn requests_in_one_record_are_answered_in_order() {
    let mut server = Server::new();
    server.get("/:n", |ctx: RequestContext| async move {
        Ok(format!("number {}\n", ctx.param::<u8>("n")?))
    });
    server.tls(server_config());
    let mut client = connect(bind(server));
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    for body in ["number 1\n", "number 2\n"] {
        client.head();
        client.expect(body);
    }
}

#[test]
fn a_client_that_has_nothing_more_to_say_is_answered_and_told_of_the_end() {
    let mut client = connect(bind(super::mirror(server_config())));
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.socket.conn.send_close_notify();
    client.socket.flush().unwrap();
    client.head();
    client.expect("https://x/ true []");
    client.expect_end();
}

#[test]
fn a_body_larger_than_any_buffer_arrives_whole() {
    const LEN: usize = 5 << 20;
    let mut server = Server::new();
    server.get("/", |_: RequestContext| async { Ok(vec![b'x'; LEN]) });
    server.tls(server_config());
    let mut client = connect(bind(server));
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = client.head();
    assert!(head.contains(&format!("content-length: {LEN}\r\n")), "{head}");
    assert!(client.read(LEN).iter().all(|byte| *byte == b'x'));
    client.expect_end();
}

#[test]
fn bytes_of_a_record_that_is_not_whole_are_a_sign_of_life() {
    let heartbeat = HeartbeatOptions::default()
        .interval(Duration::from_millis(20))
        .timeout(Duration::from_millis(400));
    let options = WebSocketOptions::default().heartbeat(heartbeat);
    let mut client = connect(bind(encrypted_echo(options)));
    client.upgrade("/");
    let payload = vec![7; 12_000];
    let (session, mut record) = (&mut client.socket.conn, Vec::new());
    session.writer().write_all(&masked(BINARY, &payload)).unwrap();
    while session.wants_write() {
        session.write_tls(&mut record).unwrap();
    }
    // 1.5 s for one record, in which no pong can be sent. Each piece waits for time to pass, not for an event.
    for piece in record.chunks(record.len().div_ceil(30)) {
        std::thread::sleep(Duration::from_millis(50));
        client.socket.sock.write_all(piece).unwrap();
    }
    let mut frame = client.frame();
    while frame.head == PING {
        frame = client.frame();
    }
    assert_eq!((frame.head, frame.payload), (BINARY, payload));
}
