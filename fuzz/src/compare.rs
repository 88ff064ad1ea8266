//! What a server of ours reads and writes, beside what tungstenite makes of the same bytes.

use async_tungstenite::tungstenite::protocol::Role;

use crate::oracle::{self, Limits, Message, Verdict};
use crate::peer::{self, Ended, Heard};

/// What the server heard is what was said. What it wrote, as tungstenite understands it, is each of
/// these messages, and the close frame that belongs to the end. A stream that ends without one is
/// lost, and what was not written by then with it.
pub fn outgoing(heard: &[Message], echoed: &Heard, said: &Verdict) {
    let end = said.end;
    let is_lost = echoed.end == Ended::Cut;
    assert!(heard.starts_with(&echoed.messages), "{:?} of {heard:?}", echoed.messages);
    assert!(is_lost || heard.len() == echoed.messages.len(), "{:?} of {heard:?}", echoed.messages);
    assert!(said.messages.starts_with(heard), "{heard:?} of {:?}", said.messages);
    assert!(is_lost || heard == said.messages, "{heard:?} of {:?}", said.messages);
    let is_right = match (echoed.end, end) {
        (Ended::Closed(code), oracle::End::Close(received)) => code == peer::known(received),
        (Ended::Closed(code), oracle::End::Violation(failed)) => code == Some(failed),
        (Ended::Closed(code), oracle::End::CutHeader) => code == Some(1002),
        (Ended::Cut, oracle::End::Cut | oracle::End::CutHeader) => true,
        _ => false,
    };
    assert!(is_right, "{:?} in answer to {end:?}", echoed.end);
}

/// What the server heard and answered, beside what tungstenite would have.
pub fn incoming(wire: &[u8], heard: &[Message], answer: Ended, limits: &Limits) {
    let theirs = peer::hear(wire, Role::Server, limits);
    let Heard { messages, end } = &theirs;
    if heard == messages && is_same(answer, *end) {
        return;
    }
    // A handler that cannot answer any more does not go on.
    let is_lost = (answer, *end) == (Ended::Cut, Ended::Cut);
    // Whatever tungstenite hears beyond that is after something that ours has refused.
    let is_refused = matches!(answer, Ended::Closed(Some(1002 | 1007 | 1009)));
    assert!(is_lost || is_refused, "{answer:?}, {heard:?}, {theirs:?}");
    assert!(messages.starts_with(heard), "{heard:?}, {theirs:?}");
}

fn is_same(answer: Ended, end: Ended) -> bool {
    match end {
        Ended::Cut => answer == Ended::Cut,
        Ended::Closed(code) => answer == Ended::Closed(code),
        Ended::Refused(code) => answer == Ended::Closed(Some(code)),
    }
}
