//! Negotiation of permessage-deflate ([RFC 7692 §5], [§7.1]).
//!
//! A client [`offer`]s, a server [`accept`]s, and the client [checks the answer](check_answer).
//!
//! [RFC 7692 §5]: https://www.rfc-editor.org/rfc/rfc7692#section-5
//! [§7.1]: https://www.rfc-editor.org/rfc/rfc7692#section-7.1

use std::error::Error;
use std::fmt;

use super::parameters::{
    CLIENT_MAX_WINDOW_BITS, ClientWindow, DeflateParameters, MAX_WINDOW_BITS, MIN_WINDOW_BITS,
    PERMESSAGE_DEFLATE, SERVER_MAX_WINDOW_BITS, SERVER_NO_CONTEXT_TAKEOVER, Written,
};
use crate::ws::proto::extension::Extension;

/// What this side wants, for both directions. Window bits are 9 to 15.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    pub(crate) server_context_takeover: bool,
    pub(crate) client_context_takeover: bool,
    pub(crate) server_max_window_bits: u8,
    pub(crate) client_max_window_bits: u8,
}

/// Answers a client with the first of its offers that can be honoured.
///
/// The others are declined by silence (§5.1): a bad offer never fails the handshake.
pub(crate) fn accept(extensions: &[Extension<'_>], terms: Terms) -> Option<DeflateParameters> {
    let mut offers = extensions.iter().filter(|extension| extension.name == PERMESSAGE_DEFLATE);
    offers.find_map(|offer| answer(&Written::read(offer).ok()?, terms))
}

fn answer(offer: &Written, terms: Terms) -> Option<DeflateParameters> {
    if offer.server_max_window_bits == Some(MIN_WINDOW_BITS) {
        // No zlib compresses with it. Another offer, or none, serves the client better.
        return None;
    }
    Some(DeflateParameters {
        server_no_context_takeover: offer.server_no_context_takeover.is_some()
            || !terms.server_context_takeover,
        client_no_context_takeover: offer.client_no_context_takeover.is_some()
            || !terms.client_context_takeover,
        server_max_window_bits: match offer.server_max_window_bits {
            Some(bits) => Some(bits.min(terms.server_max_window_bits)),
            None => unless_max(terms.server_max_window_bits),
        },
        client_max_window_bits: match offer.client_max_window_bits {
            // The client would not understand the parameter, so it MUST NOT be sent (§7.1.2.2).
            None => None,
            Some(ClientWindow::Any) => unless_max(terms.client_max_window_bits),
            Some(ClientWindow::Bits(bits)) => Some(bits.min(terms.client_max_window_bits)),
        },
    })
}

/// Writes the one offer of a client.
pub(crate) fn offer(terms: Terms) -> String {
    let wanted = DeflateParameters {
        server_no_context_takeover: !terms.server_context_takeover,
        client_no_context_takeover: !terms.client_context_takeover,
        server_max_window_bits: unless_max(terms.server_max_window_bits),
        client_max_window_bits: unless_max(terms.client_max_window_bits),
    };
    match wanted.client_max_window_bits {
        Some(_) => wanted.to_string(),
        // Without a value it says that the server may choose one (§7.1.2.2).
        None => format!("{wanted}; {CLIENT_MAX_WINDOW_BITS}"),
    }
}

/// Reads the answer to what [`offer`] wrote for the same terms; `None` if it was declined.
///
/// # Errors
///
/// [`DeflateAnswerError`] if the answer does not fit the offer. The connection MUST then be failed
/// (RFC 6455 §4.1, RFC 7692 §7).
pub(crate) fn check_answer(
    extensions: &[Extension<'_>],
    terms: Terms,
) -> Result<Option<DeflateParameters>, DeflateAnswerError> {
    if let Some(other) = extensions.iter().find(|other| other.name != PERMESSAGE_DEFLATE) {
        return Err(DeflateAnswerError::ExtensionNotOffered(other.name.to_owned()));
    }
    match extensions {
        [] => Ok(None),
        [answer] => agree(&Written::read(answer)?, terms).map(Some),
        _ => Err(DeflateAnswerError::ExtensionRepeated),
    }
}

fn agree(answer: &Written, terms: Terms) -> Result<DeflateParameters, DeflateAnswerError> {
    let server_no_context_takeover = answer.server_no_context_takeover.is_some();
    if !server_no_context_takeover && !terms.server_context_takeover {
        return Err(DeflateAnswerError::ParameterMissing(SERVER_NO_CONTEXT_TAKEOVER));
    }
    Ok(DeflateParameters {
        server_no_context_takeover,
        // A client may reset its compressor although nobody asked for it (§7.1.1.2).
        client_no_context_takeover: answer.client_no_context_takeover.is_some()
            || !terms.client_context_takeover,
        server_max_window_bits: agree_on_server_window(answer, terms.server_max_window_bits)?,
        client_max_window_bits: agree_on_client_window(answer, terms.client_max_window_bits)?,
    })
}

fn agree_on_server_window(answer: &Written, max: u8) -> Result<Option<u8>, DeflateAnswerError> {
    match answer.server_max_window_bits {
        Some(bits) if bits > max => {
            Err(DeflateAnswerError::WindowTooBig { parameter: SERVER_MAX_WINDOW_BITS, bits, max })
        }
        None if max < MAX_WINDOW_BITS => {
            Err(DeflateAnswerError::ParameterMissing(SERVER_MAX_WINDOW_BITS))
        }
        bits => Ok(bits),
    }
}

fn agree_on_client_window(answer: &Written, max: u8) -> Result<Option<u8>, DeflateAnswerError> {
    match answer.client_max_window_bits {
        // The server reads any window (§7.1.2.2), so the one of our terms stands.
        None => Ok(unless_max(max)),
        Some(ClientWindow::Any) => {
            Err(DeflateAnswerError::ParameterMalformed(CLIENT_MAX_WINDOW_BITS.to_owned()))
        }
        Some(ClientWindow::Bits(bits)) if bits > max => {
            Err(DeflateAnswerError::WindowTooBig { parameter: CLIENT_MAX_WINDOW_BITS, bits, max })
        }
        // The smallest, with which no zlib compresses, is legal: then all goes plain (§6).
        Some(ClientWindow::Bits(bits)) => Ok(Some(bits)),
    }
}

/// An answer of a server that does not fit the offer (RFC 7692 §7.1).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeflateAnswerError {
    /// An extension other than permessage-deflate (RFC 6455 §4.1).
    ExtensionNotOffered(String),
    /// The header is no list of extensions (RFC 6455 §9.1).
    HeaderMalformed,
    /// permessage-deflate was accepted twice.
    ExtensionRepeated,
    /// A parameter with a wrong value, without its value, or with one where none belongs.
    ParameterMalformed(String),
    /// A parameter that the offer asks for and the answer lacks.
    ParameterMissing(&'static str),
    /// A parameter that is listed twice.
    ParameterRepeated(String),
    /// A parameter that RFC 7692 does not define.
    ParameterUnknown(String),
    /// A window larger than the one offered; both are base-2 logarithms.
    WindowTooBig {
        /// The parameter.
        parameter: &'static str,
        /// The window of the answer.
        bits: u8,
        /// The window of the offer.
        max: u8,
    },
}

impl fmt::Display for DeflateAnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtensionNotOffered(name) => write!(f, "extension {name} was not offered"),
            Self::ExtensionRepeated => write!(f, "{PERMESSAGE_DEFLATE} is accepted twice"),
            Self::HeaderMalformed => f.write_str("Sec-WebSocket-Extensions is malformed"),
            Self::ParameterMalformed(name) => write!(f, "{name} is malformed"),
            Self::ParameterMissing(name) => write!(f, "{name} was offered and is missing"),
            Self::ParameterRepeated(name) => write!(f, "{name} is listed twice"),
            Self::ParameterUnknown(name) => {
                write!(f, "{PERMESSAGE_DEFLATE} has no parameter {name}")
            }
            Self::WindowTooBig { parameter, bits, max } => {
                write!(f, "{parameter}={bits} exceeds the {max} of the offer")
            }
        }
    }
}

impl Error for DeflateAnswerError {}

fn unless_max(bits: u8) -> Option<u8> {
    (bits < MAX_WINDOW_BITS).then_some(bits)
}
