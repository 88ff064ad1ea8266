//! The request of a client's opening handshake ([RFC 6455 §4.1]).
//!
//! `response` reads the response to it.
//!
//! [RFC 6455 §4.1]: https://www.rfc-editor.org/rfc/rfc6455#section-4.1

use async_tungstenite::tungstenite::handshake::client::{generate_key, generate_request};
use async_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

use super::Parts;
use super::target::Target;
use crate::error::{ConnectError, without_secrets};
use crate::escaped::Escaped;
use crate::proto::extension;
use crate::proto::handshake::is_reserved;
use crate::records::record;

/// An opening handshake, ready to be sent.
#[derive(Debug)]
pub(super) struct Opening {
    /// The whole head.
    pub(super) bytes: Vec<u8>,
    /// The key, from which the server derives `Sec-WebSocket-Accept`.
    pub(super) key: String,
}

/// Headers that are not sent to another origin after a redirect.
const PRIVATE: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

impl Opening {
    /// Writes the request to the server at `target`. `is_first` says whether that is the origin that the caller
    /// named.
    pub(super) fn new(
        parts: &Parts,
        target: &Target,
        is_first: bool,
    ) -> Result<Self, ConnectError> {
        let mut request = Request::new(());
        *request.uri_mut() = uri(target)?;
        let headers = request.headers_mut();
        let key = generate_key();
        for (name, text) in [
            (HOST, &*target.authority),
            (CONNECTION, "Upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, &key),
        ] {
            headers.insert(name.clone(), value(&name, text)?);
        }
        if let Some(authorization) = &target.authorization {
            headers.insert(AUTHORIZATION, value(&AUTHORIZATION, authorization)?);
        }
        if let Some(names) = offered(&parts.options.parts.subprotocols.supported)? {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value(&SEC_WEBSOCKET_PROTOCOL, &names)?);
        }
        if let Some(deflate) = &parts.options.parts.deflate {
            let offer = value(&SEC_WEBSOCKET_EXTENSIONS, &deflate.offer())?;
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer);
        }
        append_own(headers, &parts.headers, is_first)?;
        let (bytes, key) = generate_request(request).map_err(|error| invalid_header(&error))?;
        Ok(Self { bytes, key })
    }
}

/// The target in the form of the request line.
fn uri(target: &Target) -> Result<Uri, ConnectError> {
    target.resource.parse().map_err(|error: <Uri as std::str::FromStr>::Err| {
        let url = without_secrets(&target.resource);
        ConnectError::InvalidUrl { url, reason: error.to_string() }
    })
}

/// Adds the headers of the caller. The first `Host` replaces ours.
fn append_own(
    headers: &mut HeaderMap,
    own: &[(String, String)],
    is_first: bool,
) -> Result<(), ConnectError> {
    for (text, content) in own {
        let invalid = || ConnectError::InvalidHeader { name: text.clone() };
        let name: HeaderName = text.parse().map_err(|_| invalid())?;
        if is_reserved(name.as_str()) {
            return Err(invalid());
        }
        let content = value(&name, content)?;
        match name.as_str() {
            _ if !is_first && (name == HOST || PRIVATE.contains(&name.as_str())) => {}
            // The caller's header replaces the value from the URL.
            "host" | "authorization" => drop(headers.insert(name, content)),
            _ => drop(headers.append(name, content)),
        }
    }
    Ok(())
}

fn value(name: &HeaderName, text: &str) -> Result<HeaderValue, ConnectError> {
    let invalid = |_| ConnectError::InvalidHeader { name: name.to_string() };
    HeaderValue::from_bytes(text.as_bytes()).map_err(invalid)
}

/// The subprotocols of a client as a list. Each must be a token, and no two may be equal (§4.1).
fn offered(names: &[String]) -> Result<Option<String>, ConnectError> {
    for (place, name) in names.iter().enumerate() {
        let is_repeated = names.iter().take(place).any(|earlier| earlier == name);
        if is_repeated || !extension::is_token(name) {
            return Err(ConnectError::InvalidSubprotocol { name: name.clone() });
        }
    }
    Ok((!names.is_empty()).then(|| names.join(", ")))
}

/// Logs an error of the request's generator, which expects text in the headers that it writes itself.
fn invalid_header(error: &async_tungstenite::tungstenite::Error) -> ConnectError {
    record!(debug, "the opening handshake cannot be written", error = Escaped(error));
    ConnectError::InvalidHeader { name: "Host".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::options::DeflateOptions;

    fn opening(client: &Client, is_first: bool) -> Result<String, ConnectError> {
        let target = Target::parse(&client.parts.url)?;
        let opening = Opening::new(&client.parts, &target, is_first)?;
        let text = String::from_utf8(opening.bytes).unwrap();
        Ok(text.replace(&opening.key, "KEY"))
    }

    #[test]
    fn the_request_is_that_of_section_1_3() {
        let client = Client::new("ws://server.example.com/chat");
        assert_eq!(
            opening(&client, true).unwrap(),
            "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n",
        );
    }

    #[test]
    fn headers_of_the_caller_are_sent() {
        let client = Client::new("ws://ada:x@example.com/")
            .subprotocols(["chat.v2", "chat.v1"])
            .deflate(DeflateOptions::default())
            .origin("https://example.com")
            .header("X-One", "1")
            .header("x-one", "ü");
        let text = opening(&client, true).unwrap();
        for line in [
            "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n",
            "sec-websocket-extensions: permessage-deflate; ",
            "Origin: https://example.com\r\n",
            "authorization: Basic YWRhOng=\r\n",
            "x-one: 1\r\nx-one: ü\r\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn host_and_authorization_of_the_caller_replace_ours() {
        let client = Client::new("ws://ada:x@10.0.0.1/")
            .header("Host", "example.com")
            .header("Authorization", "Bearer t");
        let text = opening(&client, true).unwrap();
        assert!(text.contains("\r\nHost: example.com\r\n"), "{text}");
        assert!(text.contains("\r\nauthorization: Bearer t\r\n"), "{text}");
        assert!(!text.contains("10.0.0.1") && !text.contains("Basic"), "{text}");
    }

    #[test]
    fn a_server_that_was_not_named_is_told_no_secrets() {
        let client = Client::new("ws://10.0.0.1/")
            .header("Host", "example.com")
            .header("Cookie", "id=1")
            .header("authorization", "Bearer t")
            .header("X-One", "1");
        let text = opening(&client, false).unwrap();
        assert!(text.contains("\r\nHost: 10.0.0.1\r\n") && text.contains("x-one: 1"), "{text}");
        assert!(!text.contains("id=1") && !text.contains("Bearer"), "{text}");
    }

    #[test]
    fn headers_of_the_handshake_and_line_breaks_are_refused() {
        for (name, content) in [
            ("Upgrade", "h2c"),
            ("sec-websocket-key", "x"),
            ("Sec-WebSocket-Accept", "x"),
            ("Content-Length", "5"),
            ("Content-Type", "text/plain"),
            ("X-One", "1\r\nX-Two: 2"),
            ("X One", "1"),
            ("", "1"),
        ] {
            let refused = opening(&Client::new("ws://x/").header(name, content), true);
            assert!(matches!(refused, Err(ConnectError::InvalidHeader { .. })), "{name}");
        }
        for names in [&["a b"][..], &[""], &["a", "a"], &["a,b"], &["ä"]] {
            let refused = opening(&Client::new("ws://x/").subprotocols(names.to_vec()), true);
            assert!(matches!(refused, Err(ConnectError::InvalidSubprotocol { .. })), "{names:?}");
        }
    }
}
