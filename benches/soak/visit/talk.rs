//! Visitors that speak the protocol.

use std::sync::Arc;
use std::time::Duration;

use async_std::task;
use fastrand::Rng;
use futures::future::try_join;
use tidewire::{Client, Message, WebSocket};

use crate::Problem;
use crate::letter::{self, Received};
use crate::server::{BYE, FLOOD, Service};
use crate::tally::Tally;

/// The number of letters that a member of a room has under way. Far more may wait for it.
const IN_FLIGHT: u64 = 8;

/// Rooms, by number.
const ROOMS: u8 = 4;

/// Sends letters and receives their echoes.
pub(super) async fn echo(
    rng: &mut Rng,
    service: &Service,
    tally: &Arc<Tally>,
) -> Result<(), Problem> {
    let client = service.client("/echo", rng);
    run(client, rng, tally, |mut ws, mut rng, tally| async move {
        converse(&mut ws, &mut rng, &tally).await?;
        leave(ws, &mut rng).await
    })
    .await
}

/// Is silent for some seconds. The server notices by its pongs that it is there.
pub(super) async fn idle(
    rng: &mut Rng,
    service: &Service,
    tally: &Arc<Tally>,
) -> Result<(), Problem> {
    let client = service.client("/heartbeat", rng);
    run(client, rng, tally, |mut ws, mut rng, tally| async move {
        let silence = Duration::from_millis(rng.u64(1000..8000));
        if let Ok(received) = async_std::future::timeout(silence, ws.recv()).await {
            return Err(format!("instead of silence: {received:?}").into());
        }
        converse(&mut ws, &mut rng, &tally).await?;
        leave(ws, &mut rng).await
    })
    .await
}

/// Reads the server's letters slowly.
pub(super) async fn flood(
    rng: &mut Rng,
    service: &Service,
    tally: &Arc<Tally>,
) -> Result<(), Problem> {
    let client = service.client("/flood", rng);
    run(client, rng, tally, |mut ws, mut rng, tally| async move {
        let mut received = Received::default();
        for _ in 0..FLOOD {
            let message = next(&mut ws, &tally).await?;
            received.take(&message)?;
            task::sleep(Duration::from_millis(rng.u64(..20))).await;
        }
        leave(ws, &mut rng).await
    })
    .await
}

/// Sends letters to a room, and receives those of all members.
pub(super) async fn room(
    rng: &mut Rng,
    service: &Service,
    tally: &Arc<Tally>,
) -> Result<(), Problem> {
    let client = service.client(&format!("/room/{}", rng.u8(..ROOMS)), rng);
    run(client, rng, tally, |mut ws, mut rng, tally| async move {
        let (me, count) = (rng.u64(..), rng.u64(1..100));
        let (mut sent, mut heard, mut received) = (0, 0, Received::default());
        while heard < count {
            while sent < count && sent - heard < IN_FLIGHT {
                let len = rng.usize(..1024);
                ws.send(letter::write(me, sent, len, &mut rng)).await?;
                sent += 1;
            }
            if received.take(&next(&mut ws, &tally).await?)? == me {
                heard += 1;
            }
        }
        leave(ws, &mut rng).await
    })
    .await
}

/// Makes a visit, on a connection with or without a task of its own.
async fn run<F, Fut>(
    client: Client,
    rng: &mut Rng,
    tally: &Arc<Tally>,
    visit: F,
) -> Result<(), Problem>
where
    F: FnOnce(WebSocket, Rng, Arc<Tally>) -> Fut,
    Fut: Future<Output = Result<(), Problem>> + Send + 'static,
{
    let (has_task, rng, tally) = (rng.bool(), rng.fork(), Arc::clone(tally));
    if has_task {
        client.run(|ws| visit(ws, rng, tally)).await
    } else {
        visit(client.connect().await?, rng, tally).await
    }
}

/// Sends letters while it receives the echoes of earlier ones.
async fn converse(ws: &mut WebSocket, rng: &mut Rng, tally: &Tally) -> Result<(), Problem> {
    let (me, count) = (rng.u64(..), rng.u64(1..100));
    let (sender, mut letters) = (ws.sender(), rng.fork());
    let sending = async {
        for number in 0..count {
            let len = letter::len(&mut letters);
            sender.send(letter::write(me, number, len, &mut letters)).await?;
        }
        Ok::<(), Problem>(())
    };
    let receiving = async {
        for number in 0..count {
            let found = letter::read(&next(ws, tally).await?)?;
            if found != (me, number) {
                return Err(format!("{found:?} instead of {:?}", (me, number)).into());
            }
        }
        Ok(())
    };
    try_join(sending, receiving).await?;
    Ok(())
}

/// Receives the next letter. The end of the connection is an error.
async fn next(ws: &mut WebSocket, tally: &Tally) -> Result<Message, Problem> {
    let Some(message) = ws.recv().await? else {
        return Err(format!("closed before its time: {:?}", ws.close_info()).into());
    };
    tally.letter(message.len());
    Ok(message)
}

/// Ends the connection in one of several ways.
async fn leave(mut ws: WebSocket, rng: &mut Rng) -> Result<(), Problem> {
    match rng.u8(..3) {
        0 => {
            ws.close(1000, "that was all").await?;
        }
        // The server closes. In a room, letters of others may still arrive until then.
        1 => {
            ws.send(BYE).await?;
            while ws.recv().await?.is_some() {}
            let code = ws.close_info().map(|info| info.reported_code());
            if code != Some(1000) {
                return Err(format!("closed with {code:?}").into());
            }
        }
        _ => drop(ws),
    }
    Ok(())
}
