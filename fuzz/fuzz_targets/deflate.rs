//! Messages that are compressed, by every option: miniz gets back what was sent, whole or in fragments.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidewire::deflate::DeflateOptions;
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::{WebSocket, WebSocketOptions};
use tidewire_fuzz::inflate::{self, message};
use tidewire_fuzz::stream::{Last, Splits, script};
use tidewire_fuzz::{choice, drive};

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let (role, splits) = (choice::role(choice)?, choice::splits(choice)?);
    let (options, takeover) = options(choice)?;
    let mut sent = Vec::new();
    while !choice.is_empty() {
        let message = message(choice)?;
        sent.push((message, choice.int_in_range(0..=4)?));
    }
    let written = drive::run(send(role, splits, &options, &sent));
    let said = inflate::read(&written, role, takeover);
    let mut expected = sent.into_iter().map(|(message, _)| message);
    for message in said.messages {
        assert!(Some(&message.payload) == expected.next().as_ref(), "{message:?}");
    }
    assert_eq!(expected.next(), None);
    Ok(())
}

fn options(choice: &mut Unstructured<'_>) -> Result<(WebSocketOptions, bool)> {
    let takeover = choice.arbitrary()?;
    let deflate = DeflateOptions::default()
        .level(choice.int_in_range(0..=9)?)
        .threshold(*choice.choose(&[0, 100, 10_000])?)
        .memory_level(choice.int_in_range(1..=9)?);
    let bits = choice.int_in_range(9..=15)?;
    let no_takeover = "server_no_context_takeover; client_no_context_takeover; ";
    let agreed = format!(
        "permessage-deflate; {}server_max_window_bits={bits}; client_max_window_bits={bits}",
        if takeover { "" } else { no_takeover },
    );
    let options = WebSocketOptions::default().message_timeout(None).send_timeout(None);
    Ok((options.deflate(deflate).agreed_deflate(agreed.parse().unwrap()), takeover))
}

async fn send(
    role: Role,
    splits: Splits,
    options: &WebSocketOptions,
    messages: &[(Vec<u8>, u8)],
) -> Vec<u8> {
    let (stream, written) = script(&[], splits, Last::Silence);
    let mut ws = WebSocket::from_stream(stream, bytes::Bytes::new(), role, options);
    for (message, kind) in messages {
        let whole = tidewire::Message::binary(message.clone());
        match kind {
            0 => ws.send(whole).await.unwrap(),
            1 => ws.send(whole.compressed()).await.unwrap(),
            2 => ws.send(whole.uncompressed()).await.unwrap(),
            3 => ws.sender().send(whole).await.unwrap(),
            _ => send_fragments(&mut ws, message).await,
        }
    }
    written.bytes()
}

async fn send_fragments(ws: &mut WebSocket, message: &[u8]) {
    let (first, rest) = message.split_at(message.len() / 3);
    let first = Frame::new(false, OpCode::Binary, first.to_vec()).compressed();
    ws.send_frame(first).await.unwrap();
    ws.ping("").await.unwrap();
    ws.send_frame(Frame::new(true, OpCode::Continuation, rest.to_vec())).await.unwrap();
}
