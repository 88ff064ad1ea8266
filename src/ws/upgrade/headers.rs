//! Headers of the 101 that handlers and options may add ([RFC 6455 §4.2.2]).
//!
//! [RFC 6455 §4.2.2]: https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2

use tide::Response;
use tide::http::headers::{HeaderName, HeaderValue};

use crate::ws::HandshakeError;
use crate::ws::handshake::is_reserved;
use crate::ws::proto::DeflateParameters;

/// `Sec-WebSocket-Extensions`, as it was agreed on.
pub(super) fn extensions_header(
    parameters: DeflateParameters,
) -> Option<(HeaderName, HeaderValue)> {
    parse_header("sec-websocket-extensions", &parameters.to_string()).ok()
}

/// The headers of the options, without those that are the handshake's own.
pub(super) fn response_headers(
    headers: &[(String, String)],
) -> Result<Vec<(HeaderName, HeaderValue)>, HandshakeError> {
    let free = headers.iter().filter(|(name, _)| !is_reserved(name));
    free.map(|(name, value)| parse_header(name, value)).collect()
}

/// Whether HTTP allows all headers of a response.
pub(super) fn are_valid(response: &Response) -> bool {
    response.iter().all(|(name, values)| {
        values.iter().all(|value| ::http::HeaderValue::try_from(value.as_str()).is_ok())
            && ::http::HeaderName::try_from(name.as_str()).is_ok()
    })
}

/// A header, if HTTP allows it.
pub(super) fn parse_header(
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue), HandshakeError> {
    // http_types would let line breaks pass.
    let is_valid =
        ::http::HeaderName::try_from(name).is_ok() && ::http::HeaderValue::try_from(value).is_ok();
    match (name.parse(), value.parse()) {
        (Ok(name), Ok(value)) if is_valid => Ok((name, value)),
        _ => Err(HandshakeError::InvalidHeader),
    }
}
