//! A WebSocket client for the terminal. It sends each line that it reads, and prints each message that it receives.
//!
//! ```text
//! cargo run --release --example client -- ws://127.0.0.1:8080/ws
//! ```
//!
//! Options, before or after the URL: `--subprotocol NAME` and `--header 'NAME: VALUE'` (each as often as needed),
//! `--deflate`, and `--insecure` for a server with a self-signed certificate. If its input is not a terminal, as in
//! `echo 'Hello, Server!' | …`, it waits a moment for answers after the end of the input, and closes.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! futures = "0.3"
//! ```

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use async_std::future::timeout;
use async_std::io::prelude::BufReadExt;
use async_std::io::{BufReader, stdin};
use futures::StreamExt;
use futures::future::{Either, select};
use tidewire::deflate::DeflateOptions;
use tidewire::{Client, Error, Message, WebSocket};

/// Time without an answer after which the client stops waiting for more.
const MOMENT: Duration = Duration::from_secs(1);

#[async_std::main]
async fn main() {
    let client = match client(std::env::args().skip(1)) {
        Ok(client) => client,
        Err(problem) => fail(2, &problem),
    };
    if let Err(error) = client.run(talk).await {
        fail(1, &format!("{error:#}"));
    }
}

fn fail(code: i32, problem: &str) -> ! {
    eprintln!("{problem}");
    std::process::exit(code)
}

/// Reads the arguments.
fn client(mut args: impl Iterator<Item = String>) -> Result<Client, String> {
    let (mut url, mut headers, mut subprotocols) = (None, Vec::new(), Vec::new());
    let (mut deflates, mut is_insecure) = (false, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--subprotocol" => subprotocols.push(value()?),
            "--header" => headers.push(value()?),
            "--deflate" => deflates = true,
            "--insecure" => is_insecure = true,
            _ if arg.starts_with('-') => return Err(format!("there is no option {arg}")),
            _ => url = Some(arg),
        }
    }
    let mut client = Client::new(url.ok_or("usage: client URL [OPTIONS]")?);
    for header in headers {
        let (name, value) = header.split_once(':').ok_or("a header is NAME: VALUE")?;
        client = client.header(name, value.trim());
    }
    client = client.subprotocols(subprotocols);
    if deflates {
        client = client.deflate(DeflateOptions::default());
    }
    if is_insecure { insecure(client) } else { Ok(client) }
}

#[cfg(feature = "tls")]
fn insecure(client: Client) -> Result<Client, String> {
    let tls =
        tidewire::tls::ClientTls::dangerously_unverified().map_err(|error| error.to_string())?;
    Ok(client.tls(tls))
}

#[cfg(not(feature = "tls"))]
fn insecure(_: Client) -> Result<Client, String> {
    Err("this build has no TLS".into())
}

/// Sends typed lines and prints received messages, until either side is done.
async fn talk(mut ws: WebSocket) -> Result<(), Error> {
    if let Some(subprotocol) = ws.subprotocol() {
        eprintln!("connected, speaking {subprotocol}");
    } else {
        eprintln!("connected");
    }
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        // Either future may be dropped before its end without loss.
        let event = match select(lines.next(), pin!(ws.recv())).await {
            Either::Left((line, _)) => Event::Typed(line.transpose()?),
            Either::Right((received, _)) => Event::Received(received?),
        };
        match event {
            Event::Typed(Some(line)) => ws.send(line).await?,
            Event::Typed(None) => return finish(ws).await,
            Event::Received(Some(message)) => print(&message),
            Event::Received(None) => {
                ended(&ws);
                return Ok(());
            }
        }
    }
}

/// An event; `None` is the end of its source.
enum Event {
    Typed(Option<String>),
    Received(Option<Message>),
}

/// Ends the connection after the last line was sent.
async fn finish(mut ws: WebSocket) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        while let Ok(received) = timeout(MOMENT, ws.recv()).await {
            let Some(message) = received? else {
                ended(&ws);
                return Ok(());
            };
            print(&message);
        }
    }
    ws.close(1000, "").await?;
    Ok(())
}

/// Reports that the server has closed.
fn ended(ws: &WebSocket) {
    if let Some(info) = ws.close_info() {
        eprintln!("closed by the server: {} {}", info.reported_code(), info.reason);
    }
}

fn print(message: &Message) {
    match message.as_text() {
        Some(text) => println!("Received: {text}"),
        None => println!("Received: {} bytes", message.len()),
    }
}
