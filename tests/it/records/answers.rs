//! One record for each failure and each refusal.

use super::{SERVERS, ask, expect_harmless, of_answers, talk};
use crate::support::server_process::Process;
use crate::support::tcp::{Tcp, until};

/// What is asked: method, target, more lines, body. The status of the answer, or the code of the close frame; the level
/// of the record; what its text has, in this order.
type Row = (&'static str, &'static str, u16, &'static str, &'static [&'static str]);

/// Before the upgrade, and in place of it.
const ASKED: &[Row] = &[
    // The table of the first day.
    ("GET /ws/echo", "origin", 403, "DEBUG", &["request refused", "reason=origin_forbidden"]),
    ("GET /chosen", "opening", 400, "DEBUG", &["reason=subprotocol_unsupported"]),
    ("GET /limited", "opening", 503, "DEBUG", &["request refused", "reason=limit_reached"]),
    ("POST /http/json", "{\"password\": \"s3cret\"}", 400, "DEBUG", &["reason=json_invalid"]),
    ("GET /http/query?password=s3cret", "", 400, "DEBUG", &["reason=query_invalid"]),
    ("GET /http/of-tide", "", 401, "DEBUG", &["reason=unauthorized"]),
    ("GET /nowhere", "", 404, "DEBUG", &["request refused", "reason=not_found"]),
    (
        "GET /http/fails?token=s3cret",
        "",
        500,
        "WARN",
        &["handler failed", "error=no lots: the database is\\non fire"],
    ),
    ("GET /http/panics", "", 500, "ERROR", &["handler panicked", "error=the\\npanic of panics"]),
    (
        "GET /http/of-tokio",
        "",
        500,
        "ERROR",
        &[
            "handler panicked",
            "hint=a library on tokio needs its runtime",
            "error=there is no reactor",
        ],
    ),
    // The same through tide.
    ("GET /tide/fails", "", 500, "WARN", &["error=no lots: the database is\\non fire"]),
    ("GET /tide/panics", "", 500, "ERROR", &["handler panicked", "error=the\\npanic of panics"]),
    ("GET /tide/rejects", "", 404, "DEBUG", &["reason=not_found", "text=no such\\nlot"]),
    // Other refusals.
    ("PUT /http/fails", "", 405, "DEBUG", &["reason=method_not_allowed"]),
    ("GET /http/rejects", "", 404, "DEBUG", &["reason=not_found", "text=no such\\nlot"]),
    ("GET /http/rejects-secretly", "", 403, "DEBUG", &["reason=forbidden"]),
    ("GET /http/number", "", 400, "DEBUG", &["reason=param_invalid"]),
    ("POST /http/json", "short", 408, "DEBUG", &["reason=body_timed_out"]),
    // Its handler fails, because the client does.
    ("POST /http/upload", "short", 500, "DEBUG", &["request refused", "reason=body_failed"]),
    ("GET /http/kicked", "", 403, "DEBUG", &["reason=forbidden", "text=kicked"]),
    ("GET /files/missing", "", 404, "DEBUG", &["reason=not_found"]),
    ("TRACK /x", "", 501, "DEBUG", &["request refused", "reason=method_unknown"]),
    ("GET /a/../b", "", 400, "DEBUG", &["reason=dot_segment"]),
    ("GET /x", "no-host", 400, "DEBUG", &["reason=host_missing"]),
    // Other failures.
    ("GET /http/ours", "", 503, "WARN", &["handler failed", "error=too much to do"]),
    ("GET /http/gateway", "", 502, "WARN", &["handler failed", "reason=bad_gateway"]),
    ("GET /http/header", "", 500, "WARN", &["error=HTTP does not allow this header"]),
    ("GET /http/informs", "", 500, "WARN", &["error=the response cannot be sent: "]),
    ("GET /http/panics-silently", "", 500, "ERROR", &["handler panicked"]),
    ("GET /http/body", "", 200, "WARN", &["the body of a response failed", "error=the disk is"]),
    ("GET /http/body-panics", "", 200, "ERROR", &["of a response panicked", "error=in the\\nbody"]),
    ("GET /endpoint", "", 500, "WARN", &["handler failed", "error=tide is\\non fire"]),
    // A middleware decides on the status, and cannot hide the error.
    ("GET /pages/fails", "", 500, "WARN", &["error=no lots: the database is\\non fire"]),
    ("GET /pages/gateway", "", 404, "DEBUG", &["request refused", "reason=not_found"]),
];

/// After it: the path, what is sent, the close code.
const UPGRADED: &[Row] = &[
    (
        "/ws/fails",
        "x",
        1011,
        "WARN",
        &["handler failed", "error=no lots: the database is\\non fire"],
    ),
    (
        "/nested/fails",
        "x",
        1011,
        "WARN",
        &["handler failed", "error=no lots: the database is\\non fire"],
    ),
    ("/ws/panics", "x", 1011, "ERROR", &["handler panicked", "error=the\\npanic of panics"]),
    ("/ws/of-tokio", "x", 1011, "ERROR", &["handler panicked", "hint=a library on tokio"]),
    ("/ws/panics-silently", "x", 1011, "ERROR", &["handler panicked"]),
    ("/ws/said", "\x1b[31m\u{85}\n", 1011, "ERROR", &["error=\\u{1b}[31m\\u{85}\\n"]),
    ("/ws/elsewhere", "", 1011, "WARN", &["error=I/O failed: no upstream"]),
    ("/ws/rejects", "x", 1008, "DEBUG", &["code=1008", "reason=not_found", "text=no such\\nlot"]),
    ("/ws/ours", "x", 1013, "DEBUG", &["code=1013", "reason=unavailable"]),
    ("/ws/kicked", "x", 4003, "DEBUG", &["code=4003", "text=kicked"]),
    ("/ws/query?password=s3cret", "x", 1008, "DEBUG", &["reason=query_invalid"]),
    ("/ws/json", "{", 1007, "DEBUG", &["code=1007", "reason=json_invalid", "error="]),
    // What the peer does is no failure.
    ("/ws/echo", "unmasked", 1002, "DEBUG", &["error=the peer broke the protocol"]),
    ("/ws/echo", "cut", 0, "DEBUG", &["error=I/O failed"]),
];

/// The message, what tells which request it is, and the rest, in this order.
fn expect_parts(text: &str, (line, _, status, _, parts): &Row, is_http: bool) {
    let path = line.split([' ', '?']).find(|part| part.starts_with('/')).unwrap();
    let method = line.split_once(' ').map_or("GET", |it| it.0);
    let mut expected = vec![format!("method={method} path={path} peer=127.0.0.1:")];
    expected.push(" connection=".to_owned());
    // A body comes after the status.
    if is_http && *status != 200 {
        expected.push(format!(" status={status}"));
    }
    let (message, others): (Vec<&str>, Vec<&str>) =
        parts.iter().partition(|part| !part.contains('='));
    let mut rest = text;
    for part in message.into_iter().chain(expected.iter().map(|part| &**part)).chain(others) {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{line}: no {part:?} in {text:?}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn each_failure_and_each_refusal_is_one_record_with_what_one_needs_to_find_it() {
    for server in SERVERS {
        let process = Process::start(server);
        let addr = process.addr;
        let held = Tcp::upgraded_at(addr, "/limited");
        let asked = ASKED.iter().map(|row| (row, true));
        let upgraded = UPGRADED.iter().map(|row| (row, false));
        let mut told = of_answers(addr).len();
        assert_eq!(told, 0);
        for (row, is_http) in asked.chain(upgraded) {
            let (line, more, status, level, _) = *row;
            let answer = if is_http { ask(addr, line, more) } else { talk(addr, line, more) };
            assert_eq!(answer, status, "{line}");
            until(line, || of_answers(addr).len() > told);
            let records = of_answers(addr);
            let new = &records[told..];
            told = records.len();
            let [(found, text)] = new else { panic!("{server} {line}: {new:?}") };
            expect_parts(text, row, is_http);
            assert_eq!(found, level, "{server} {line}: {text}");
            assert!(text.starts_with("tidewire::handler: "), "{text}");
        }
        drop(held);
        // And on the way none has told a secret.
        expect_harmless(addr, 2 * (ASKED.len() + UPGRADED.len()));
    }
}

#[test]
fn what_does_not_go_through_a_server_of_this_crate_is_told_as_well() {
    for server in SERVERS {
        let process = Process::start(server);
        let mut told = Vec::new();
        for target in ["/foreign/fails", "/foreign/rejects", "/foreign/gateway", "/accept"] {
            assert_eq!(ask(process.addr, &format!("GET {target}"), ""), 200, "{target}");
            let new = of_answers(process.addr).split_off(told.len());
            told.extend(new.iter().map(|(level, text)| format!("{level} {text}")));
        }
        let expected = [
            "WARN tidewire::handler: handler failed method=GET path=/fails status=500 error=no lots: \
             the database is\\non fire",
            "DEBUG tidewire::handler: request refused method=GET path=/rejects status=404 \
             reason=not_found text=no such\\nlot",
            "WARN tidewire::handler: handler failed method=GET path=/gateway status=502 \
             reason=bad_gateway",
            "DEBUG tidewire::upgrade::accept: handshake refused path=/by-hand \
             reason=origin_forbidden",
        ];
        assert_eq!(told, expected, "{server}");
    }
}

#[test]
fn a_reason_is_that_of_its_own_request() {
    let process = Process::start(SERVERS[1]);
    let mut client = Tcp::connect(process.addr);
    // A middleware makes a success of the first.
    for (target, status) in [("/pages/of-tide", "200"), ("/endless", "404")] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        if status == "200" {
            client.expect("<h1>sorry</h1>");
        }
    }
    let [(level, text)] = &of_answers(process.addr)[..] else { panic!("one record") };
    assert_eq!(level, "DEBUG");
    assert!(text.contains("path=/endless") && text.ends_with("reason=not_found"), "{text}");
}
