//! The errors of handlers: what a client is told of them, before the upgrade and after it.

use std::fmt;

use tide::StatusCode;
use tidewire::server::{Json, endpoint, fallible};
use tidewire::{HandlerError, HandlerResult, Reject, RequestContext, Server, WebSocketOptions};

use crate::http::{Client, serve};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::tcp::{OPENING, Tcp};

/// An error of an application, which wraps another.
#[derive(Debug)]
enum AuctionError {
    Closed,
    Store(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for AuctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the auction has failed")
    }
}

impl std::error::Error for AuctionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Store(error) => Some(&**error),
        }
    }
}

/// Middleware, behind which requests take the long way.
struct Nothing;

#[tide::utils::async_trait]
impl tide::Middleware<()> for Nothing {
    async fn handle(&self, request: tide::Request<()>, next: tide::Next<'_, ()>) -> tide::Result {
        Ok(next.run(request).await)
    }
}

/// Fails in the way that the path names.
fn fail(how: &str) -> HandlerResult {
    Err(match how {
        "status" => Reject::status(404, "no such lot").into(),
        "header" => Reject::status(401, "log in").header("www-authenticate", "Bearer").into(),
        "close" => Reject::close(4003, "kicked").into(),
        "close-401" => Reject::close(4401, "log in").into(),
        "unsendable" => Reject::close(1005, "nothing").into(),
        "wrapped" => AuctionError::Store(Reject::close(1013, "later").into()).into(),
        "anyhow" => {
            anyhow::Error::from(Reject::status(409, "taken")).context("while bidding").into()
        }
        "context" => {
            anyhow::anyhow!("a row is locked").context(Reject::status(423, "locked")).into()
        }
        "judged" => AuctionError::Closed.into(),
        "tide" => HandlerError::from_tide(tide::Error::from_str(410, "gone for good")),
        "boxed" => HandlerError::boxed("the database is on fire".into()),
        "json" => tidewire::Error::from(serde_json::from_str::<u8>("x").unwrap_err()).into(),
        _ => std::io::Error::other("the disk is full").into(),
    })
}

async fn before(ctx: RequestContext) -> HandlerResult {
    fail(ctx.request().url().query().unwrap_or_default())
}

async fn after(mut ctx: RequestContext) -> HandlerResult {
    let how = ctx.request().url().query().unwrap_or_default().to_owned();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    if how == "recv_json" {
        ws.recv_json::<u8>().await?;
    }
    fail(&how)
}

fn site() -> Server {
    let mut server = Server::new();
    server.get("/before", before);
    server.at("/behind/before").with(Nothing).get(endpoint(before));
    server.get("/after", after);
    server.at("/behind/after").with(Nothing).get(endpoint(after));
    server.on_error(|error| match error.find()? {
        AuctionError::Closed => Some(Reject::status(423, "the auction is over")),
        AuctionError::Store(_) => None,
    });
    server
}

const CASES: [(&str, &str, &str, u16, &str); 13] = [
    ("status", "404", "no such lot", 1008, "no such lot"),
    ("header", "401", "log in", 1008, "log in"),
    ("close", "403", "kicked", 4003, "kicked"),
    ("close-401", "401", "log in", 4401, "log in"),
    ("unsendable", "500", "nothing", 1011, "nothing"),
    ("wrapped", "503", "later", 1013, "later"),
    ("anyhow", "409", "taken", 1008, "taken"),
    ("context", "423", "locked", 1008, "locked"),
    ("judged", "423", "the auction is over", 1008, "the auction is over"),
    ("tide", "410", "gone for good", 1008, "gone for good"),
    ("boxed", "500", "", 1011, ""),
    ("json", "400", "expected value at line 1 column 1", 1007, "expected value at line 1 column 1"),
    ("other", "500", "", 1011, ""),
];

#[test]
fn an_error_before_the_upgrade_is_a_status_with_its_text() {
    let addr = serve(site());
    for path in ["/before", "/behind/before"] {
        for (how, status, body, ..) in CASES {
            let request = format!("GET {path}?{how} HTTP/1.1\r\nHost: x\r\n\r\n");
            let response = Client::to(addr, request).response();
            let (head, found) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {how}: {head}");
            assert_eq!(found, body, "{path} {how}");
            let is_asked = head.contains("www-authenticate: Bearer");
            assert_eq!(is_asked, how == "header", "{path} {how}: {head}");
        }
    }
}

#[test]
fn an_error_after_the_upgrade_is_a_close_frame() {
    let addr = serve(site());
    for path in ["/after", "/behind/after"] {
        let sentence = "invalid type: string \"x\", expected u8 at line 1 column 3";
        let cases = CASES.map(|(how, _, _, code, reason)| (how, code, reason));
        for (how, code, reason) in cases.into_iter().chain([("recv_json", 1007, sentence)]) {
            let mut client = Tcp::connect(addr);
            client.send(OPENING.replacen('/', &format!("{path}?{how}"), 1));
            assert!(client.head().starts_with("HTTP/1.1 101 "));
            client.send(masked(TEXT, "\"x\""));
            eprintln!("{path} {how}");
            client.expect(plain(CLOSE, close(code, reason)));
        }
    }
}

#[test]
fn a_body_and_a_query_that_do_not_fit_are_refused_with_serdes_sentence() {
    #[derive(serde::Deserialize)]
    struct Bid {
        amount: u32,
    }

    let mut server = Server::new();
    server
        .get("/", |ctx: RequestContext| async move { Ok(ctx.query::<Bid>()?.amount.to_string()) });
    server.post("/", |mut ctx: RequestContext| async move {
        Ok(ctx.body_json::<Bid>().await?.amount.to_string())
    });
    let addr = serve(server);
    let told = |request: &str| {
        let response = Client::to(addr, request).response();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    };
    let (status, body) = told("GET /?amount=x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(body.contains("invalid digit"), "{body}");
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    let sentence = "missing field `amount` at line 1 column 2".to_owned();
    assert_eq!(told(post), ("HTTP/1.1 400 Bad Request".to_owned(), sentence));
}

#[test]
fn a_named_function_may_have_an_error_of_its_own() {
    async fn bid(_: RequestContext) -> Result<(), AuctionError> {
        Err(AuctionError::Closed)
    }

    let mut server = Server::new();
    server.get("/", fallible(bid));
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(Client::to(serve(server), request).response().starts_with("HTTP/1.1 500 "));

    let mut server = Server::new();
    server.get("/", fallible(bid));
    server.on_error(|_| Some(Reject::status(423, "over")));
    assert!(Client::to(serve(server), request).response().ends_with("\r\n\r\nover"));
}

#[test]
fn a_judge_that_panics_is_a_handler_that_panics() {
    let mut server = site();
    server.on_error(|_| panic!("on purpose"));
    let addr = serve(server);
    let request = "GET /before?other HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(Client::to(addr, request).response().starts_with("HTTP/1.1 500 "));
    let mut client = Tcp::connect(addr);
    client.send(OPENING.replacen('/', "/after?other", 1));
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.expect(plain(CLOSE, close(1011, "")));
}

#[test]
fn values_with_a_status_with_headers_or_missing_are_responses() {
    let mut server = Server::new();
    server.get("/json", |_: RequestContext| async { Ok(Json([1, 2])) });
    server.get("/created", |_: RequestContext| async { Ok((StatusCode::Created, "made")) });
    server.get("/headers", |_: RequestContext| async {
        Ok(([("content-type", "text/css"), ("x-own", "1")], "body {}"))
    });
    server.get("/forbidden", |_: RequestContext| async { Ok(([("x-own", "a\r\nb: c")], "x")) });
    server.get("/some", |_: RequestContext| async { Ok(Some("a lamp")) });
    server.get("/none", |_: RequestContext| async { Ok(None::<&str>) });
    server.get("/unwritable", |_: RequestContext| async {
        Ok(Json(std::collections::HashMap::from([((1, 2), 3)])))
    });
    let addr = serve(server);
    let json = "content-type: application/json\r\ncontent-length: 5\r\n\r\n[1,2]";
    for (path, status, rest) in [
        ("/json", "200 OK", json),
        ("/created", "201 Created", "\r\n\r\nmade"),
        ("/headers", "200 OK", "\r\n\r\nbody {}"),
        ("/forbidden", "500 Internal Server Error", "content-length: 0\r\n\r\n"),
        ("/some", "200 OK", "\r\n\r\na lamp"),
        ("/none", "404 Not Found", "content-length: 0\r\n\r\n"),
        ("/unwritable", "500 Internal Server Error", "content-length: 0\r\n\r\n"),
    ] {
        let response =
            Client::to(addr, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).response();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {response}");
        assert!(response.ends_with(rest), "{path}: {response}");
        assert_eq!(response.contains("content-type: text/css\r\n"), path == "/headers");
        assert_eq!(response.contains("x-own: 1\r\n"), path == "/headers");
    }
}
