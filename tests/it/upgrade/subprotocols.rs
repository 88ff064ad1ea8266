//! Subprotocols, as the client reads them in the 101 and the handler from its connection.

use tidewire::upgrade::UpgradeOptions;
use tidewire::{HandshakeError, RequestContext, Server, WebSocketOptions};

use crate::support::frames::{TEXT, plain};
use crate::support::tcp::{OPENING, Tcp, bind};

/// The answer to an opening handshake with these `Sec-WebSocket-Protocol` lines, and the connection.
fn open(options: impl Into<UpgradeOptions>, offers: &[&str]) -> (String, Tcp) {
    let options = options.into();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let spoken = ws.subprotocol().unwrap_or("none").to_owned();
            ws.send_text(spoken).await?;
            Ok(())
        }
    });
    let lines = offers.iter().map(|offer| ["Sec-WebSocket-Protocol: ", offer, "\r\n"].concat());
    let lines: String = lines.collect();
    let mut client = Tcp::connect(bind(server));
    client.send(OPENING.replace("\r\n\r\n", &format!("\r\n{lines}\r\n")));
    (client.head(), client)
}

/// What the 101 says, after the handler was heard to say the same.
fn agreed(options: impl Into<UpgradeOptions>, offers: &[&str]) -> Option<String> {
    let (head, mut client) = open(options, offers);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values =
        lines.by_ref().filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
    let value = values.next().map(|(_, value)| value.to_owned());
    assert_eq!(values.next(), None, "{head}");
    client.expect(plain(TEXT, value.as_deref().unwrap_or("none")));
    value
}

fn chat() -> WebSocketOptions {
    WebSocketOptions::default().subprotocols(["chat.v2", "chat.v1"])
}

#[test]
fn the_server_prefers_and_the_client_offers() {
    for (offers, spoken) in [
        (&["chat.v1, chat.v2"][..], Some("chat.v2")),
        (&["chat.v1"], Some("chat.v1")),
        (&["mqtt,chat.v1"], Some("chat.v1")),
        (&["mqtt", "chat.v1", "chat.v2"], Some("chat.v2")),
        (&[" ,, chat.v1 ,"], Some("chat.v1")),
        (&["CHAT.V1"], None),
        (&["mqtt"], None),
        (&[], None),
    ] {
        assert_eq!(agreed(chat(), offers).as_deref(), spoken, "{offers:?}");
    }
    assert_eq!(agreed(WebSocketOptions::default(), &["chat.v1"]), None);
}

#[test]
fn a_handler_may_choose_a_subprotocol_from_the_offer() {
    let chosen = || UpgradeOptions::from(chat()).subprotocol("mqtt");
    assert_eq!(agreed(chosen(), &["chat.v2, mqtt"]).as_deref(), Some("mqtt"));
    for offers in [&["chat.v2"][..], &[]] {
        let (head, _) = open(chosen(), offers);
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    }
}

#[test]
pub(crate) fn an_offer_that_is_not_a_list_of_tokens_is_a_400_that_says_so() {
    let reason = HandshakeError::SubprotocolsMalformed.to_string();
    for offers in [
        // RFC 6455 §4.1: nothing but U+0021 to U+007E, and no separators
        &["chat.v1, a\"b"][..],
        &["a;b, chat.v1"],
        &["chat.v1", "two words"],
        &["chat.v1/2"],
        &["chat.v1, é"],
        &["(chat.v1)"],
        &["chat.v1=1"],
        &["chat.v1@x"],
    ] {
        let chosen = UpgradeOptions::from(chat()).subprotocol("chat.v1");
        for options in [chat().into(), UpgradeOptions::default(), chosen] {
            let (head, mut client) = open(options, offers);
            assert!(head.starts_with("HTTP/1.1 400 "), "{offers:?}: {head}");
            assert_eq!(String::from_utf8_lossy(&client.read(reason.len())), reason);
        }
    }
}

#[test]
fn a_required_subprotocol_that_is_not_offered_is_a_400_that_says_so() {
    let required = || chat().require_subprotocol();
    assert_eq!(agreed(required(), &["chat.v1"]).as_deref(), Some("chat.v1"));
    for offers in [&["mqtt"][..], &[]] {
        let (head, mut client) = open(required(), offers);
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        let reason = HandshakeError::SubprotocolUnsupported.to_string();
        let body = client.read(reason.len());
        assert_eq!(String::from_utf8_lossy(&body), reason);
    }
}
