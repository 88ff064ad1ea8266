//! DEFLATE by the letter of [RFC 1951], bit by bit: what the side under test sends is read with it,
//! so that zlib-rs is not its own judge. Beyond zlib it checks that no match reaches behind the
//! window that was agreed on.
//!
//! [RFC 1951]: https://www.rfc-editor.org/rfc/rfc1951

use super::TAIL;

type Result<T> = std::result::Result<T, &'static str>;

/// The code lengths of code lengths come in this order (§3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Reads the messages of one direction.
#[derive(Debug)]
pub(crate) struct Inflater {
    window: usize,
    takeover: bool,
    /// What came out so far, as far back as the window reaches.
    history: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new(window_bits: u8, takeover: bool) -> Self {
        Self { window: 1 << window_bits, takeover, history: vec![] }
    }

    /// Reads a message (RFC 7692 §7.2.2), which has to end where a block does.
    pub(crate) fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        if !self.takeover {
            self.history.clear();
        }
        let start = self.history.len();
        let bytes = [payload, &TAIL].concat();
        let mut bits = Bits { bytes: &bytes, pos: 0 };
        while bits.pos < bytes.len() * 8 {
            self.block(&mut bits)?;
        }
        let message = self.history[start..].to_vec();
        self.history.drain(..self.history.len().saturating_sub(self.window));
        Ok(message)
    }

    fn block(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => self.stored(bits)?,
            1 => self.coded(bits, &fixed_literals(), &Codes::of(&[5; 30]))?,
            2 => {
                let (literals, distances) = dynamic(bits)?;
                self.coded(bits, &literals, &distances)?;
            }
            _ => return Err("a reserved block"),
        }
        if is_last {
            bits.align();
        }
        Ok(())
    }

    fn stored(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        bits.align();
        let (len, complement) = (bits.take(16)?, bits.take(16)?);
        if len ^ complement != 0xffff {
            return Err("a stored block of two lengths");
        }
        for _ in 0..len {
            self.history.push(u8::try_from(bits.take(8)?).unwrap());
        }
        Ok(())
    }

    fn coded(&mut self, bits: &mut Bits<'_>, literals: &Codes, distances: &Codes) -> Result<()> {
        loop {
            let symbol = match literals.next(bits)? {
                256 => return Ok(()),
                symbol => symbol,
            };
            if let Ok(literal) = u8::try_from(symbol) {
                self.history.push(literal);
                continue;
            }
            let len = length(symbol, bits)?;
            let symbol = distances.next(bits)?;
            let distance = distance(symbol, bits)?;
            if distance > self.window || distance > self.history.len() {
                return Err("a match behind the window");
            }
            for _ in 0..len {
                self.history.push(self.history[self.history.len() - distance]);
            }
        }
    }
}

/// The length that a symbol means (§3.2.5).
fn length(symbol: usize, bits: &mut Bits<'_>) -> Result<usize> {
    match symbol - 257 {
        code @ 0..=7 => Ok(code + 3),
        code @ 8..=27 => {
            let extra = code / 4 - 1;
            Ok(3 + ((4 + code % 4) << extra) + bits.take(extra)?)
        }
        28 => Ok(258),
        _ => Err("a reserved length"),
    }
}

fn distance(symbol: usize, bits: &mut Bits<'_>) -> Result<usize> {
    match symbol {
        0..=3 => Ok(symbol + 1),
        4..=29 => {
            let extra = symbol / 2 - 1;
            Ok(1 + ((2 + symbol % 2) << extra) + bits.take(extra)?)
        }
        _ => Err("a reserved distance"),
    }
}

fn fixed_literals() -> Codes {
    let lengths = [vec![8; 144], vec![9; 112], vec![7; 24], vec![8; 8]].concat();
    Codes::of(&lengths)
}

/// The codes of a block that brings them along (§3.2.7).
fn dynamic(bits: &mut Bits<'_>) -> Result<(Codes, Codes)> {
    let literals = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let mut lengths = [0; 19];
    for at in &ORDER[..bits.take(4)? + 4] {
        lengths[*at] = bits.take(3)?;
    }
    let codes = Codes::of(&lengths);
    let mut lengths = vec![];
    while lengths.len() < literals + distances {
        let (length, times) = match codes.next(bits)? {
            16 => (*lengths.last().ok_or("a repetition of nothing")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    if lengths.len() != literals + distances {
        return Err("more code lengths than announced");
    }
    Ok((Codes::of(&lengths[..literals]), Codes::of(&lengths[literals..])))
}

/// A Huffman code: how many symbols there are of each length, and which (§3.2.2).
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    fn of(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        for length in lengths {
            counts[*length] += 1;
        }
        let mut symbols: Vec<usize> = (0..lengths.len()).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        symbols.drain(..counts[0]);
        Self { counts, symbols }
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<usize> {
        let (mut code, mut first, mut at) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[at + code - first]);
            }
            (at, first) = (at + count, (first + count) << 1);
        }
        Err("no symbol has this code")
    }
}

/// The first bit is the lowest of the first byte (§3.1.1).
struct Bits<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<usize> {
        let mut bits = 0;
        for at in 0..count {
            let byte = self.bytes.get(self.pos / 8).ok_or("the end inside a block")?;
            bits |= usize::from(byte >> (self.pos % 8) & 1) << at;
            self.pos += 1;
        }
        Ok(bits)
    }

    fn align(&mut self) {
        self.pos = self.pos.next_multiple_of(8);
    }
}
