//! A peer that dies, or has nothing more to say, at every stage of a connection.

use std::io::Read;
use std::net::Shutdown;

use tidewire::WebSocketOptions;

use super::server::{End, MESSAGE};
use super::site::{Client, Security, Site, reset};
use crate::support::frames::{BINARY, CLOSE, FIN, TEXT, close, hex, masked, shown};
use crate::support::tcp::{OPENING, until};

/// What has happened when the peer dies.
struct Stage {
    name: &'static str,
    reach: fn(&Site) -> Client,
    /// How the handler's connection has ended; `None` if it has none.
    end: Option<End>,
    /// What a peer still reads that says it will send nothing more.
    answer: Answer,
}

/// What the server says before it ends its own direction.
enum Answer {
    Nothing,
    Begins(&'static str),
    Bytes(&'static str),
    /// Whatever was under way, or not all of it.
    Data,
}

impl Answer {
    fn is(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Nothing => bytes.is_empty(),
            Self::Begins(text) => bytes.starts_with(text.as_bytes()),
            Self::Bytes(digits) => bytes == hex(digits),
            Self::Data => true,
        }
    }
}

const LOST: Option<End> = Some(End::Lost(1006));

const STAGES: [Stage; 14] = [
    Stage { name: "before a byte", reach: Site::dial, end: None, answer: Answer::Nothing },
    Stage {
        name: "in the first record of TLS",
        reach: |site| sent(site.dial(), hex("16 03 01 02")),
        end: None,
        // Without TLS this begins no request.
        answer: Answer::Begins("HTTP/1.1 400 "),
    },
    Stage {
        name: "in the head of a request",
        reach: |site| sent(site.connect(), &OPENING[..40]),
        end: None,
        answer: Answer::Begins("HTTP/1.1 400 "),
    },
    Stage {
        name: "in the body of a request",
        reach: |site| {
            sent(site.connect(), "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhal")
        },
        end: None,
        answer: Answer::Begins("HTTP/1.1 400 "),
    },
    Stage {
        name: "in the body of a response",
        reach: |site| {
            let mut client = sent(site.connect(), "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
            client.head();
            client
        },
        end: None,
        answer: Answer::Data,
    },
    Stage {
        name: "before the 101 is read",
        reach: |site| {
            let opening = OPENING.replacen('/', "/echo", 1);
            sent(site.connect(), opening)
        },
        end: LOST,
        answer: Answer::Begins("HTTP/1.1 101 "),
    },
    Stage {
        name: "after the 101",
        reach: |site| site.upgraded_at("/echo"),
        end: LOST,
        answer: Answer::Nothing,
    },
    Stage {
        name: "in the header of a frame",
        reach: |site| sent(site.upgraded_at("/echo"), hex("81")),
        end: LOST,
        answer: Answer::Nothing,
    },
    Stage {
        name: "in the length of a frame",
        reach: |site| sent(site.upgraded_at("/echo"), hex("82 fe 01")),
        end: LOST,
        answer: Answer::Nothing,
    },
    Stage {
        name: "in a payload",
        reach: |site| sent(site.upgraded_at("/echo"), &masked(BINARY, [7; 100])[..50]),
        end: LOST,
        answer: Answer::Nothing,
    },
    Stage {
        name: "between two fragments",
        reach: |site| sent(site.upgraded_at("/echo"), masked(TEXT & !FIN, "Hel")),
        end: LOST,
        answer: Answer::Nothing,
    },
    Stage {
        name: "after its close frame",
        reach: |site| {
            let written = site.metrics().wire_bytes_out;
            let client = sent(site.upgraded_at("/echo"), masked(CLOSE, close(1000, "")));
            until("the answer is out", || site.metrics().wire_bytes_out == written + 4);
            client
        },
        end: Some(End::Closed(1000)),
        answer: Answer::Bytes("88 02 03e8"),
    },
    Stage {
        name: "after our close frame",
        reach: |site| {
            let written = site.metrics().wire_bytes_out;
            let client = site.upgraded_at("/leave");
            until("the frame is out", || site.metrics().wire_bytes_out == written + 4);
            client
        },
        // The code is that of the first close frame, whoever sent it.
        end: Some(End::Lost(1000)),
        answer: Answer::Bytes("88 02 03e8"),
    },
    Stage {
        name: "in a long write",
        reach: |site| {
            let client = site.upgraded_at("/flood");
            until("the buffer is full", || site.metrics().queued_bytes >= MESSAGE);
            client
        },
        end: LOST,
        answer: Answer::Data,
    },
];

fn sent(mut client: Client, bytes: impl AsRef<[u8]>) -> Client {
    client.send(bytes);
    client
}

/// Has a peer die at each stage, at once or when the server has read everything.
fn each_stage(way: &str, dies: fn(Client)) {
    for security in Security::ALL {
        let mut site = Site::start(*security, &WebSocketOptions::default());
        for Stage { name, reach, end, .. } in &STAGES {
            let case = format!("{way} {name}, {security:?}");
            eprintln!("{case}");
            let client = reach(&site);
            site.has_read(&client);
            if end.is_some() {
                until("the connection is open", || site.metrics().open_websockets == 1);
            }
            dies(client);
            assert_eq!(site.at_rest(&case), Vec::from_iter(end.clone()), "{case}");

            // What is on its way may get lost, and the connection then ends as one that got less.
            dies(reach(&site));
            let ends = site.at_rest(&case);
            assert!(
                ends.iter().all(|found| [&LOST, end].contains(&&Some(found.clone()))),
                "{ends:?}"
            );
        }
        site.end();
    }
}

#[test]
fn a_peer_that_resets_the_connection_leaves_nothing_at_any_stage() {
    each_stage("reset", reset);
}

#[test]
fn a_peer_that_is_gone_without_a_good_bye_leaves_nothing_at_any_stage() {
    each_stage("end", drop);
}

#[test]
fn a_peer_that_has_nothing_more_to_say_is_answered_and_leaves_nothing_at_any_stage() {
    for security in Security::ALL {
        let mut site = Site::start(*security, &WebSocketOptions::default());
        for Stage { name, reach, end, answer } in &STAGES {
            let case = format!("half-closed {name}, {security:?}");
            eprintln!("{case}");
            let mut client = reach(&site);
            client.socket.tcp().shutdown(Shutdown::Write).unwrap();
            let mut rest = vec![];
            let ended = client.socket.read_to_end(&mut rest);
            // Without a `close_notify` of its client, an encrypted stream is broken.
            if *security == Security::Plain {
                ended.unwrap();
                assert!(answer.is(&rest), "{case}: {}", shown(&rest));
            }
            let ends = site.at_rest(&case);
            // A stream that breaks before the request was read takes the request with it.
            let is_broken = *security != Security::Plain && ends.is_empty();
            assert!(is_broken || ends == Vec::from_iter(end.clone()), "{case}: {ends:?}");
        }
        site.end();
    }
}
