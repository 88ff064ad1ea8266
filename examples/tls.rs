//! `https` and `wss`: an echo behind a certificate.
//!
//! ```text
//! cargo run --release --example tls
//! cargo run --release --example tls 0.0.0.0:8443 fullchain.pem privkey.pem
//! curl --insecure https://127.0.0.1:8443/
//! ```
//!
//! Without files, the server makes a self-signed certificate for `localhost` in memory.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! rcgen = "0.14"
//! ```

use std::env;

use tidewire::tide::{Body, http::mime};
use tidewire::tls::TlsConfig;
use tidewire::{RequestContext, Server, WebSocketOptions};

const PAGE: &str = "<!doctype html><title>tidewire</title>\
    <h1>HTTPS and WSS, one port</h1><p>The socket is at <code>/ws</code>.</p>";

#[async_std::main]
async fn main() -> tidewire::HandlerResult {
    let mut server = Server::new();
    server.get("/", page);
    server.get("/ws", echo);
    server.tls(certificate()?);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on https://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

/// The certificate from the files in the arguments, or a self-signed one.
fn certificate() -> tidewire::HandlerResult<TlsConfig> {
    let mut files = env::args().skip(2);
    if let (Some(chain), Some(key)) = (files.next(), files.next()) {
        return Ok(TlsConfig::from_pem_files(chain, key)?);
    }
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(TlsConfig::from_pem(made.cert.pem(), made.signing_key.serialize_pem())?)
}

async fn page(_ctx: RequestContext) -> tidewire::HandlerResult<Body> {
    let mut page = Body::from(PAGE);
    page.set_mime(mime::HTML);
    Ok(page)
}

async fn echo(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        match message.as_text() {
            Some(text) => ws.send_text(format!("Echo: {text}")).await?,
            None => ws.send(message).await?,
        }
    }
    Ok(())
}
