//! The check that a 101 response keeps the rules of the opening handshake ([RFC 6455 §4.1]).
//!
//! [RFC 6455 §4.1]: https://www.rfc-editor.org/rfc/rfc6455#section-4.1

use async_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::error::{HandshakeResponse, ResponseViolation};
use crate::options::{DeflateOptions, Parts};
use crate::proto::handshake::HeaderLines;
use crate::proto::{DeflateAnswerError, DeflateParameters, extension};

/// The parameters that a 101 response agrees to.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) subprotocol: Option<Box<str>>,
    pub(super) deflate: Option<DeflateParameters>,
}

/// Checks a 101 response to a request with `key` and these options.
pub(super) fn check(
    response: &HandshakeResponse,
    key: &str,
    options: &Parts,
) -> Result<Agreed, ResponseViolation> {
    if !response.headers.has_token("upgrade", "websocket") {
        return Err(ResponseViolation::UpgradeMissing);
    }
    if !response.headers.has_token("connection", "upgrade") {
        return Err(ResponseViolation::ConnectionMissing);
    }
    let accept = only(response, "sec-websocket-accept").ok_or(ResponseViolation::AcceptMissing)?;
    if accept != derive_accept_key(key.as_bytes()) {
        return Err(ResponseViolation::AcceptMismatch);
    }
    let deflate = extensions(response, options.deflate.as_ref());
    Ok(Agreed {
        deflate: deflate.map_err(ResponseViolation::Extension)?,
        subprotocol: subprotocol(response, options)?.map(Into::into),
    })
}

/// The value of the line of this name; `None` unless there is exactly one.
fn only<'a>(response: &'a HandshakeResponse, name: &'a str) -> Option<&'a str> {
    let mut lines = response.headers.lines(name);
    lines.next().filter(|_| lines.next().is_none()).map(str::trim)
}

fn extensions(
    response: &HandshakeResponse,
    deflate: Option<&DeflateOptions>,
) -> Result<Option<DeflateParameters>, DeflateAnswerError> {
    let lines = response.headers.lines("sec-websocket-extensions");
    if let Some(deflate) = deflate {
        return deflate.check_answer(lines);
    }
    let listed = extension::parse(lines).map_err(|_| DeflateAnswerError::HeaderMalformed)?;
    match listed.first() {
        None => Ok(None),
        Some(unasked) => Err(DeflateAnswerError::ExtensionNotOffered(unasked.name.to_owned())),
    }
}

fn subprotocol<'a>(
    response: &'a HandshakeResponse,
    options: &Parts,
) -> Result<Option<&'a str>, ResponseViolation> {
    let mut lines = response.headers.lines("sec-websocket-protocol");
    let offered = &options.subprotocols;
    match (lines.next().map(str::trim), lines.next()) {
        (None, _) if offered.is_required => Err(ResponseViolation::SubprotocolMissing),
        (None, _) => Ok(None),
        (Some(name), None) if offered.supported.iter().any(|ours| ours == name) => Ok(Some(name)),
        (Some(name), _) => Err(ResponseViolation::SubprotocolNotOffered { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Fields;
    use crate::options::WebSocketOptions;

    /// The key of §1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    const VALID: [(&str, &str); 3] = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];

    fn response(lines: &[(&'static str, &'static str)]) -> HandshakeResponse {
        let line = |line: &(&'static str, &'static str)| httparse::Header {
            name: line.0,
            value: line.1.as_bytes(),
        };
        let headers = Fields::new(&lines.iter().map(line).collect::<Vec<_>>());
        HandshakeResponse { status: 101, headers, body: Vec::new() }
    }

    /// The valid response, with these lines in place of all others of the same name.
    fn with(lines: &[(&'static str, &'static str)]) -> HandshakeResponse {
        let kept = VALID.into_iter().filter(|line| lines.iter().all(|other| other.0 != line.0));
        response(
            &kept.chain(lines.iter().copied().filter(|line| line.1 != "-")).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_response_of_section_1_3_is_accepted() {
        let agreed = check(&with(&[]), KEY, &WebSocketOptions::default().parts).unwrap();
        assert!(agreed.subprotocol.is_none() && agreed.deflate.is_none());
        let spelled = with(&[("Upgrade", "WebSocket"), ("Connection", "keep-alive, upgrade")]);
        assert!(check(&spelled, KEY, &WebSocketOptions::default().parts).is_ok());
    }

    #[test]
    fn a_response_that_breaks_a_rule_says_which() {
        use ResponseViolation as Violation;
        let unasked = |name: &str| {
            Violation::Extension(DeflateAnswerError::ExtensionNotOffered(name.to_owned()))
        };
        let other = |name: &str| Violation::SubprotocolNotOffered { name: name.to_owned() };
        let accept = VALID[2].1;
        for (lines, violation) in [
            (&[("Upgrade", "-")][..], Violation::UpgradeMissing),
            (&[("Upgrade", "h2c")], Violation::UpgradeMissing),
            (&[("Connection", "-")], Violation::ConnectionMissing),
            (&[("Connection", "close")], Violation::ConnectionMissing),
            (&[("Sec-WebSocket-Accept", "-")], Violation::AcceptMissing),
            (
                &[("Sec-WebSocket-Accept", accept), ("Sec-WebSocket-Accept", accept)],
                Violation::AcceptMissing,
            ),
            (
                &[("Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
                Violation::AcceptMismatch,
            ),
            (&[("Sec-WebSocket-Extensions", "x-webkit-deflate")], unasked("x-webkit-deflate")),
            (&[("Sec-WebSocket-Extensions", "permessage-deflate")], unasked("permessage-deflate")),
            (
                &[("Sec-WebSocket-Extensions", ";")],
                Violation::Extension(DeflateAnswerError::HeaderMalformed),
            ),
            (&[("Sec-WebSocket-Protocol", "mqtt")], other("mqtt")),
            (&[("Sec-WebSocket-Protocol", "chat, superchat")], other("chat, superchat")),
            (&[("Sec-WebSocket-Protocol", "Chat")], other("Chat")),
            (
                &[("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "superchat")],
                other("chat"),
            ),
        ] {
            let options = WebSocketOptions::default().subprotocols(["chat", "superchat"]);
            assert_eq!(check(&with(lines), KEY, &options.parts).unwrap_err(), violation);
        }
    }

    #[test]
    fn a_header_that_is_not_text_agrees_to_nothing() {
        for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Sec-WebSocket-Accept"] {
            let lines =
                VALID.map(|(name, value)| httparse::Header { name, value: value.as_bytes() });
            let lines = [&lines[..], &[httparse::Header { name, value: b"\xff" }]].concat();
            let response =
                HandshakeResponse { status: 101, headers: Fields::new(&lines), body: Vec::new() };
            assert!(check(&response, KEY, &WebSocketOptions::default().parts).is_err(), "{name}");
        }
    }

    #[test]
    fn offered_parameters_are_agreed_on() {
        let options = WebSocketOptions::default()
            .subprotocols(["chat", "superchat"])
            .deflate(DeflateOptions::default());
        let response = with(&[
            ("Sec-WebSocket-Protocol", "superchat"),
            ("Sec-WebSocket-Extensions", "permessage-deflate; server_no_context_takeover"),
        ]);
        let agreed = check(&response, KEY, &options.parts).unwrap();
        assert_eq!(agreed.subprotocol.as_deref(), Some("superchat"));
        assert!(agreed.deflate.is_some());
    }

    #[test]
    fn a_subprotocol_can_be_required() {
        let options = WebSocketOptions::default().subprotocols(["chat"]).require_subprotocol();
        let verdict = check(&with(&[]), KEY, &options.parts);
        assert_eq!(verdict.unwrap_err(), ResponseViolation::SubprotocolMissing);
    }
}
