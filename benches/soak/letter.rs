//! Letters: messages that show whether they arrived whole and in order.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::iter;

use fastrand::Rng;
use tidewire::Message;

use crate::Problem;

/// Three numbers of 16 hexadecimal digits: the sender, the number of the letter, and the checksum.
const HEAD: usize = 48;

const WORDS: [&str; 8] =
    ["tide ", "ebb ", "flow ", "shore ", "wave ", "moon ", "harbour ", "drift "];

/// Writes letter `number` of `sender`: half of them text that can be compressed, half of them noise.
pub(crate) fn write(sender: u64, number: u64, len: usize, rng: &mut Rng) -> Message {
    let is_text = rng.bool();
    let body: Vec<u8> = if is_text {
        iter::repeat_with(|| rng.choice(WORDS).unwrap_or_default().bytes())
            .flatten()
            .take(len)
            .collect()
    } else {
        iter::repeat_with(|| rng.u8(..)).take(len).collect()
    };
    let mut letter = format!("{sender:016x}{number:016x}{:016x}", checksum(sender, number, &body));
    if !is_text {
        return Message::binary([letter.as_bytes(), &body].concat());
    }
    letter.extend(body.iter().map(|&byte| char::from(byte)));
    Message::text(letter)
}

/// The sender and the number of a letter, if it is whole.
pub(crate) fn read(message: &Message) -> Result<(u64, u64), Problem> {
    let (head, body) =
        message.as_bytes().split_at_checked(HEAD).ok_or("a letter without a head")?;
    let mut numbers = head.chunks(16).map(number);
    let mut next = || numbers.next().unwrap_or_else(|| Err("a letter without a head".into()));
    let (sender, number, written) = (next()?, next()?, next()?);
    if written != checksum(sender, number, body) {
        return Err(format!("letter {number} of {sender:x} was changed on its way").into());
    }
    Ok((sender, number))
}

fn number(digits: &[u8]) -> Result<u64, Problem> {
    Ok(u64::from_str_radix(std::str::from_utf8(digits)?, 16)?)
}

fn checksum(sender: u64, number: u64, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(sender);
    hasher.write_u64(number);
    hasher.write(body);
    hasher.finish()
}

/// The length of a letter. Most are short, and some are longer than any buffer.
pub(crate) fn len(rng: &mut Rng) -> usize {
    match rng.u8(..100) {
        0..80 => rng.usize(..512),
        80..97 => rng.usize(..16 << 10),
        _ => rng.usize(..256 << 10),
    }
}

/// The number of the last letter of every sender. The next letter must have the next number.
#[derive(Debug, Default)]
pub(crate) struct Received(HashMap<u64, u64>);

impl Received {
    /// Checks a letter, and returns its sender.
    pub(crate) fn take(&mut self, message: &Message) -> Result<u64, Problem> {
        let (sender, number) = read(message)?;
        match self.0.insert(sender, number) {
            Some(last) if number != last + 1 => {
                Err(format!("letter {number} of {sender:x} came after {last}").into())
            }
            _ => Ok(sender),
        }
    }
}
