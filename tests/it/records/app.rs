//! The application whose records the tests read.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::{TryStreamExt, stream};
use tidewire::limits::ConnectionLimit;
use tidewire::server::{ServerOptions, endpoint};
use tidewire::tide::{self, Response, StatusCode};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{HandlerError, HandlerResult, Reject, RequestContext, Server, WebSocketOptions};

use super::{OPENING, SECRETS};
use crate::support::log_sink;
use crate::support::server_process::serve;

/// The size of a body that no socket holds, in bytes.
pub(super) const BIG: usize = 64 << 20;

/// An error of the application, with a cause.
fn fire() -> HandlerError {
    HandlerError::from(anyhow::anyhow!("the database is\non fire").context("no lots"))
}

/// A message of the peer, or the peer's own failure.
#[derive(Debug, serde::Deserialize)]
struct Login {
    password: u32,
}

/// How a handler ends, before or after the upgrade, by a parameter of the path.
async fn end(way: &str, ctx: &mut RequestContext) -> HandlerResult<Response> {
    match way {
        "fails" => Err(fire()),
        "panics" => panic!("the\npanic of {way}"),
        "of-tokio" => {
            // No runtime is there.
            tokio::time::sleep(Duration::ZERO).await;
            Ok(Response::new(StatusCode::Ok))
        }
        "panics-silently" => std::panic::panic_any(7),
        "rejects" => Err(Reject::status(404, "no such\nlot").into()),
        "rejects-secretly" => {
            Err(Reject::status(403, format!("not you: {:?}", ctx.header("cookie"))).into())
        }
        "of-tide" => {
            let error = tide::Error::from_str(StatusCode::Unauthorized, "log in first");
            Err(HandlerError::from_tide(error))
        }
        "ours" => Err(Reject::status(503, "too much to do").into()),
        "gateway" => Ok(Response::new(StatusCode::BadGateway)),
        "header" => {
            let cookie = format!("{}\r\n", ctx.header("cookie").unwrap_or_default());
            ctx.set_response_header("set-cookie", &cookie)?;
            Ok(Response::new(StatusCode::Ok))
        }
        "informs" => Ok(Response::new(StatusCode::EarlyHints)),
        "body" => {
            let pieces = [Ok("begun"), Err(io::Error::other("the disk is\nfull"))];
            let body = stream::iter(pieces).into_async_read();
            Ok(Response::builder(200).body(tide::Body::from_reader(body, None)).build())
        }
        "body-panics" => {
            let pieces =
                std::iter::from_fn(|| -> Option<io::Result<&str>> { panic!("in the\nbody") });
            let body = stream::iter(pieces).into_async_read();
            Ok(Response::builder(200).body(tide::Body::from_reader(body, None)).build())
        }
        "query" => {
            let _: Login = ctx.query()?;
            Ok(Response::new(StatusCode::Ok))
        }
        "json" => {
            let login: Login = ctx.body_json().await?;
            Ok(login.password.to_string().into())
        }
        "upload" => {
            let body = ctx.request_mut().take_body();
            let len = futures::io::copy(body, &mut futures::io::sink()).await?;
            Ok(len.to_string().into())
        }
        "kicked" => Err(Reject::close(4003, "kicked").into()),
        "number" => {
            let number: u8 = ctx.param("way")?;
            Ok(number.to_string().into())
        }
        _ => Ok(Response::new(StatusCode::Ok)),
    }
}

/// Ends as the path says.
async fn end_at_once(mut ctx: RequestContext) -> HandlerResult<Response> {
    let way = ctx.param_raw("way").unwrap_or_default().to_owned();
    end(&way, &mut ctx).await
}

/// Ends as the path says, once a message has come over the WebSocket.
async fn end_upgraded(mut ctx: RequestContext) -> HandlerResult<Response> {
    let way = ctx.param_raw("way").unwrap_or_default().to_owned();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    match &*way {
        // The first error of the connection.
        "echo" => {
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            return Ok(Response::new(StatusCode::Ok));
        }
        "json" => {
            let _: Option<Login> = ws.recv_json().await?;
            return Ok(Response::new(StatusCode::Ok));
        }
        // An error of another connection, while this one is open.
        "elsewhere" => return Err(tidewire::Error::from(io::Error::other("no upstream")).into()),
        "said" => {
            let said = ws.recv().await?.map(|message| message.into_text().unwrap());
            panic!("{}", said.unwrap_or_default());
        }
        _ => {}
    }
    drop(ws.recv().await);
    end(&way, &mut ctx).await
}

/// A server with all of them.
fn server() -> Server {
    let mut server = Server::new();
    server.access_log();
    server.options(ServerOptions::default().body_timeout(Duration::from_millis(50)));
    log_sink::show_at(&mut server, "/log");
    server.get("/http/:way", end_at_once);
    server.post("/http/:way", end_at_once);
    server.get("/big", |_: RequestContext| async { Ok("x".repeat(BIG)) });
    server.get("/ws/:way", end_upgraded);
    through_tide(&mut server);
    limited(&mut server);
    elsewhere(&mut server);
    server.at("/files").serve_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    server
}

fn through_tide(server: &mut Server) {
    let same = tide::utils::After(|response: Response| async { Ok(response) });
    server.at("/tide/:way").with(same).get(endpoint(end_at_once));
    // Middleware that makes other responses of errors.
    let pages = tide::utils::After(|response: Response| async move {
        let status = match response.status() {
            StatusCode::BadGateway => StatusCode::NotFound,
            StatusCode::Unauthorized => StatusCode::Ok,
            status => status,
        };
        Ok(Response::builder(status).body("<h1>sorry</h1>").build())
    });
    server.at("/pages/:way").with(pages).get(endpoint(end_at_once));
    // An endpoint of tide, which knows nothing of this crate.
    server.at("/endpoint").get(|_: tide::Request<()>| async {
        Err::<Response, _>(tide::Error::from_str(500, "tide is\non fire"))
    });
    let mut inner = Server::new();
    inner.get("/:way", end_upgraded);
    server.nest("/nested", inner);
}

fn limited(server: &mut Server) {
    server.get("/chosen", |mut ctx: RequestContext| async move {
        let options = WebSocketOptions::default().subprotocols(["chat"]).require_subprotocol();
        let _ws = ctx.upgrade_to_websocket(options).await?;
        Ok(())
    });
    let limit = ConnectionLimit::new(1);
    server.get("/limited", move |mut ctx: RequestContext| {
        let options = UpgradeOptions::default().limit(&limit);
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            drop(ws.recv().await);
            Ok(())
        }
    });
}

/// What does not go through a server of this crate.
fn elsewhere(server: &mut Server) {
    // An app that listens through tide itself.
    server.get("/foreign/:way", |ctx: RequestContext| async move {
        let mut app = tide::new();
        app.at("/:way").get(endpoint(end_at_once));
        let way = ctx.param_raw("way").unwrap_or_default();
        let url = tide::http::Url::parse(&format!("http://x/{way}?token=s3cret"))?;
        let request = tide::http::Request::new(tide::http::Method::Get, url);
        let response: tide::http::Response =
            app.respond(request).await.map_err(HandlerError::from_tide)?;
        Ok(u16::from(response.status()).to_string())
    });
    // A handshake without the server.
    server.get("/accept", |_: RequestContext| async move {
        let request = format!(
            "GET /by-hand?token=s3cret HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\n{SECRETS}{OPENING}\r\n"
        );
        let stream = futures::io::Cursor::new(request.into_bytes());
        let request = tidewire::upgrade::accept(stream).await?;
        let refused = request.upgrade(WebSocketOptions::default()).await;
        assert!(refused.is_err());
        Ok(())
    });
}

#[test]
fn a_server_whose_log_is_kept_by_tracing() {
    serve(|| {
        log_sink::keep_by_tracing();
        server()
    });
}

#[test]
fn a_server_whose_log_is_kept_by_log() {
    serve(|| {
        log_sink::keep_by_log();
        server()
    });
}

#[test]
fn a_server_without_an_access_log() {
    serve(|| {
        log_sink::keep_by_log();
        let mut server = Server::new();
        log_sink::show_at(&mut server, "/log");
        server
    });
}
