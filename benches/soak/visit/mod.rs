//! Visits: the work of a visitor from its arrival to its end.

mod rude;
mod talk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use fastrand::Rng;

use crate::Problem;
use crate::server::Service;
use crate::tally::Tally;

/// Longest time for a visit. A visit that takes longer has failed.
const VISIT: Duration = Duration::from_secs(60);

/// Makes one visit after another, until `end`.
pub(crate) async fn keep_visiting(
    seed: u64,
    end: Instant,
    service: Arc<Service>,
    tally: Arc<Tally>,
) {
    let mut rng = Rng::with_seed(seed);
    while Instant::now() < end {
        let kind = kind(&mut rng);
        let visit = visit(kind, &mut rng, &service, &tally);
        let outcome =
            timeout(VISIT, visit).await.unwrap_or_else(|_| Err("it came to no end".into()));
        tally.visit(kind, outcome);
    }
}

/// Chooses the kind of the next visit. Kinds that take seconds are rare, since otherwise all visitors would be at them.
fn kind(rng: &mut Rng) -> &'static str {
    match rng.u8(..100) {
        0..35 => "echo",
        35..70 => "room",
        70..75 => "flood",
        75..77 => "idle",
        77 => "mute",
        78..90 => "metrics",
        _ => "reset",
    }
}

async fn visit(
    kind: &str,
    rng: &mut Rng,
    service: &Service,
    tally: &Arc<Tally>,
) -> Result<(), Problem> {
    match kind {
        "room" => talk::room(rng, service, tally).await,
        "flood" => talk::flood(rng, service, tally).await,
        "idle" => talk::idle(rng, service, tally).await,
        "mute" => rude::mute(service.addr()).await,
        "metrics" => rude::metrics(service.addr()).await,
        "reset" => rude::reset(rng, service.addr()).await,
        _ => talk::echo(rng, service, tally).await,
    }
}
