//! The options for permessage-deflate (RFC 7692), and the negotiation that follows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "accept")]
use crate::proto::Role;
#[cfg(feature = "accept")]
use crate::proto::deflate::Inflater;
use crate::proto::deflate::{DeflaterConfig, Terms, accept, check_answer, offer};
#[cfg(feature = "accept")]
use crate::proto::extension::Extension;
use crate::proto::{DeflateAnswerError, DeflateParameters, extension};

/// Options for the compression of messages (permessage-deflate, RFC 7692).
///
/// Each direction is named after its sender, as in the RFC: `server_…` is about the messages that the
/// server sends, `client_…` about those of the client.
///
/// ```
/// use tidewire::WebSocketOptions;
/// use tidewire::deflate::DeflateOptions;
///
/// let options = WebSocketOptions::default()
///     .deflate(DeflateOptions::default().level(1).threshold(512));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct DeflateOptions {
    level: u8,
    threshold: usize,
    memory_level: u8,
    terms: Terms,
    budget: Option<DeflateBudget>,
}

impl Default for DeflateOptions {
    fn default() -> Self {
        Self {
            level: 1,
            threshold: 256,
            memory_level: 6,
            terms: Terms {
                server_context_takeover: false,
                client_context_takeover: false,
                server_max_window_bits: 15,
                client_max_window_bits: 15,
            },
            budget: None,
        }
    }
}

impl DeflateOptions {
    /// Compression level: 0 (no compression) to 9; larger values count as 9. Default 1.
    ///
    /// CPU time and bytes sent for JSON without context takeover, measured on a server of 2026:
    ///
    /// | level | 256 B | 1 KiB | 4 KiB | 16 KiB | 64 KiB |
    /// | --- | --- | --- | --- | --- | --- |
    /// | 1 | 3 µs, 233 B | 5 µs, 633 B | 13 µs, 2.0 KB | 46 µs, 7.1 KB | 186 µs, 26 KB |
    /// | 3 | 9 µs, 192 B | 16 µs, 485 B | 37 µs, 1.5 KB | 118 µs, 5.1 KB | 450 µs, 19 KB |
    /// | 6 | 9 µs, 192 B | 16 µs, 483 B | 40 µs, 1.4 KB | 158 µs, 5.0 KB | 790 µs, 18 KB |
    /// | 9 | 10 µs, 191 B | 19 µs, 484 B | 56 µs, 1.4 KB | 249 µs, 5.0 KB | 1430 µs, 18 KB |
    ///
    /// The product of bytes and CPU time is smallest at level 1, by a factor of two and more. Where
    /// bandwidth costs more (below some 100 Mbit/s for each core), take level 3. Higher levels gain
    /// little.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level.min(9);
        self
    }

    /// Length of the shortest message, in bytes, that is compressed. Default 256.
    ///
    /// [`Message::compressed`](crate::Message::compressed) compresses shorter ones, too. A message that
    /// does not become smaller is sent uncompressed, so the threshold only saves the attempt. Without
    /// context takeover few messages below 128 bytes become smaller; with it, nearly all do.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Memory for the symbols of a block: 1 to 9; other values count as the nearest. Default 6.
    ///
    /// Each level above 6 doubles the memory, and is worth it for large binary messages only.
    #[must_use]
    pub fn memory_level(mut self, level: u8) -> Self {
        self.memory_level = level.clamp(1, 9);
        self
    }

    /// Whether a message of the server may refer to earlier ones (RFC 7692 §7.1.1.1). Default `false`.
    ///
    /// With `true`, similar short messages become a third smaller. In return, a server keeps a
    /// compressor for each connection that has sent something. It takes 132 KiB, plus 4 bytes for each
    /// byte of the window, plus 7 · 2^(6 + memory level) bytes: 287 KiB by default, 176 KiB with a
    /// window of 12 bits. With `false`, compressors belong to threads, and an idle connection needs no
    /// more memory than without compression.
    #[must_use]
    pub fn server_context_takeover(mut self, allowed: bool) -> Self {
        self.terms.server_context_takeover = allowed;
        self
    }

    /// Whether a message of the client may refer to earlier ones (§7.1.1.2). Default `false`.
    ///
    /// With `true`, a server keeps a decompressor for each connection that has received something:
    /// 47 KiB, for any window.
    #[must_use]
    pub fn client_context_takeover(mut self, allowed: bool) -> Self {
        self.terms.client_context_takeover = allowed;
        self
    }

    /// Window of the server, as the base-2 logarithm of bytes (§7.1.2.1): 9 to 15; other values
    /// count as the nearest. Default 15. The client may ask for less.
    #[must_use]
    pub fn server_max_window_bits(mut self, bits: u8) -> Self {
        self.terms.server_max_window_bits = bits.clamp(9, 15);
        self
    }

    /// Window of the client, as the base-2 logarithm of bytes (§7.1.2.2): 9 to 15; other values
    /// count as the nearest. Default 15. A client that cannot limit its window keeps 15.
    #[must_use]
    pub fn client_max_window_bits(mut self, bits: u8) -> Self {
        self.terms.client_max_window_bits = bits.clamp(9, 15);
        self
    }

    /// Limits the memory for context takeover. Default: no limit.
    ///
    /// All connections whose options hold a clone of this budget share it. When it is spent, new
    /// connections are opened without context takeover.
    #[must_use]
    pub fn budget(mut self, budget: &DeflateBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Answers the offers of a client, for a server with an opening handshake of its own.
    ///
    /// `Display` of the result is the `Sec-WebSocket-Extensions` header of the response. `None` if no
    /// offer can be accepted. `lines` are the values of the client's header lines. The
    /// [budget](Self::budget) is not consulted.
    ///
    /// ```
    /// use tidewire::deflate::DeflateOptions;
    ///
    /// let options = DeflateOptions::default().server_context_takeover(true);
    /// let answer = options.accept(["permessage-deflate; server_max_window_bits=10"]).unwrap();
    /// assert_eq!(
    ///     answer.to_string(),
    ///     "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
    /// );
    /// ```
    #[must_use]
    pub fn accept<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Option<DeflateParameters> {
        accept(&extension::parse(lines.into_iter()).ok()?, self.terms)
    }

    /// Writes the `Sec-WebSocket-Extensions` header of a client with an opening handshake of its own.
    ///
    /// ```
    /// use tidewire::deflate::DeflateOptions;
    ///
    /// let options = DeflateOptions::default();
    /// let agreed = options.check_answer(["permessage-deflate; server_no_context_takeover"]);
    /// assert!(agreed.unwrap().is_some());
    /// assert!(options.check_answer(["permessage-deflate"]).is_err());
    /// ```
    #[must_use]
    pub fn offer(&self) -> String {
        offer(self.terms)
    }

    /// Reads a server's answer to [`offer`](Self::offer); `None` if the server declined.
    ///
    /// `lines` are the values of the header's lines.
    ///
    /// # Errors
    ///
    /// [`DeflateAnswerError`] if the answer does not fit the offer: the client MUST then fail the
    /// connection (RFC 6455 §4.1, RFC 7692 §7.1).
    pub fn check_answer<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<DeflateParameters>, DeflateAnswerError> {
        let answers =
            extension::parse(lines.into_iter()).map_err(|_| DeflateAnswerError::HeaderMalformed)?;
        check_answer(&answers, self.terms)
    }

    /// Answers the offers of a client, within the budget.
    #[cfg(feature = "accept")]
    pub(crate) fn negotiate(&self, offers: &[Extension<'_>]) -> Option<Agreement> {
        let parameters = accept(offers, self.terms)?;
        let Some(budget) = &self.budget else {
            return Some(Agreement { parameters, reservation: None });
        };
        let cost = self.cost(Role::Server, parameters);
        if let Some(reservation) = budget.reserve(cost) {
            return Some(Agreement { parameters, reservation: Some(reservation) });
        }
        let (server_context_takeover, client_context_takeover) = (false, false);
        let terms = Terms { server_context_takeover, client_context_takeover, ..self.terms };
        Some(Agreement { parameters: accept(offers, terms)?, reservation: None })
    }

    /// Reserves the budget anew for what was agreed on before; if that is spent, without context takeover, which a server may
    /// always ask for (RFC 7692 §7.1.1).
    #[cfg(feature = "accept")]
    pub(crate) fn agree_again(&self, parameters: DeflateParameters) -> Agreement {
        let Some(budget) = &self.budget else { return Agreement { parameters, reservation: None } };
        match budget.reserve(self.cost(Role::Server, parameters)) {
            Some(reservation) => Agreement { parameters, reservation: Some(reservation) },
            None => Agreement { parameters: parameters.without_takeover(), reservation: None },
        }
    }

    /// Memory that a connection keeps for its contexts, in bytes.
    #[cfg(feature = "accept")]
    fn cost(&self, role: Role, parameters: DeflateParameters) -> usize {
        let (ours, theirs) = parameters.directions(role);
        let deflater = self.config(ours.window_bits);
        let deflater = if ours.takeover { deflater.memory() } else { 0 };
        let inflater = if theirs.takeover { Inflater::MEMORY } else { 0 };
        deflater + inflater
    }

    pub(crate) fn config(&self, window_bits: u8) -> DeflaterConfig {
        DeflaterConfig { level: self.level, window_bits, memory_level: self.memory_level }
    }

    pub(crate) fn shortest(&self) -> usize {
        self.threshold
    }
}

/// The parameters that a handshake agreed on, and the memory reserved for them.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(crate) parameters: DeflateParameters,
    pub(crate) reservation: Option<Reservation>,
}

/// A limit on the memory that the compression contexts of many connections take, in bytes.
///
/// Only a connection with context takeover keeps contexts of its own. All others share contexts.
///
/// ```
/// use tidewire::deflate::{DeflateBudget, DeflateOptions};
///
/// let budget = DeflateBudget::new(64 << 20);
/// let options = DeflateOptions::default().server_context_takeover(true).budget(&budget);
/// assert_eq!(budget.available(), 64 << 20);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct DeflateBudget {
    available: Arc<AtomicUsize>,
}

impl DeflateBudget {
    /// Creates a budget of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { available: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn available(&self) -> usize {
        self.available.load(Ordering::Relaxed)
    }

    #[cfg(feature = "accept")]
    fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let spend = |available: usize| available.checked_sub(bytes);
        self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }
}

/// A reserved part of a budget. Dropping it gives the bytes back.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: DeflateBudget,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.available.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
