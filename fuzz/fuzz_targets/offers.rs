//! `Sec-WebSocket-Extensions` of clients and servers, and the close frames and parameters that are
//! read from text and bytes: what is agreed on is what was offered, and reads back as it is written.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidewire::CloseFrame;
use tidewire::deflate::{DeflateOptions, DeflateParameters};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
    if let Ok(Some(frame)) = CloseFrame::decode(input) {
        assert_eq!(frame.encode(), input);
    }
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let (client, server) = (options(choice)?, options(choice)?);
    let lines = lines(choice)?;
    let lines = || lines.iter().map(String::as_str);
    if let Some(agreed) = server.accept(lines()) {
        assert!(lines().any(|line| line.contains("permessage-deflate")));
        check(agreed);
    }
    if let Ok(Some(agreed)) = client.check_answer(lines()) {
        check(agreed);
    }
    for line in lines() {
        if let Ok(parameters) = line.parse() {
            check(parameters);
        }
    }
    // Two of ours always understand each other.
    let offer = client.offer();
    if let Some(answer) = server.accept([&*offer]) {
        let agreed = client.check_answer([&*answer.to_string()]);
        assert!(matches!(agreed, Ok(Some(_))), "{offer}: {answer}: {agreed:?}");
    }
    Ok(())
}

fn check(parameters: DeflateParameters) {
    let written = parameters.to_string();
    assert_eq!(written.parse(), Ok(parameters), "{written}");
    let bits = [parameters.server_max_window_bits(), parameters.client_max_window_bits()];
    assert!(bits.iter().all(|bits| (8..=15).contains(bits)), "{written}");
}

fn options(choice: &mut Unstructured<'_>) -> Result<DeflateOptions> {
    let bits = |choice: &mut Unstructured<'_>| choice.int_in_range(8..=15);
    Ok(DeflateOptions::default()
        .server_context_takeover(choice.arbitrary()?)
        .client_context_takeover(choice.arbitrary()?)
        .server_max_window_bits(bits(choice)?)
        .client_max_window_bits(bits(choice)?))
}

/// Lines of words that matter, and of others.
fn lines(choice: &mut Unstructured<'_>) -> Result<Vec<String>> {
    let mut lines = vec![String::new()];
    while !choice.is_empty() {
        let word = *choice.choose(WORDS)?;
        match (word, lines.last_mut()) {
            ("\n", _) | (_, None) => lines.push(String::new()),
            ("?", Some(line)) => line.push(choice.arbitrary()?),
            (word, Some(line)) => line.push_str(word),
        }
    }
    Ok(lines)
}

const WORDS: &[&str] = &[
    "permessage-deflate",
    "permessage-deflate; ",
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
    "; ",
    ";",
    ", ",
    ",",
    "=",
    "\"",
    "\\",
    " ",
    "\t",
    "7",
    "8",
    "9",
    "10",
    "15",
    "16",
    "x",
    "PERMESSAGE-DEFLATE",
    "?",
    "\n",
];
