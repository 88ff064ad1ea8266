//! The parameters of permessage-deflate ([RFC 7692 §7.1]): what they are, and how they are written.
//!
//! How the header is read that they come in is `../extension.rs`.
//!
//! [RFC 7692 §7.1]: https://www.rfc-editor.org/rfc/rfc7692#section-7.1

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use super::offer::DeflateAnswerError;
use crate::ws::proto::Role;
use crate::ws::proto::extension::{self, Extension, Parameter};

pub(super) const PERMESSAGE_DEFLATE: &str = "permessage-deflate";
pub(super) const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
pub(super) const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
pub(super) const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
pub(super) const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The window of DEFLATE itself, 32 KiB: what holds where no parameter says otherwise.
pub(super) const MAX_WINDOW_BITS: u8 = 15;

/// The smallest window of §7.1.2. No zlib compresses with it; every larger window reads it.
pub(super) const MIN_WINDOW_BITS: u8 = 8;

/// How the two sides of a connection compress, as agreed in the opening handshake.
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
    /// Whether the server compresses every message on its own (RFC 7692 §7.1.1.1).
    ///
    /// If not, a message may refer back to what the server sent before it.
    #[must_use]
    pub fn server_no_context_takeover(self) -> bool {
        self.server_no_context_takeover
    }

    /// Whether the client compresses every message on its own (RFC 7692 §7.1.1.2).
    ///
    /// On a client this is also true if only its own options ask for it: it then starts afresh
    /// with every message, which needs no consent of the server.
    #[must_use]
    pub fn client_no_context_takeover(self) -> bool {
        self.client_no_context_takeover
    }

    /// Base-2 logarithm of the window the server compresses with, in bytes, from 8 to 15
    /// (RFC 7692 §7.1.2.1).
    #[must_use]
    pub fn server_max_window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS)
    }

    /// Base-2 logarithm of the window the client compresses with, in bytes, from 8 to 15
    /// (RFC 7692 §7.1.2.2).
    ///
    /// On a client this is never above its own options, even if the server would take more.
    #[must_use]
    pub fn client_max_window_bits(self) -> u8 {
        self.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS)
    }
}

/// What is agreed on for one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Direction {
    /// Do messages refer to those before them?
    pub(crate) takeover: bool,
    pub(crate) window_bits: u8,
}

impl DeflateParameters {
    /// What `role` sends by, and what it receives by.
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

/// Reads what [`Display`](fmt::Display) writes: a server's answer.
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

/// A text that is not the parameters of permessage-deflate, as a server answers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InvalidDeflateParameters;

impl fmt::Display for InvalidDeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one answer of permessage-deflate")
    }
}

impl Error for InvalidDeflateParameters {}

/// The parameters of one element as they were written; `None` is an absent one.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) server_no_context_takeover: Option<()>,
    pub(super) client_no_context_takeover: Option<()>,
    pub(super) server_max_window_bits: Option<u8>,
    pub(super) client_max_window_bits: Option<ClientWindow>,
}

/// The one parameter that may come without its value, though only in an offer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientWindow {
    Any,
    Bits(u8),
}

impl Written {
    /// Reads an offer or an answer by the rules that §7 has for both.
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
    // `parse` alone would take `+9` and `09`.
    let canonical = value.starts_with(|c| matches!(c, '1'..='9'));
    let bits = value.parse().ok().filter(|_| canonical)?;
    (MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&bits).then_some(bits)
}
