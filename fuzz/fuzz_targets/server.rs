//! A whole connection of a server that echoes, with a task of its own, from any bytes: what it
//! writes is a conversation of whole, valid frames that tungstenite understands as a client, and what
//! it reads is what tungstenite reads as a server, where RFC 6455 leaves no choice.

#![no_main]

use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};
use async_tungstenite::tungstenite::protocol::Role as TheirRole;
use libfuzzer_sys::fuzz_target;
use tidewire::WebSocket;
use tidewire::frame::Role;
use tidewire_fuzz::oracle::{self, Limits};
use tidewire_fuzz::stream::{Last, script};
use tidewire_fuzz::{choice, compare, drive, memory, peer};

const LIMITS: Limits = Limits { message: 70_000, frame: 70_000, fragments: usize::MAX };

fuzz_target!(|input: &[u8]| {
    let _ = try_one(&mut Unstructured::new(input));
});

fn try_one(choice: &mut Unstructured<'_>) -> Result<()> {
    let splits = choice::splits(choice)?;
    let is_raw = choice.ratio(1, 8)?;
    let wire = if is_raw {
        choice.bytes(choice.len())?.to_vec()
    } else {
        choice::wire(choice, Role::Server)?
    };
    let (stream, written) = script(&wire, splits, Last::End);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let options = drive::options(&LIMITS);
    memory::within(300_000 + 16 * wire.len(), || {
        drive::run(WebSocket::run(
            stream,
            bytes::Bytes::new(),
            Role::Server,
            &options,
            async move |mut ws: WebSocket| {
                while let Some(message) = ws.recv().await? {
                    hear.lock().unwrap().push(drive::heard(&message));
                    ws.send(message).await?;
                }
                Ok::<_, tidewire::Error>(())
            },
        ));
    });
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    let echoed = peer::hear(&written.bytes(), TheirRole::Client, &LIMITS);
    compare::outgoing(&heard, &echoed, &oracle::read(&wire, Role::Server, &LIMITS));
    compare::incoming(&wire, &heard, echoed.end, &LIMITS);
    Ok(())
}
