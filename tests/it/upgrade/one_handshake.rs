//! One opening handshake, by three ways: a `Server`, `accept`, and `Upgrade` on the types of `http`.

use std::net::SocketAddr;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use async_std::task;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tidewire::deflate::{DeflateBudget, DeflateOptions};
use tidewire::upgrade::Upgrade;
use tidewire::upgrade::UpgradeOptions;
use tidewire::{Error, HandshakeError, WebSocket, WebSocketOptions};

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, within};
use crate::support::pipe::{Knobs, pipe};

/// The head of a request, as it is sent.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    version: &'static str,
    lines: Vec<(&'static str, &'static [u8])>,
}

impl Request {
    /// The request of RFC 6455 §1.3.
    fn opening() -> Self {
        let lines: Vec<(_, &[u8])> = vec![
            ("Host", b"x"),
            ("Upgrade", b"websocket"),
            ("Connection", b"Upgrade"),
            ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", b"13"),
        ];
        Self { method: "GET", version: "HTTP/1.1", lines }
    }

    /// The opening request with these lines in place of all of their name.
    fn with(name: &'static str, values: &[&'static str]) -> Self {
        Self::opening().and(name, values)
    }

    fn and(mut self, name: &'static str, values: &[&'static str]) -> Self {
        self.lines.retain(|line| line.0 != name);
        self.lines.extend(values.iter().map(|value| (name, value.as_bytes())));
        self
    }

    fn and_bytes(mut self, name: &'static str, value: &'static [u8]) -> Self {
        self.lines.push((name, value));
        self
    }

    fn by(method: &'static str) -> Self {
        Self { method, ..Self::opening() }
    }

    fn wire(&self) -> Vec<u8> {
        let mut wire = format!("{} / {}\r\n", self.method, self.version).into_bytes();
        for (name, value) in &self.lines {
            wire.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        [&wire, &b"\r\n"[..]].concat()
    }

    /// As an HTTP library gives it, which removes white space around a value.
    fn parts(&self) -> (Method, Version, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.trim_ascii()).unwrap());
        }
        let version = match self.version {
            "HTTP/1.0" => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        (self.method.parse().unwrap(), version, headers)
    }
}

/// An answer: status, fields in lower case and in order of their names, body.
type Answer = (u16, Vec<(String, String)>, String);

/// Of a 101 all fields count; of a refusal those that go with its status.
fn answer(status: u16, fields: Vec<(String, String)>, body: String) -> Answer {
    const OF_REFUSALS: [&str; 4] = ["allow", "retry-after", "sec-websocket-version", "upgrade"];

    let counts = |name: &str| match status {
        101 => name != "date",
        _ => OF_REFUSALS.contains(&name),
    };
    let lower = fields.into_iter().map(|(name, value)| (name.to_lowercase(), value));
    let mut fields: Vec<_> = lower.filter(|(name, _)| counts(name)).collect();
    fields.sort();
    (status, fields, body)
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (first, lines) = head.split_once("\r\n").unwrap();
    let fields: Vec<(String, String)> = lines
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = fields.iter().find(|line| line.0.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |line| line.1.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    answer(status, fields, String::from_utf8(body).unwrap())
}

fn of_response<T>(response: &::http::Response<T>, body: &str) -> Answer {
    let fields = response.headers().iter();
    let fields = fields
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    answer(response.status().as_u16(), fields, body.to_owned())
}

fn check(
    request: &Request,
    over_tls: bool,
    options: &UpgradeOptions,
) -> Result<Upgrade, HandshakeError> {
    let (method, version, headers) = request.parts();
    Upgrade::check_version(version)?;
    if over_tls {
        return Upgrade::check_over_tls(&method, &headers, options);
    }
    Upgrade::check(&method, &headers, options)
}

fn by_check(request: &Request, over_tls: bool, options: &UpgradeOptions) -> Answer {
    match check(request, over_tls, options) {
        Ok(upgrade) => of_response(&upgrade.response(), ""),
        Err(error) => of_response(&error.response(), error.response().body()),
    }
}

fn by_accept(request: &Request, over_tls: bool, options: &UpgradeOptions) -> Answer {
    let options = options.clone();
    within(async {
        let (stream, mut end) = pipe(Knobs::default());
        task::spawn(async move {
            let request = tidewire::upgrade::accept(stream).await?;
            let request = if over_tls { request.over_tls() } else { request };
            request.upgrade(options).await.map(drop)
        });
        end.write_all(&request.wire()).await.unwrap();
        read_answer(&mut end).await
    })
}

#[cfg(feature = "testing")]
fn by_server(request: &Request, over_tls: bool, options: &UpgradeOptions) -> Answer {
    use tidewire::server::{ServerOptions, endpoint};
    use tidewire::testing::TestClient;
    use tidewire::{RequestContext, Server};

    let options = options.clone();
    let mut server = Server::new();
    // It knows of TLS by a trusted proxy.
    server.options(ServerOptions::default().trusted_proxies(["127.0.0.1"]));
    server.at("/").all(endpoint(move |mut ctx: RequestContext| {
        let options = options.clone();
        async move { ctx.upgrade_to_websocket(options).await.map(drop).map_err(Into::into) }
    }));
    let proto: &[u8] = if over_tls { b"https" } else { b"http" };
    let request = request.clone().and_bytes("X-Forwarded-Proto", proto);
    within(async {
        let mut peer = TestClient::new(&server).open().unwrap();
        peer.send_bytes(request.wire()).await.unwrap();
        read_answer(&mut peer).await
    })
}

/// The same answer, whichever way the request goes.
#[track_caller]
fn assert_answer(
    request: &Request,
    over_tls: bool,
    options: &UpgradeOptions,
    expected: Result<&[(&str, &str)], HandshakeError>,
) {
    let expected_answer = match expected {
        Ok(more) => {
            let handshake = [
                ("connection", "Upgrade"),
                ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                ("upgrade", "websocket"),
            ];
            let fields = handshake.iter().chain(more);
            let fields = fields.map(|(name, value)| ((*name).into(), (*value).into())).collect();
            answer(101, fields, String::new())
        }
        Err(error) => of_response(&error.response(), error.response().body()),
    };
    assert_eq!(check(request, over_tls, options).err(), expected.err(), "{request:?}");
    assert_eq!(by_check(request, over_tls, options), expected_answer, "Upgrade, {request:?}");
    assert_eq!(by_accept(request, over_tls, options), expected_answer, "accept, {request:?}");
    #[cfg(feature = "testing")]
    {
        use HandshakeError::{HostInvalid, HostMissing, HostRepeated};

        let found = by_server(request, over_tls, options);
        // The server reads `Host` before any handler does, and answers in words of its own.
        if matches!(expected, Err(HostInvalid | HostMissing | HostRepeated)) {
            assert_eq!(found.0, expected_answer.0, "server, {request:?}");
        } else {
            assert_eq!(found, expected_answer, "server, {request:?}");
        }
    }
}

fn options() -> UpgradeOptions {
    websocket().into()
}

fn websocket() -> WebSocketOptions {
    WebSocketOptions::default()
}

#[test]
fn the_rules_for_a_request_are_the_same_by_every_way() {
    use HandshakeError as E;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    let plain: [(Request, Option<E>); 43] = [
        (Request::opening(), None),
        // §4.2.1: the method and the version
        (Request::by("POST"), Some(E::MethodNotGet)),
        (Request::by("PUT"), Some(E::MethodNotGet)),
        (Request { version: "HTTP/1.0", ..Request::opening() }, Some(E::HttpVersion)),
        // RFC 9110 §4.2.1 and RFC 9112 §3.2: one host
        (Request::with("Host", &[]), Some(E::HostMissing)),
        (Request::with("Host", &[""]), Some(E::HostInvalid)),
        (Request::with("Host", &["x y"]), Some(E::HostInvalid)),
        (Request::with("Host", &["x:99999"]), Some(E::HostInvalid)),
        (Request::with("Host", &["user@x"]), Some(E::HostInvalid)),
        (Request::with("Host", &["x", "x"]), Some(E::HostRepeated)),
        (Request::with("Host", &["x:80"]), None),
        (Request::with("Host", &["[::1]:8080"]), None),
        // Upgrade and Connection
        (Request::with("Upgrade", &[]), Some(E::UpgradeMissing)),
        (Request::with("Upgrade", &["h2c"]), Some(E::UpgradeMissing)),
        (Request::with("Upgrade", &["websocket2"]), Some(E::UpgradeMissing)),
        (Request::with("Upgrade", &["h2c, WebSocket"]), None),
        (Request::with("Upgrade", &["h2c", "websocket"]), None),
        (Request::with("Connection", &[]), Some(E::ConnectionMissing)),
        (Request::with("Connection", &["keep-alive"]), Some(E::ConnectionMissing)),
        (Request::with("Connection", &["keep-alive, UPGRADE"]), None),
        (Request::with("Connection", &["keep-alive", "upgrade"]), None),
        // the version of the protocol
        (Request::with("Sec-WebSocket-Version", &[]), Some(E::VersionMissing)),
        (Request::with("Sec-WebSocket-Version", &["8"]), Some(E::VersionUnsupported)),
        (Request::with("Sec-WebSocket-Version", &["013"]), Some(E::VersionUnsupported)),
        (Request::with("Sec-WebSocket-Version", &["13", "13"]), Some(E::VersionUnsupported)),
        (Request::with("Sec-WebSocket-Version", &[" 13\t"]), None),
        // the key
        (Request::with("Sec-WebSocket-Key", &[]), Some(E::KeyMissing)),
        (Request::with("Sec-WebSocket-Key", &[""]), Some(E::KeyInvalid)),
        (Request::with("Sec-WebSocket-Key", &["c2hvcnQ="]), Some(E::KeyInvalid)),
        (Request::with("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25j!!=="]), Some(E::KeyInvalid)),
        (Request::with("Sec-WebSocket-Key", &[KEY, KEY]), Some(E::KeyInvalid)),
        (Request::opening().and_bytes("Sec-WebSocket-Key", b"\xff"), Some(E::KeyInvalid)),
        // content
        (Request::with("Content-Length", &["0"]), None),
        (Request::with("Content-Length", &["00"]), None),
        (Request::with("Content-Length", &["5"]), Some(E::NotUpgradable)),
        (Request::with("Transfer-Encoding", &["chunked"]), Some(E::NotUpgradable)),
        // §9.1
        (Request::with("Sec-WebSocket-Extensions", &[";"]), Some(E::ExtensionsMalformed)),
        (Request::with("Sec-WebSocket-Extensions", &["x", "a b"]), Some(E::ExtensionsMalformed)),
        (Request::with("Sec-WebSocket-Extensions", &["x-other; a=1"]), None),
        (
            Request::opening().and_bytes("Sec-WebSocket-Extensions", b"\xff"),
            Some(E::ExtensionsMalformed),
        ),
        // §4.1
        (Request::with("Sec-WebSocket-Protocol", &["a;b"]), Some(E::SubprotocolsMalformed)),
        (
            Request::opening().and_bytes("Sec-WebSocket-Protocol", b"\xff"),
            Some(E::SubprotocolsMalformed),
        ),
        (Request::with("Sec-WebSocket-Protocol", &["chat, ,", "mqtt"]), None),
    ];
    for (request, error) in plain {
        assert_answer(&request, false, &options(), error.map_or(Ok(&[]), Err));
    }
}

#[test]
fn the_rules_for_an_origin_are_the_same_by_every_way() {
    let listed = options().allow_origins(["https://app.example"]);
    let any = options().allow_any_origin();
    for (origins, over_tls, allowed) in [
        (&[][..], false, [true, true, true]),
        (&["http://x"], false, [true, true, true]),
        (&["https://X"], false, [true, true, true]),
        (&["https://app.example"], false, [false, true, true]),
        (&["https://evil.example"], false, [false, false, true]),
        (&["null"], false, [false, false, true]),
        (&[""], false, [false, false, true]),
        (&["http://é.example"], false, [false, false, true]),
        (&["http://x", "http://x"], false, [false, false, false]),
        // A page that came without TLS could have been written on the way.
        (&[], true, [true, true, true]),
        (&["https://x"], true, [true, true, true]),
        (&["http://x"], true, [false, false, true]),
        (&["https://app.example"], true, [false, true, true]),
    ] {
        for (options, is_allowed) in [&options(), &listed, &any].into_iter().zip(allowed) {
            let expected =
                if is_allowed { Ok(&[][..]) } else { Err(HandshakeError::OriginForbidden) };
            assert_answer(&Request::with("Origin", origins), over_tls, options, expected);
        }
    }
}

#[test]
fn the_same_subprotocol_and_extension_are_agreed_on_by_every_way() {
    use HandshakeError::{SubprotocolNotOffered, SubprotocolUnsupported};

    let chat = || websocket().subprotocols(["chat.v2", "chat.v1"]);
    let agreed = |name| Ok(vec![("sec-websocket-protocol", name)]);
    for (options, offers, expected) in [
        (options(), &["chat.v1"][..], Ok(vec![])),
        (chat().into(), &[], Ok(vec![])),
        (chat().into(), &["mqtt"], Ok(vec![])),
        (chat().into(), &["chat.v1, chat.v2"], agreed("chat.v2")),
        (chat().into(), &["mqtt", "chat.v1"], agreed("chat.v1")),
        (chat().require_subprotocol().into(), &["mqtt"], Err(SubprotocolUnsupported)),
        (chat().require_subprotocol().into(), &["chat.v1"], agreed("chat.v1")),
        (UpgradeOptions::from(chat()).subprotocol("mqtt"), &["chat.v1, mqtt"], agreed("mqtt")),
        (
            UpgradeOptions::from(chat()).subprotocol("mqtt"),
            &["chat.v1"],
            Err(SubprotocolNotOffered),
        ),
    ] {
        let request = Request::with("Sec-WebSocket-Protocol", offers);
        let expected = expected.as_deref().map_err(|error| *error);
        assert_answer(&request, false, &options, expected);
        if let Ok(upgrade) = check(&request, false, &options) {
            let named = expected.unwrap().first().map(|field| field.1);
            assert_eq!(upgrade.subprotocol(), named);
        }
    }

    let deflate = UpgradeOptions::from(websocket().deflate(DeflateOptions::default()));
    for offers in [
        &["permessage-deflate"][..],
        &["permessage-deflate; client_max_window_bits"],
        &["x-other, permessage-deflate; server_max_window_bits=10; server_no_context_takeover"],
        &["permessage-deflate; unknown", "permessage-deflate"],
        &["permessage-deflate; unknown"],
        &[],
    ] {
        let request = Request::with("Sec-WebSocket-Extensions", offers);
        let agreed = DeflateOptions::default().accept(offers.iter().copied());
        let text = agreed.map(|parameters| parameters.to_string());
        let expected: Vec<_> =
            text.iter().map(|text| ("sec-websocket-extensions", text.as_str())).collect();
        assert_answer(&request, false, &deflate, Ok(&expected));
        assert_answer(&request, false, &options(), Ok(&[]));
        assert_eq!(check(&request, false, &deflate).unwrap().deflate(), agreed);
    }
}

#[test]
fn the_same_headers_of_the_options_are_in_the_101_by_every_way() {
    let request = Request::opening();
    let own = options()
        .header("X-Version", "3")
        .header("X-Tab", "a\tb")
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2")
        // The handshake's own and those of a body are ignored, whatever is in them.
        .header("Connection", "close")
        .header("sec-websocket-protocol", "mqtt\r\n")
        .header("Content-Type", "text/plain");
    let expected =
        [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-tab", "a\tb"), ("x-version", "3")];
    assert_answer(&request, false, &own, Ok(&expected));
    for (name, value) in
        [("X One", "1"), ("", "1"), ("X-One", "1\r\nX-Two: 2"), ("X-One", "\u{7f}"), ("X-One", "é")]
    {
        let options = options().header(name, value);
        assert_answer(&request, false, &options, Err(HandshakeError::InvalidHeader));
    }
}

/// A request for all that can be agreed on.
fn rich() -> (Request, UpgradeOptions) {
    let request = Request::with("Sec-WebSocket-Protocol", &["chat"])
        .and("Sec-WebSocket-Extensions", &["permessage-deflate"]);
    (request, websocket().subprotocols(["chat"]).deflate(DeflateOptions::default()).into())
}

#[test]
fn a_connection_knows_what_its_handshake_has_settled_and_has_the_first_frames() {
    let addr = SocketAddr::from(([192, 0, 2, 1], 1234));
    let (request, options) = rich();
    let upgrade = || {
        let upgrade = check(&request, false, &options).unwrap();
        upgrade.peer_addr(addr).unread(masked(TEXT, "first"))
    };
    let echo_once = move |mut ws: WebSocket| async move {
        let settled = (
            ws.peer_addr(),
            ws.subprotocol().map(str::to_owned),
            ws.deflate_parameters().is_some(),
        );
        assert_eq!(settled, (Some(addr), Some("chat".to_owned()), true));
        let message = ws.recv().await?.unwrap();
        ws.send(message).await?;
        ws.flush().await?;
        Ok::<_, Error>(ws)
    };
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let _ws = echo_once(upgrade().open(stream)).await.unwrap();
        Peer { end }.expect(plain(TEXT, "first")).await;
    });
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        let running = task::spawn(upgrade().run(stream, echo_once));
        // With a task of its own the connection is closed when its handler has returned.
        peer.expect([plain(TEXT, "first"), plain(CLOSE, close(1000, ""))].concat()).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.end.close().await.unwrap();
        running.await;
    });
    let shown = format!("{:?}", upgrade());
    assert!(shown.starts_with("Upgrade { subprotocol: Some(\"chat\"), deflate: Some("), "{shown}");
}

#[test]
fn memory_for_compression_is_reserved_until_the_upgrade_or_its_connection_is_dropped() {
    let budget = DeflateBudget::new(64 << 20);
    let (request, _) = rich();
    let deflate = DeflateOptions::default().server_context_takeover(true).budget(&budget);
    let options = UpgradeOptions::from(websocket().deflate(deflate));
    let free = budget.available();
    let upgrade = check(&request, false, &options).unwrap();
    let reserved = budget.available();
    assert!(reserved < free);
    drop(upgrade);
    assert_eq!(budget.available(), free);
    let ws = check(&request, false, &options).unwrap().open(pipe(Knobs::default()).0);
    assert_eq!(budget.available(), reserved);
    drop(ws);
    assert_eq!(budget.available(), free);
    // Refused requests reserve nothing.
    let bad = options.header("X One", "1");
    assert!(check(&request, false, &bad).is_err());
    assert_eq!(budget.available(), free);
}
