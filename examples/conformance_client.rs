//! A client for a conformance suite and the benchmarks.
//!
//! ```text
//! cargo run --release --example conformance_client -- ws://127.0.0.1:9001 AGENT [--deflate] [--bare]
//! ```
//!
//! It asks Autobahn's fuzzing server for the number of cases, echoes in each of them, and lets the server write the
//! reports of AGENT. With `--bare` its connections have no task of their own: each makes progress only during calls
//! on it.

use tidewire::deflate::DeflateOptions;
use tidewire::{Client, Error, Result, WebSocket, WebSocketOptions};

#[async_std::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (options, words): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let [url, agent] = words.as_slice() else { return Err("usage: URL AGENT [OPTIONS]".into()) };
    let has = |name: &str| options.iter().any(|option| option == name);

    let count = ask(&format!("{url}/getCaseCount")).await?;
    let cases: u32 = count.trim().parse()?;
    for case in 1..=cases {
        let client = Client::new(format!("{url}/runCase?case={case}&agent={agent}"));
        let client = client.options(large(has("--deflate")));
        // The suite judges the errors in a case.
        let outcome = if has("--bare") {
            match client.connect().await {
                Ok(ws) => echo(ws).await,
                Err(error) => Err(error),
            }
        } else {
            client.run(echo).await
        };
        if let Err(Error::Connect(error)) = outcome {
            return Err(format!("case {case} of {cases}: {error:#}").into());
        }
    }
    Client::new(format!("{url}/updateReports?agent={agent}")).run(echo).await?;
    println!("{cases} cases");
    Ok(())
}

/// The options that the cases 9.* need, and each parameter of the extension, for messages of any size.
fn large(deflates: bool) -> WebSocketOptions {
    let options = WebSocketOptions::default().max_message_size(64 << 20).max_fragments(1 << 17);
    if !deflates {
        return options;
    }
    let deflate = DeflateOptions::default().threshold(0);
    options.deflate(deflate.server_context_takeover(true).client_context_takeover(true))
}

/// Receives the only message of a server.
async fn ask(url: &str) -> Result<String> {
    let mut ws = tidewire::connect(url).await?;
    let answer = ws.recv().await?;
    ws.close(1000, "").await?;
    let text = answer.as_ref().and_then(|message| message.as_text());
    Ok(text.unwrap_or_default().to_owned())
}

async fn echo(mut ws: WebSocket) -> Result<()> {
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}
