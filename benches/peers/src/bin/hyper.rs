//! hyper 1.x alone on tokio: what is left of HTTP without a framework. Every path is `/ping`.

use std::convert::Infallible;
use std::future::ready;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::server;
use tokio::net::TcpListener;
use tokio::task;

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service_fn(|_: Request<Incoming>| {
            let body = Full::new(Bytes::from_static(b"hello"));
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        task::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
