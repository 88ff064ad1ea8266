//! Requests for an upgrade, with any headers, to a handler that is mounted in tide: an answer of RFC 6455
//! §4.2.2 or a refusal. `Upgrade::check` has the same answer, and a request that gets a 101 gets one from
//! tungstenite, too.

#![no_main]

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use async_tungstenite::tungstenite::error::{Error, ProtocolError};
use async_tungstenite::tungstenite::handshake::{derive_accept_key, server::create_response};
use async_tungstenite::tungstenite::http;
use libfuzzer_sys::fuzz_target;
use tide::http::{Method, Request, Response, Url, Version};
use tidewire::deflate::DeflateOptions;
use tidewire::server::endpoint;
use tidewire::upgrade::{Upgrade, UpgradeOptions};
use tidewire::{RequestContext, WebSocketOptions};
use tidewire_fuzz::drive;

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

static APP: LazyLock<tide::Server<()>> = LazyLock::new(|| {
    let mut app = tide::new();
    app.at("/").all(endpoint(|mut ctx: RequestContext| async move {
        let _ = (ctx.is_websocket_upgrade(), ctx.offered_subprotocols());
        let _ = ctx.upgrade_to_websocket(options()).await?;
        Ok(())
    }));
    app
});

fn options() -> UpgradeOptions {
    let websocket = WebSocketOptions::default()
        .deflate(DeflateOptions::default())
        .subprotocols(["chat", "superchat"]);
    UpgradeOptions::from(websocket).allow_origins(["https://example.com"])
}

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let is_get = !choice.ratio(1, 16)?;
    let is_http_1_1 = !choice.ratio(1, 16)?;
    let headers = headers(choice)?;
    let method = if is_get { Method::Get } else { Method::Post };
    let mut request = Request::new(method, Url::parse("http://example.com/").unwrap());
    request.set_version(Some(if is_http_1_1 { Version::Http1_1 } else { Version::Http1_0 }));
    for (name, value) in &headers {
        request.append_header(*name, &**value);
    }
    let response: Response = drive::run(APP.respond(request)).unwrap();
    let status = u16::from(response.status());
    compare(&response, is_get, is_http_1_1, &headers);
    assert!(matches!(status, 101 | 400 | 403 | 405 | 426), "{status} to {headers:?}");
    if status == 101 {
        assert!(is_get && is_http_1_1, "{headers:?}");
        check(&response, &headers);
    }
    Ok(())
}

/// The types of `http` lead to the same status and the same fields of the handshake.
fn compare(response: &Response, is_get: bool, is_http_1_1: bool, headers: &[(&str, String)]) {
    let version = if is_http_1_1 { http::Version::HTTP_11 } else { http::Version::HTTP_10 };
    let method = if is_get { http::Method::GET } else { http::Method::POST };
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    let checked =
        Upgrade::check_version(version).and_then(|()| Upgrade::check(&method, &map, &options()));
    let (head, ()) = match checked {
        Ok(upgrade) => upgrade.response(),
        Err(error) => error.response().map(drop),
    }
    .into_parts();
    // Of a request with several faults, either may be told first: version and method.
    if is_get || is_http_1_1 {
        assert_eq!(head.status, u16::from(response.status()), "{headers:?}");
    }
    for name in ["sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions"] {
        let ours = head.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(ours, response.header(name).map(|values| values.last().as_str()), "{headers:?}");
    }
}

/// What the 101 says follows from what was asked.
fn check(response: &Response, headers: &[(&str, String)]) {
    let is_list = |wanted| {
        let mut lines = headers.iter().filter(|(name, _)| *name == wanted);
        lines.clone().count() > 1 || lines.any(|(_, value)| value.contains(','))
    };
    let mut request = http::Request::get("/").version(http::Version::HTTP_11);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let theirs = create_response(&request.body(()).unwrap());
    let is_fine = match theirs {
        Ok(_) => true,
        // Ours has no eye on the bits of a key that base64 does not use (RFC 4648 §3.5).
        Err(Error::Protocol(ProtocolError::InvalidSecWebSocketKey)) => true,
        // Lists, which may come in several lines (RFC 9110 §5.3): tungstenite looks at the first.
        Err(Error::Protocol(ProtocolError::MissingUpgradeWebSocketHeader)) => is_list("upgrade"),
        Err(Error::Protocol(ProtocolError::MissingConnectionUpgradeHeader)) => {
            is_list("connection")
        }
        Err(_) => false,
    };
    assert!(is_fine, "{headers:?}");

    let asked = |wanted: &str| {
        let lines = headers.iter().filter(|(name, _)| *name == wanted);
        lines.map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
    };
    let answered = |name: &str| response.header(name).map(|values| values.last().as_str());
    let accept = derive_accept_key(asked("sec-websocket-key")[0].as_bytes());
    assert_eq!(answered("sec-websocket-accept"), Some(&*accept));
    let offered = asked("sec-websocket-protocol").join(",");
    if let Some(chosen) = answered("sec-websocket-protocol") {
        assert!(offered.split(',').any(|name| name.trim() == chosen), "{chosen} of {offered}");
    }
    if let Some(agreed) = answered("sec-websocket-extensions") {
        let offers = asked("sec-websocket-extensions");
        let expected = DeflateOptions::default().accept(offers.iter().map(String::as_str));
        assert_eq!(Some(agreed), expected.map(|it| it.to_string()).as_deref());
    }
}

/// A good request, less what the input leaves out, and more of what it adds.
fn headers(choice: &mut Unstructured<'_>) -> Result<Vec<(&'static str, String)>> {
    let mut headers = Vec::new();
    let left_out: u8 = choice.arbitrary()?;
    for (bit, (name, value)) in GOOD.iter().enumerate() {
        if left_out >> bit & 1 == 0 {
            headers.push((*name, (*value).to_owned()));
        }
    }
    while !choice.is_empty() {
        let name = *choice.choose(NAMES)?;
        let mut value = String::new();
        for _ in 0..choice.int_in_range(0..=7)? {
            match *choice.choose(WORDS)? {
                "?" => value.push(char::from(choice.int_in_range(b' '..=b'~')?)),
                word => value.push_str(word),
            }
        }
        if choice.arbitrary()? {
            headers.retain(|(other, _)| *other != name);
        }
        // As whoever reads the bytes does.
        headers.push((name, value.trim().to_owned()));
    }
    Ok(headers)
}

const GOOD: &[(&str, &str)] = &[
    ("host", "example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

const NAMES: &[&str] = &[
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "origin",
];

const WORDS: &[&str] = &[
    "websocket",
    "WebSocket",
    "upgrade",
    "keep-alive",
    "h2c",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "dGhlIHNhbXBsZSBub25jZR==",
    "AAAA",
    "13",
    "8",
    "chat",
    "superchat",
    "permessage-deflate",
    "; client_max_window_bits",
    "=15",
    "https://",
    "http://",
    "example.com",
    ":80",
    ":8080",
    "null",
    ", ",
    ",",
    ";",
    " ",
    "\t",
    "\"",
    "?",
];
