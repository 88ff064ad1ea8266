//! Compressors and decompressors that belong to a thread, so that idle connections own none.

use std::cell::RefCell;

use crate::ws::proto::deflate::{Deflater, DeflaterConfig, Inflater};

/// Codecs of a kind that a thread keeps, at most: more are in use only while long messages take
/// turns.
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
