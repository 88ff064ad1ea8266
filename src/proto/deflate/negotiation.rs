//! The parameters of permessage-deflate, and how client and server agree on them (RFC 7692 §7.1).

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::proto::extension::{Extension, Parameter};
use crate::proto::{Role, extension};

pub(super) const PERMESSAGE_DEFLATE: &str = "permessage-deflate";
pub(super) const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
pub(super) const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
pub(super) const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
pub(super) const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The largest window of DEFLATE, 32 KiB. It applies unless a parameter says otherwise.
pub(super) const MAX_WINDOW_BITS: u8 = 15;

/// The smallest window of §7.1.2. zlib cannot compress with it, but can read such data.
pub(super) const MIN_WINDOW_BITS: u8 = 8;

/// The compression parameters of both sides, as agreed in the opening handshake.
///
/// `Display` writes the parameters as the server's answer does:
/// `permessage-deflate; server_no_context_takeover; client_max_window_bits=10`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeflateParameters {
    pub(super) server_no_context_takeover: bool,
    pub(super) client_no_context_takeover: bool,
    pub(super) server_max_window_bits: Option<u8>,
    pub(super) client_max_window_bits: Option<u8>,
}

impl DeflateParameters {
    /// The same, with every message compressed on its own, both ways.
    #[cfg(feature = "accept")]
    pub(crate) fn without_takeover(self) -> Self {
        Self { server_no_context_takeover: true, client_no_context_takeover: true, ..self }
    }

    /// Whether the server compresses every message on its own (RFC 7692 §7.1.1.1).
    ///
    /// If not, a message may refer to earlier messages of the server.
    #[must_use]
    pub fn server_no_context_takeover(self) -> bool {
        self.server_no_context_takeover
    }

    /// Whether the client compresses every message on its own (RFC 7692 §7.1.1.2).
    ///
    /// On a client this is also true if only its own options ask for it. The client then starts afresh
    /// with every message, which does not need the server's consent.
    #[must_use]
    pub fn client_no_context_takeover(self) -> bool {
        self.client_no_context_takeover
    }

    /// Base-2 logarithm of the window that the server compresses with, in bytes, from 8 to 15
    /// (RFC 7692 §7.1.2.1).
    #[must_use]
    pub fn server_max_window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS)
    }

    /// Base-2 logarithm of the window that the client compresses with, in bytes, from 8 to 15
    /// (RFC 7692 §7.1.2.2).
    ///
    /// On a client this never exceeds the value of its own options, even if the server allows more.
    #[must_use]
    pub fn client_max_window_bits(self) -> u8 {
        self.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS)
    }
}

/// The parameters of one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Direction {
    /// Whether a message may refer to earlier ones.
    pub(crate) takeover: bool,
    pub(crate) window_bits: u8,
}

impl DeflateParameters {
    /// The directions in which `role` sends and receives, in this order.
    pub(crate) fn directions(self, role: Role) -> (Direction, Direction) {
        let server = Direction {
            takeover: !self.server_no_context_takeover,
            window_bits: self.server_max_window_bits(),
        };
        let client = Direction {
            takeover: !self.client_no_context_takeover,
            window_bits: self.client_max_window_bits(),
        };
        match role {
            Role::Server => (server, client),
            Role::Client => (client, server),
        }
    }
}

impl fmt::Display for DeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PERMESSAGE_DEFLATE)?;
        if self.server_no_context_takeover {
            write!(f, "; {SERVER_NO_CONTEXT_TAKEOVER}")?;
        }
        if self.client_no_context_takeover {
            write!(f, "; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(f, "; {CLIENT_MAX_WINDOW_BITS}={bits}")?;
        }
        Ok(())
    }
}

/// Reads a server's answer, as [`Display`](fmt::Display) writes it.
impl FromStr for DeflateParameters {
    type Err = InvalidDeflateParameters;

    fn from_str(answer: &str) -> Result<Self, InvalidDeflateParameters> {
        let extensions =
            extension::parse([answer].into_iter()).map_err(|_| InvalidDeflateParameters)?;
        let [answer] = &extensions[..] else { return Err(InvalidDeflateParameters) };
        let written = Written::read(answer).map_err(|_| InvalidDeflateParameters)?;
        let client_max_window_bits = match written.client_max_window_bits {
            None => None,
            Some(ClientWindow::Bits(bits)) => Some(bits),
            Some(ClientWindow::Any) => return Err(InvalidDeflateParameters),
        };
        if answer.name != PERMESSAGE_DEFLATE {
            return Err(InvalidDeflateParameters);
        }
        Ok(Self {
            server_no_context_takeover: written.server_no_context_takeover.is_some(),
            client_no_context_takeover: written.client_no_context_takeover.is_some(),
            server_max_window_bits: written.server_max_window_bits,
            client_max_window_bits,
        })
    }
}

/// The error for a text that is not one answer of a server to an offer of permessage-deflate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InvalidDeflateParameters;

impl fmt::Display for InvalidDeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not exactly one valid permessage-deflate element")
    }
}

impl Error for InvalidDeflateParameters {}

/// The parameters of one element, as written. `None` is an absent parameter.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) server_no_context_takeover: Option<()>,
    pub(super) client_no_context_takeover: Option<()>,
    pub(super) server_max_window_bits: Option<u8>,
    pub(super) client_max_window_bits: Option<ClientWindow>,
}

/// The value of `client_max_window_bits`, the one parameter that may lack a value, in an offer only.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientWindow {
    Any,
    Bits(u8),
}

impl Written {
    /// Reads an offer or an answer by the rules of §7 that hold for both.
    pub(super) fn read(extension: &Extension<'_>) -> Result<Self, DeflateAnswerError> {
        let mut written = Self::default();
        for Parameter { name, value } in &extension.parameters {
            written.add(name, value.as_deref())?;
        }
        Ok(written)
    }

    fn add(&mut self, name: &str, value: Option<&str>) -> Result<(), DeflateAnswerError> {
        let flag = value.is_none().then_some(());
        let bits = value.and_then(window_bits);
        let window = value.map_or(Some(ClientWindow::Any), |_| bits.map(ClientWindow::Bits));
        match name {
            SERVER_NO_CONTEXT_TAKEOVER => fill(&mut self.server_no_context_takeover, name, flag),
            CLIENT_NO_CONTEXT_TAKEOVER => fill(&mut self.client_no_context_takeover, name, flag),
            SERVER_MAX_WINDOW_BITS => fill(&mut self.server_max_window_bits, name, bits),
            CLIENT_MAX_WINDOW_BITS => fill(&mut self.client_max_window_bits, name, window),
            _ => Err(DeflateAnswerError::ParameterUnknown(name.to_owned())),
        }
    }
}

fn fill<T>(slot: &mut Option<T>, name: &str, value: Option<T>) -> Result<(), DeflateAnswerError> {
    let value = value.ok_or_else(|| DeflateAnswerError::ParameterMalformed(name.to_owned()))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DeflateAnswerError::ParameterRepeated(name.to_owned())),
    }
}

/// A decimal integer from 8 to 15 without leading zeroes (§7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    // `parse` alone would accept `+9` and `09`.
    let canonical = value.starts_with(|c| matches!(c, '1'..='9'));
    let bits = value.parse().ok().filter(|_| canonical)?;
    (MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&bits).then_some(bits)
}

/// The wishes of this side for both directions. Window bits are 9 to 15.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    pub(crate) server_context_takeover: bool,
    pub(crate) client_context_takeover: bool,
    pub(crate) server_max_window_bits: u8,
    pub(crate) client_max_window_bits: u8,
}

/// Accepts the first of a client's offers that this side can keep; `None` if there is none.
///
/// An offer that the answer does not mention is declined (§5.1). A bad offer never fails the handshake.
pub(crate) fn accept(extensions: &[Extension<'_>], terms: Terms) -> Option<DeflateParameters> {
    let mut offers = extensions.iter().filter(|extension| extension.name == PERMESSAGE_DEFLATE);
    offers.find_map(|offer| answer(&Written::read(offer).ok()?, terms))
}

fn answer(offer: &Written, terms: Terms) -> Option<DeflateParameters> {
    if offer.server_max_window_bits == Some(MIN_WINDOW_BITS) {
        // zlib cannot compress with it. Another offer, or no compression, serves the client better.
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
            // The client did not offer the parameter, so the answer MUST NOT contain it (§7.1.2.2).
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
        // Without a value the parameter lets the server choose one (§7.1.2.2).
        None => format!("{wanted}; {CLIENT_MAX_WINDOW_BITS}"),
    }
}

/// Reads the answer to the [`offer`] for the same terms; `None` if the server declined.
///
/// # Errors
///
/// [`DeflateAnswerError`] if the answer does not fit the offer. The client MUST then fail the
/// connection (RFC 6455 §4.1, RFC 7692 §7).
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
        // A client may reset its compressor although the server did not ask for it (§7.1.1.2).
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
        // The server can read any window (§7.1.2.2), so we use the one of our terms.
        None => Ok(unless_max(max)),
        Some(ClientWindow::Any) => {
            Err(DeflateAnswerError::ParameterMalformed(CLIENT_MAX_WINDOW_BITS.to_owned()))
        }
        Some(ClientWindow::Bits(bits)) if bits > max => {
            Err(DeflateAnswerError::WindowTooBig { parameter: CLIENT_MAX_WINDOW_BITS, bits, max })
        }
        // A window of 8 bits is legal. zlib cannot compress with it, so all messages go plain (§6).
        Some(ClientWindow::Bits(bits)) => Ok(Some(bits)),
    }
}

/// An answer of a server that does not fit the offer (RFC 7692 §7.1).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeflateAnswerError {
    /// An extension other than permessage-deflate (RFC 6455 §4.1).
    ExtensionNotOffered(String),
    /// The header is not a list of extensions (RFC 6455 §9.1).
    HeaderMalformed,
    /// permessage-deflate was accepted twice.
    ExtensionRepeated,
    /// A parameter with a wrong value, without a value that it needs, or with a value that it must not
    /// have.
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
