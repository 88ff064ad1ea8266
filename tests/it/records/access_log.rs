//! The access log.

use std::io::Read;

use super::app::BIG;
use super::{Records, SECRETS, SERVERS, records};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::server_process::Process;
use crate::support::tcp::{Tcp, until};

#[test]
fn the_access_log_has_a_line_for_each_answer_and_for_each_end_of_a_websocket() {
    for server in SERVERS {
        let process = Process::start(server);
        let addr = process.addr;
        let ask = |line: &str| {
            let mut client = Tcp::connect(addr);
            client
                .send(format!("{line} HTTP/1.1\r\nHost: x\r\n{SECRETS}Connection: close\r\n\r\n"));
            client.socket.read_to_end(&mut vec![]).unwrap();
        };
        ask("GET /log?token=s3cret");
        ask("GET /nowhere");
        ask("HEAD /http/ok");
        ask("GET /http/rejects");
        let mut client = Tcp::upgraded_at(addr, "/ws/echo?token=s3cret");
        client.send([masked(TEXT, "one"), masked(TEXT, "two")].concat());
        client.expect(b"\x81\x03one\x81\x03two");
        client.send(masked(CLOSE, close(4001, "")));
        client.socket.read_to_end(&mut vec![]).unwrap();

        let lines = || -> Records {
            let mut lines = records(addr);
            lines.retain(|(_, text)| {
                text.starts_with("tidewire::access: ") && !text.contains("path=/log ")
            });
            lines
        };
        until("the lines are there", || lines().len() == 5);
        let expected: [&[&str]; 5] = [
            &["request method=GET path=/nowhere status=404 bytes=0 elapsed_ms=", "peer=127.0.0.1:"],
            &["request method=HEAD path=/http/ok status=200 bytes=0 elapsed_ms="],
            &["request method=GET path=/http/rejects status=404 bytes=11 elapsed_ms="],
            &["request method=GET path=/ws/echo status=101 bytes=0 elapsed_ms=", "connection="],
            &[
                "WebSocket method=GET path=/ws/echo code=4001 messages_in=2 messages_out=2 \
                 bytes_in=26 bytes_out=14 elapsed_ms=",
                "peer=127.0.0.1:",
                "connection=",
            ],
        ];
        for ((level, text), parts) in lines().iter().zip(expected) {
            assert_eq!(level, "INFO");
            assert!(parts.iter().all(|part| text.contains(part)), "{text:?}, {parts:?}");
        }
        // The connection has one number for both protocols.
        let number = |text: &str| text.rsplit_once("connection=").unwrap().1.to_owned();
        assert_eq!(number(&lines()[3].1), number(&lines()[4].1));
    }
}

#[test]
fn bytes_that_the_client_has_not_taken_are_not_counted() {
    let process = Process::start(SERVERS[0]);
    let mut client = Tcp::connect(process.addr);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head();
    drop(client);
    let bytes = || {
        let lines = records(process.addr).into_iter();
        let line = lines.map(|(_, text)| text).find(|text| text.contains("path=/big "))?;
        let (_, bytes) = line.split_once(" bytes=")?;
        bytes.split(' ').next()?.parse::<usize>().ok()
    };
    until("the line is there", || bytes().is_some());
    assert!((1..BIG / 2).contains(&bytes().unwrap()), "{:?}", bytes());
}

#[test]
fn without_an_access_log_nothing_is_told_of_what_goes_well() {
    let process = Process::start("records::app::a_server_without_an_access_log");
    for _ in 0..3 {
        let mut client = Tcp::connect(process.addr);
        client.send("GET /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.socket.read_to_end(&mut vec![]).unwrap();
    }
    assert_eq!(records(process.addr), []);
}
