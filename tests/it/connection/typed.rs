//! Connections whose messages are values.

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tidewire::websocket::Codec;
use tidewire::{Error, Message, RequestContext, Result, Server, WebSocketOptions};

use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::tcp::{Tcp, bind};

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Asked {
    Double { number: u32 },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Doubled { number: u32 },
}

/// Numbers of two bytes.
struct Numbers;

impl Codec<u16, u16> for Numbers {
    fn decode(&mut self, message: Message) -> Result<u16> {
        let bytes = message.as_bytes().try_into();
        bytes.map(u16::from_be_bytes).map_err(|_| Error::decode("a number has two bytes"))
    }

    fn encode(&mut self, number: &u16) -> Result<Message> {
        if *number == 0 {
            return Err(Error::encode("nothing is no number"));
        }
        Ok(Message::binary(number.to_be_bytes().to_vec()))
    }
}

fn server() -> Server {
    let mut server = Server::new();
    server.get("/json", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let mut ws = ws.typed::<Asked, Told>();
        while let Some(Asked::Double { number }) = ws.recv().await? {
            ws.send(&Told::Doubled { number: 2 * number }).await?;
        }
        Ok(())
    });
    server.get("/stream", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let mut ws = ws.typed_with(Numbers);
        // A codec that refuses a message or a value leaves the connection open.
        while let Some(number) = ws.next().await {
            match number {
                Ok(number) => match ws.send(&number).await {
                    Err(error @ Error::Encode(_)) => ws.send_text(format!("{error:#}")).await?,
                    sent => sent?,
                },
                Err(error) => ws.send_text(format!("{error:#}")).await?,
            }
        }
        Ok(())
    });
    server.get("/numbers", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let mut ws = ws.typed_with(Numbers);
        while let Some(number) = ws.recv().await? {
            ws.send(&number).await?;
        }
        Ok(())
    });
    server
}

#[test]
fn values_are_json() {
    let mut client = Tcp::upgraded_at(bind(server()), "/json");
    for opcode in [TEXT, BINARY] {
        client.send(masked(opcode, r#"{"type":"double","number":21}"#));
        client.expect(plain(TEXT, r#"{"type":"doubled","number":42}"#));
    }
    client.send(masked(CLOSE, close(1000, "")));
    client.expect(plain(CLOSE, close(1000, "")));
}

#[test]
fn a_handler_that_fails_with_the_messages_of_its_peer_closes_with_1007_and_says_why() {
    let addr = bind(server());
    for (path, message, reason) in [
        ("/json", "nonsense", "expected ident at line 1 column 2"),
        ("/json", r#"{"type":"double"}"#, "missing field `number`"),
        (
            "/json",
            r#"{"type":"halve"}"#,
            "unknown variant `halve`, expected `double` at line 1 column 15",
        ),
        ("/numbers", "abc", "a number has two bytes"),
    ] {
        let mut client = Tcp::upgraded_at(addr, path);
        client.send(masked(TEXT, message));
        eprintln!("{path} {message}");
        client.expect(plain(CLOSE, close(1007, reason)));
    }
}

#[test]
fn a_value_that_has_no_message_is_our_own_failure() {
    let mut client = Tcp::upgraded_at(bind(server()), "/numbers");
    client.send(masked(BINARY, [1, 2]));
    client.expect(plain(BINARY, [1, 2]));
    client.send(masked(BINARY, [0, 0]));
    client.expect(plain(CLOSE, close(1011, "")));
}

#[test]
fn a_stream_goes_on_behind_a_message_that_the_codec_refuses() {
    let mut client = Tcp::upgraded_at(bind(server()), "/stream");
    client.send(masked(BINARY, [1]));
    client.expect(plain(TEXT, "the message cannot be decoded: a number has two bytes"));
    client.send(masked(BINARY, [0, 0]));
    client.expect(plain(TEXT, "the value cannot be encoded: nothing is no number"));
    client.send(masked(BINARY, [1, 2]));
    client.expect(plain(BINARY, [1, 2]));
    client.send(masked(CLOSE, close(1000, "")));
    client.expect(plain(CLOSE, close(1000, "")));
}
