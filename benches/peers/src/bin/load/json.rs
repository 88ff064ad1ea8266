//! Messages as a chat or a ticker sends them: JSON text that deflate finds neither empty nor random.
//!
//! The same for every run: keys that return, names and symbols out of a few, digits that change.

use std::fmt::Write;

/// Shortest message: what surrounds the items, and some text.
pub(crate) const SHORTEST: usize = 160;
/// Room for the longest item and the text after it.
const ITEM: usize = 160;

const CHANNELS: [&str; 5] = ["lobby", "market.eu", "market.us", "support", "release-notes"];
const NAMES: [&str; 12] = [
    "Ada Okafor",
    "Bjarne Lind",
    "Carmen Ruiz",
    "Dmitri Volkov",
    "Emi Tanaka",
    "Farid Haddad",
    "Greta Vogel",
    "Hugo Marchand",
    "Ines Duarte",
    "Jonas Weber",
    "Kofi Mensah",
    "Lucie Novak",
];
const SYMBOLS: [&str; 8] =
    ["BTC-EUR", "ETH-EUR", "SOL-USD", "ADA-USD", "XRP-EUR", "DOT-USD", "LTC-EUR", "EUR-USD"];
const WORDS: [&str; 48] = [
    "the", "and", "to", "of", "is", "it", "that", "for", "was", "on", "with", "this", "have",
    "not", "but", "they", "from", "by", "will", "what", "about", "which", "when", "there",
    "people", "time", "order", "price", "please", "thanks", "could", "tomorrow", "meeting",
    "server", "again", "before", "release", "branch", "someone", "question", "answer", "number",
    "because", "waiting", "customer", "network", "message", "together",
];

/// So many different messages of `len` bytes each.
pub(crate) fn messages(count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|_| message(&mut dice, len).into_bytes()).collect()
}

/// Items while there is room for one, then words up to the last byte.
fn message(dice: &mut Dice, len: usize) -> String {
    let mut json = String::with_capacity(len);
    let (id, at) = (dice.next(), 1_760_000_000_000 + dice.below(9_000_000_000));
    let channel = dice.one_of(&CHANNELS);
    put(&mut json, format_args!(r#"{{"id":"{id:016x}","at":{at},"channel":"{channel}","items":["#));
    while json.len() + ITEM < len {
        item(&mut json, dice);
        json.push(',');
    }
    if json.ends_with(',') {
        json.pop();
    }
    json.push_str(r#"],"text":""#);
    while json.len() + 2 < len {
        json.push_str(dice.one_of(&WORDS));
        json.push(' ');
    }
    json.truncate(len - 2);
    json.push_str("\"}");
    json
}

/// A price or somebody's remark.
fn item(json: &mut String, dice: &mut Dice) {
    if dice.below(2) == 0 {
        let (symbol, bid) = (dice.one_of(&SYMBOLS), dice.below(9_000_000) as f64 / 100.0);
        let (ask, volume) = (bid + dice.below(50) as f64 / 100.0, dice.below(100_000));
        let item = format_args!(
            r#"{{"symbol":"{symbol}","bid":{bid:.2},"ask":{ask:.2},"volume":{volume},"open":true}}"#
        );
        return put(json, item);
    }
    let (id, user) = (dice.below(10_000_000), dice.one_of(&NAMES));
    put(json, format_args!(r#"{{"id":{id},"user":"{user}","text":""#));
    for _ in 0..3 + dice.below(6) {
        json.push_str(dice.one_of(&WORDS));
        json.push(' ');
    }
    json.push_str(r#"","edited":false}"#);
}

fn put(json: &mut String, part: std::fmt::Arguments<'_>) {
    json.write_fmt(part).expect("a string takes everything");
}

/// Knuth's generator, of which only the upper bits are random enough.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 33)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(choices.len() as u64)).expect("below a length");
        choices[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_and_differ() {
        for len in [SHORTEST, 256, 1024, 16_384] {
            let mut messages = messages(65, len);
            assert!(messages.iter().all(|message| message.len() == len));
            for message in messages.iter().map(|message| str::from_utf8(message).unwrap()) {
                assert!(message.contains(r#"],"text":""#) && message.ends_with(r#""}"#));
            }
            messages.sort();
            messages.dedup();
            assert_eq!(messages.len(), 65);
        }
    }
}
