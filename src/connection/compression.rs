//! Compression of messages that a connection sends (RFC 7692), and the compressors that belong to a thread.

use std::cell::RefCell;
use std::sync::Arc;

use super::broadcast::PreparedMessage;
use crate::options::WebSocketOptions;
use crate::options::deflate::{Agreement, DeflateOptions, Reservation};
use crate::proto::deflate::{Deflater, DeflaterConfig, Flush, Inflater};
use crate::proto::{DeflateParameters, Frame, OpCode, Payload, Role};
use crate::sync::{Mutex, MutexGuard};

/// Bytes that are compressed in one step. Other tasks have their turn between two steps.
const STEP: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Deflation {
    parameters: DeflateParameters,
    /// `None` if the window agreed on is too small for any zlib: then all goes plain.
    config: Option<DeflaterConfig>,
    threshold: usize,
    /// Whether messages refer to earlier ones (context takeover, RFC 7692 §7.1.1).
    takeover: bool,
    window: Mutex<Window>,
    /// The compressor of a message that is sent in frames, before its last one.
    fragments: Mutex<Option<Deflater>>,
    /// Given back when the connection is gone.
    reservation: Mutex<Option<Reservation>>,
}

/// With context takeover: the compressor that has seen all compressed messages so far.
#[derive(Debug)]
enum Window {
    Empty,
    Kept(Deflater),
    /// The peer has received a message that it has not seen. It forgets all before it is used again.
    Outdated(Deflater),
    /// A message under way has it.
    Taken,
    /// The connection is gone.
    Ended,
}

impl Window {
    fn give_back(&mut self, deflater: Option<Deflater>) {
        if !matches!(self, Self::Ended) {
            *self = deflater.map_or(Self::Empty, Self::Kept);
        }
    }

    /// A compressed message goes to the peer that this compressor has not seen: what it has seen is
    /// now further back in the peer's window than in its own. False if a message under way has it,
    /// and will refer to the window as it was.
    fn skip(&mut self) -> bool {
        match std::mem::replace(self, Self::Taken) {
            Self::Taken => return false,
            Self::Kept(deflater) => *self = Self::Outdated(deflater),
            other => *self = other,
        }
        true
    }

    /// Takes the compressor, or makes one; `None` if a message under way has it.
    fn take(&mut self, config: DeflaterConfig) -> Option<Deflater> {
        match std::mem::replace(self, Self::Taken) {
            Self::Empty => Some(Deflater::new(config)),
            Self::Kept(deflater) => Some(deflater),
            Self::Outdated(mut deflater) => {
                deflater.reset();
                Some(deflater)
            }
            Self::Taken => None,
            Self::Ended => {
                *self = Self::Ended;
                None
            }
        }
    }
}

/// A message before it is queued.
pub(super) enum Prepared {
    /// It is ready: compressed, or sent plain, or compressed at the moment it is queued.
    Now(Frame),
    /// It takes several steps.
    Long(Deflating),
}

impl Deflation {
    pub(crate) fn new(options: &DeflateOptions, agreement: Agreement, role: Role) -> Arc<Self> {
        let Agreement { parameters, reservation } = agreement;
        let (ours, _) = parameters.directions(role);
        Arc::new(Self {
            parameters,
            config: (ours.window_bits > 8).then(|| options.config(ours.window_bits)),
            threshold: options.shortest(),
            takeover: ours.takeover,
            window: Mutex::new(Window::Empty),
            fragments: Mutex::new(None),
            reservation: Mutex::new(reservation),
        })
    }

    /// The compression that another opening handshake has agreed on, as the options say.
    pub(super) fn agreed(options: &WebSocketOptions, role: Role) -> Option<Arc<Self>> {
        let agreement = Agreement { parameters: options.parts.agreed_deflate?, reservation: None };
        let deflate = options.parts.deflate.clone().unwrap_or_default();
        Some(Self::new(&deflate, agreement, role))
    }

    pub(super) fn parameters(&self) -> DeflateParameters {
        self.parameters
    }

    /// Whether messages are compressed in the order in which they are queued.
    pub(super) fn is_ordered(&self) -> bool {
        self.takeover
    }

    /// Compresses a message as far as that can be done before it is queued.
    pub(super) fn prepare(self: &Arc<Self>, message: Frame) -> Prepared {
        let is_long = message.payload().len() > STEP;
        // With takeover, a short message is compressed under the lock, where its place is certain.
        if !self.wants(&message) || (self.takeover && !is_long) {
            return Prepared::Now(message);
        }
        // A long message has the window, and may take many turns: this one goes plain, which RFC 7692 §6 allows.
        let Some(mut borrowed) = self.borrow() else { return Prepared::Now(message) };
        if is_long {
            let deflater = Some(borrowed);
            return Prepared::Long(Deflating { message, deflater, pos: 0, out: Vec::new() });
        }
        let deflated = borrowed.deflate(&message);
        // Without takeover no later message refers to it, also if it goes plain.
        borrowed.keep_window();
        Prepared::Now(deflated.unwrap_or(message))
    }

    /// Compresses a message as it is queued, if that is left to do. The caller holds the lock of the
    /// connection.
    pub(super) fn deflate_in_order(self: &Arc<Self>, message: &Frame) -> Option<Frame> {
        let is_prepared = message.is_deflated() || message.payload().len() > STEP;
        if !self.takeover || is_prepared || !self.wants(message) {
            return None;
        }
        let mut borrowed = self.borrow()?;
        let deflated = borrowed.deflate(message);
        if deflated.is_some() {
            borrowed.keep_window();
        } else {
            // It goes plain, so the peer's window does not have it.
            borrowed.forget_window();
        }
        deflated
    }

    /// Compresses one frame as it is queued, if it belongs to a compressed message. The caller
    /// holds the lock of the connection.
    pub(super) fn deflate_fragment(self: &Arc<Self>, frame: &Frame) -> Option<Frame> {
        let mut fragments = self.fragments.lock();
        let is_first = matches!(frame.opcode(), OpCode::Text | OpCode::Binary);
        // The first fragment decides for the message: RSV1 is on it alone (RFC 7692 §6).
        let begins = is_first && frame.compression() == Some(true);
        let mut borrowed = match fragments.take_if(|_| frame.opcode().is_data()) {
            Some(deflater) => self.lend(deflater),
            None if begins => self.borrow()?,
            None => return None,
        };
        // Each fragment is flushed to a byte, so that the peer can inflate it as it comes.
        let flush = if frame.fin() { self.last_flush() } else { Flush::Frame };
        let mut out = Vec::new();
        borrowed.append(frame.payload(), &mut out, flush);
        if frame.fin() {
            borrowed.keep_window();
        } else {
            *fragments = borrowed.deflater.take();
        }
        Some(frame.deflate(Payload::from(out)))
    }

    /// Compresses a message that other connections get as well, unless that is done.
    pub(super) fn compress<'m>(&self, message: &'m PreparedMessage) -> Option<&'m Frame> {
        let config = self.config.filter(|_| self.wants(message.plain()))?;
        message.deflated(config)
    }

    /// The frame of a message that other connections get as well, to be queued now. The caller holds
    /// the lock of the connection.
    pub(super) fn share<'m>(&self, message: &'m PreparedMessage) -> &'m Frame {
        let deflated = self.compress(message);
        // The shared copy refers to nothing before it. After it, our own window is behind that of the peer.
        let deflated = deflated.filter(|_| !self.takeover || self.window().skip());
        deflated.unwrap_or_else(|| message.plain())
    }

    /// The flush at the end of a message.
    fn last_flush(&self) -> Flush {
        if self.takeover { Flush::Message } else { Flush::LastMessage }
    }

    fn wants(&self, message: &Frame) -> bool {
        message.compression().unwrap_or(message.payload().len() >= self.threshold)
    }

    /// A compressor for the next message; `None` if another message has the window.
    fn borrow(self: &Arc<Self>) -> Option<Borrowed> {
        let config = self.config?;
        let deflater =
            if self.takeover { self.window().take(config)? } else { take_deflater(config) };
        Some(self.lend(deflater))
    }

    fn lend(self: &Arc<Self>, deflater: Deflater) -> Borrowed {
        Borrowed { home: Arc::clone(self), deflater: Some(deflater) }
    }

    fn put_back(&self, deflater: Deflater) {
        if self.takeover {
            self.window().give_back(Some(deflater));
        } else {
            put_deflater(deflater);
        }
    }

    /// The connection has ended: nothing is compressed any more, also not for senders that are still there.
    pub(super) fn end(&self) {
        *self.window() = Window::Ended;
        *self.fragments.lock() = None;
        drop(self.reservation.lock().take());
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock()
    }
}

/// A compressor at work. If it is dropped with a message half done, it is not used again.
#[derive(Debug)]
pub(super) struct Borrowed {
    home: Arc<Deflation>,
    /// `None` once it is taken out.
    deflater: Option<Deflater>,
}

impl Borrowed {
    /// Compresses a whole message; `None` if it is better sent plain.
    fn deflate(&mut self, message: &Frame) -> Option<Frame> {
        let mut out = Vec::new();
        let is_good = self.append(message.payload(), &mut out, self.home.last_flush());
        deflated(message, out).filter(|_| is_good)
    }

    /// Appends the next piece to `out`, compressed; false if the codec failed.
    fn append(&mut self, piece: &[u8], out: &mut Vec<u8>, flush: Flush) -> bool {
        self.deflater.as_mut().is_some_and(|deflater| deflater.deflate(piece, out, flush))
    }

    /// Gives the compressor back, unless its window depends on what becomes of the message.
    fn unless_done(self) -> Option<Self> {
        if self.home.takeover {
            return Some(self);
        }
        self.keep_window();
        None
    }

    /// Gives the compressor back after a message that the peer gets.
    pub(super) fn keep_window(mut self) {
        if let Some(deflater) = self.deflater.take() {
            self.home.put_back(deflater);
        }
    }

    /// Gives the compressor back after a message that the peer does not get.
    fn forget_window(mut self) {
        if let Some(mut deflater) = self.deflater.take() {
            deflater.reset();
            self.home.put_back(deflater);
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.deflater.is_some() && self.home.takeover {
            // Half a message is in its window. The next message begins with an empty one.
            self.home.window().give_back(None);
        }
    }
}

/// A long message, compressed step by step.
#[derive(Debug)]
pub(super) struct Deflating {
    message: Frame,
    deflater: Option<Borrowed>,
    /// How much of the message is compressed.
    pos: usize,
    out: Vec<u8>,
}

impl Deflating {
    /// Compresses some more; once there is no more, the frame to queue, and the window that has to be
    /// given back then.
    pub(super) fn step(&mut self) -> Option<(Frame, Option<Borrowed>)> {
        let rest = self.message.payload().get(self.pos..).unwrap_or_default();
        let piece = rest.get(..STEP).unwrap_or(rest);
        self.pos += piece.len();
        let is_last = piece.len() == rest.len();
        let deflater = self.deflater.as_mut()?;
        let flush = if is_last { deflater.home.last_flush() } else { Flush::Piece };
        let is_good = deflater.append(piece, &mut self.out, flush);
        if is_good && !is_last {
            return None;
        }
        let out = std::mem::take(&mut self.out);
        if let Some(frame) = deflated(&self.message, out).filter(|_| is_good) {
            return Some((frame, self.deflater.take()?.unless_done()));
        }
        if let Some(deflater) = self.deflater.take_if(|_| is_good) {
            deflater.forget_window();
        }
        Some((self.message.clone(), None))
    }
}

/// The compressed message; `None` if it did not become smaller, unless the application insists.
pub(super) fn deflated(message: &Frame, out: Vec<u8>) -> Option<Frame> {
    let is_worth_it = out.len() < message.payload().len() || message.compression() == Some(true);
    is_worth_it.then(|| message.deflate(Payload::from(out)))
}

/// Compressors, and decompressors, kept per thread. More exist only while several long messages are compressed in
/// steps.
const MAX_KEPT: usize = 4;

#[derive(Default)]
struct Codecs {
    /// The latest last.
    deflaters: Vec<Deflater>,
    inflaters: Vec<Inflater>,
}

thread_local! {
    static CODECS: RefCell<Codecs> = RefCell::default();
}

/// A compressor with an empty window.
pub(super) fn take_deflater(config: DeflaterConfig) -> Deflater {
    let kept = with(|codecs| {
        let deflaters = &mut codecs.deflaters;
        let found = deflaters.iter().rposition(|deflater| deflater.config() == config)?;
        Some(deflaters.remove(found))
    });
    kept.flatten().unwrap_or_else(|| Deflater::new(config))
}

/// Gives a compressor back, whose window is empty.
pub(super) fn put_deflater(deflater: Deflater) {
    with(|codecs| put(&mut codecs.deflaters, deflater));
}

/// A decompressor with an empty window.
pub(super) fn take_inflater() -> Inflater {
    let kept = with(|codecs| codecs.inflaters.pop());
    let Some(mut inflater) = kept.flatten() else { return Inflater::new() };
    inflater.reset();
    inflater
}

/// Gives a decompressor back.
pub(super) fn put_inflater(inflater: Inflater) {
    with(|codecs| put(&mut codecs.inflaters, inflater));
}

/// `None` on a thread that ends, and drops what it has: it keeps no codecs any more.
fn with<R>(f: impl FnOnce(&mut Codecs) -> R) -> Option<R> {
    CODECS.try_with(|codecs| f(&mut codecs.borrow_mut())).ok()
}

/// Keeps `codec`, if need be in place of the one that was not used for longest.
fn put<T>(kept: &mut Vec<T>, codec: T) {
    if kept.len() == MAX_KEPT {
        kept.remove(0);
    }
    kept.push(codec);
}
