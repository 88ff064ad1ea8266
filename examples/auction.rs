//! An auction. Each lot is a room, and the state of the room is the lot: its price, its bids and its end.
//!
//! ```toml
//! [dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! serde = { version = "1.0", features = ["derive"] }
//! tidewire = "0.1"
//!
//! [dev-dependencies]
//! tidewire = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```text
//! cargo run --release --example auction
//! curl --data '{"price":100,"seconds":120}' http://127.0.0.1:8080/lots/clock
//! websocat 'ws://127.0.0.1:8080/lots/clock?bidder=ada'
//! {"type":"bid","amount":120}
//! ```
//!
//! | a bidder is told | when |
//! | --- | --- |
//! | `{"type":"lot","price":100,"seconds_left":119}` | it comes; the latest bids follow |
//! | `{"type":"bid","bidder":"ada","amount":120}` | somebody has bid |
//! | `{"type":"refused","reason":"the price is 120"}` | its own bid is refused |
//! | `{"type":"sold","bidder":"ada","amount":120}` or `{"type":"unsold"}` | the lot is over; a close frame follows |

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_std::task;
use serde::{Deserialize, Serialize};
use tidewire::limits::ConnectionLimit;
use tidewire::tide::StatusCode;
use tidewire::upgrade::UpgradeOptions;
use tidewire::{
    HandlerResult, Hub, Message, Reject, RequestContext, Room, Server, WebSocketOptions,
};

/// Bids of a lot that a late comer is told.
const KEPT: usize = 50;

/// The longest time for which a lot is offered.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let bound = server(Auction::new()).bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

fn server(auction: Auction) -> Server<Auction> {
    let mut server = Server::with_state(auction);
    server.post("/lots/:lot", offer);
    server.get("/lots/:lot", bid);
    server
}

/// Offers a lot. Anybody may, in this example.
async fn offer(mut ctx: RequestContext<Auction>) -> HandlerResult<StatusCode> {
    let name: String = ctx.param("lot")?;
    let Offer { price, seconds } = ctx.body_json().await?;
    let time = Duration::from_secs(seconds);
    if time.is_zero() || time > LONGEST {
        return Err(Reject::status(400, "a lot is offered for 1 to 86400 seconds").into());
    }
    if !ctx.state().offer(&name, price, time)? {
        return Err(Reject::status(409, "the lot is offered already").into());
    }
    Ok(StatusCode::Created)
}

/// Bids for a lot, until it is over. A real auction knows the bidder by a login.
async fn bid(mut ctx: RequestContext<Auction>) -> HandlerResult {
    let Visitor { bidder } = ctx.query()?;
    let auction = ctx.state().clone();
    let room = auction.lots.find(&ctx.param::<String>("lot")?);
    let room = room.ok_or(Reject::status(404, "no such lot"))?;
    let options = UpgradeOptions::default()
        .limit(&auction.connections)
        .limit_key(&bidder)
        .websocket(WebSocketOptions::default().max_message_size(1024));
    let mut ws = ctx.upgrade_to_websocket(options).await?.typed::<Asked, Told>();

    // The lot as it is, and after that each bid once.
    let mut is_open = false;
    let member = room.join_then(ws.sender(), bidder, |lot, member| {
        is_open = lot.is_open();
        for told in lot.story() {
            member.send(told);
        }
    })?;
    if !is_open {
        return Err(Reject::close(4410, "the lot is over").into());
    }
    // A message that is no bid ends this with 1007 and serde's sentence.
    while let Some(Asked::Bid { amount }) = ws.recv().await? {
        let bid = Bid { bidder: member.user().to_string(), amount };
        // Bids are decided one after the other, and told in that order.
        let refused = room.update(|lot, room| {
            let refused = lot.bid(bid.clone()).err();
            if refused.is_none() {
                room.broadcast(Told::Bid(bid));
            }
            refused
        })?;
        if let Some(reason) = refused {
            ws.send(&Told::Refused { reason }).await?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Offer {
    price: u32,
    seconds: u64,
}

#[derive(Deserialize)]
struct Visitor {
    bidder: String,
}

/// A message of a bidder.
#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Asked {
    Bid { amount: u32 },
}

/// A message to bidders.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Lot { price: u32, seconds_left: u64 },
    Bid(Bid),
    Refused { reason: String },
    Sold(Bid),
    Unsold,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Bid {
    bidder: String,
    amount: u32,
}

impl From<Told> for Message {
    fn from(told: Told) -> Self {
        // Strings and numbers always have a JSON form.
        Self::json(&told).unwrap_or_else(|_| Self::text("{}"))
    }
}

/// The lots that are offered, with the name of each bidder.
#[derive(Clone)]
struct Auction {
    lots: Hub<String, Lot>,
    /// Two windows for each bidder.
    connections: ConnectionLimit,
}

impl Auction {
    fn new() -> Self {
        Self { lots: Hub::default(), connections: ConnectionLimit::per_key(2) }
    }

    /// Offers a lot; false if it is offered already. A task holds the room until the lot is over, so bidders may come and
    /// go.
    fn offer(&self, name: &str, price: u32, time: Duration) -> HandlerResult<bool> {
        let room = self.lots.room(name);
        let is_new = room.update(|lot, _| {
            let is_new = lot.ends.is_none();
            if is_new {
                *lot = Lot::new(price, time);
            }
            is_new
        })?;
        if is_new {
            task::spawn(async move {
                if let Err(error) = end_in_time(&room).await {
                    eprintln!("the lot {:?} cannot be ended: {error}", room.name());
                }
            });
        }
        Ok(is_new)
    }
}

/// Ends the lot when its time is over, which late bids delay.
async fn end_in_time(room: &Room<String, Lot>) -> HandlerResult {
    while let Some(left) = room.update(Lot::end_if_over)?? {
        task::sleep(left).await;
    }
    Ok(())
}

/// A lot. The default is one that is not offered.
#[derive(Default)]
struct Lot {
    price: u32,
    bids: VecDeque<Bid>,
    ends: Option<Instant>,
    /// The time that is left at least after each bid.
    extension: Duration,
    is_over: bool,
}

impl Lot {
    fn new(price: u32, time: Duration) -> Self {
        let ends = Some(Instant::now() + time);
        Self { price, ends, extension: time / 10, ..Self::default() }
    }

    fn bid(&mut self, bid: Bid) -> Result<(), String> {
        if !self.is_open() {
            return Err("the lot is over".into());
        }
        if bid.amount <= self.price {
            return Err(format!("the price is {}", self.price));
        }
        self.price = bid.amount;
        self.ends = self.ends.max(Some(Instant::now() + self.extension));
        self.bids.push_back(bid);
        if self.bids.len() > KEPT {
            self.bids.pop_front();
        }
        Ok(())
    }

    /// Returns the time until it is over. If it is over, tells all bidders, and closes them.
    fn end_if_over(&mut self, room: &Room<String, Self>) -> tidewire::Result<Option<Duration>> {
        let left = self.time_left();
        if left.is_none() {
            self.is_over = true;
            room.broadcast(self.bids.back().map_or(Told::Unsold, |bid| Told::Sold(bid.clone())));
            for (id, _) in room.members() {
                room.close_member(id, 1000, "the lot is over")?;
            }
        }
        Ok(left)
    }

    fn is_open(&self) -> bool {
        self.ends.is_some() && !self.is_over
    }

    /// The time until it is over; `None` if it is.
    fn time_left(&self) -> Option<Duration> {
        let left = self.ends?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// What a late comer is told.
    fn story(&self) -> impl Iterator<Item = Told> {
        let seconds_left = self.time_left().unwrap_or_default().as_secs();
        let lot = Told::Lot { price: self.price, seconds_left };
        std::iter::once(lot).chain(self.bids.iter().cloned().map(Told::Bid))
    }
}

#[cfg(test)]
mod tests {
    use tidewire::Result;
    use tidewire::testing::{TestClient, TestSocket};

    use super::*;

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3600);

    fn auction() -> (Auction, TestClient) {
        let auction = Auction::new();
        let client = TestClient::new(&server(auction.clone()));
        (auction, client)
    }

    fn told(bidder: &str, amount: u32) -> Told {
        Told::Bid(Bid { bidder: bidder.into(), amount })
    }

    async fn next(ws: &mut TestSocket) -> Result<Told> {
        ws.recv_json().await.map(|told| told.expect("a message"))
    }

    /// A bidder who has been told the lot, and so is in the room.
    async fn enter(client: &TestClient, bidder: &str) -> Result<(TestSocket, u32)> {
        let mut ws = client.connect(&format!("/lots/clock?bidder={bidder}")).await?;
        match next(&mut ws).await? {
            Told::Lot { price, .. } => Ok((ws, price)),
            told => panic!("{told:?}"),
        }
    }

    fn code(ws: &TestSocket) -> Option<u16> {
        ws.close_info().map(|info| info.reported_code())
    }

    #[async_std::test]
    async fn a_late_comer_is_told_the_bids_before_it_and_then_each_once() -> Result<()> {
        let (auction, client) = auction();
        assert!(auction.offer("clock", 100, LONG).unwrap());
        let (mut ada, price) = enter(&client, "ada").await?;
        assert_eq!(price, 100);
        ada.send_json(&Asked::Bid { amount: 120 }).await?;
        assert_eq!(next(&mut ada).await?, told("ada", 120));
        let (mut bob, price) = enter(&client, "bob").await?;
        assert_eq!((price, next(&mut bob).await?), (120, told("ada", 120)));
        bob.send_json(&Asked::Bid { amount: 120 }).await?;
        // It is refused, and the others are not told.
        assert_eq!(next(&mut bob).await?, Told::Refused { reason: "the price is 120".into() });
        bob.send_json(&Asked::Bid { amount: 130 }).await?;
        for ws in [&mut ada, &mut bob] {
            assert_eq!(next(ws).await?, told("bob", 130));
        }
        Ok(())
    }

    #[async_std::test]
    async fn a_lot_is_sold_in_time_to_the_highest_bid_and_is_gone() -> Result<()> {
        let (auction, client) = auction();
        let room = auction.lots.room("clock");
        room.update(|lot, _| *lot = Lot::new(100, LONG)).unwrap();
        let (mut ada, _) = enter(&client, "ada").await?;
        ada.send_json(&Asked::Bid { amount: 120 }).await?;
        assert_eq!(next(&mut ada).await?, told("ada", 120));
        // The rest of the time passes.
        room.update(|lot, _| lot.ends = Some(Instant::now() + Duration::from_millis(20))).unwrap();
        end_in_time(&room).await.unwrap();
        drop(room);
        assert_eq!(next(&mut ada).await?, Told::Sold(Bid { bidder: "ada".into(), amount: 120 }));
        assert!(ada.recv().await?.is_none());
        assert_eq!(code(&ada), Some(1000));
        client.idle().await;
        let gone = client.websocket("/lots/clock?bidder=ada").refused().await;
        gone.assert_status(404).assert_text("no such lot");
        // It may be offered anew, and nothing of before is left.
        assert!(auction.offer("clock", 5, LONG).unwrap());
        assert_eq!(enter(&client, "ada").await?.1, 5);
        Ok(())
    }

    #[test]
    fn a_late_bid_extends_the_time_by_a_tenth() {
        let mut lot = Lot::new(100, LONG);
        lot.ends = Some(Instant::now() + Duration::from_secs(1));
        let bid = |amount| Bid { bidder: "ada".into(), amount };
        lot.bid(bid(100)).unwrap_err();
        assert!(lot.time_left().unwrap() <= Duration::from_secs(1));
        lot.bid(bid(101)).unwrap();
        assert!(lot.time_left().unwrap() > LONG / 20);
    }

    #[async_std::test]
    async fn what_is_wrong_is_refused_with_a_reason() -> Result<()> {
        let (auction, client) = auction();
        let refused = |path: &str| client.websocket(path).refused();
        refused("/lots/clock?bidder=ada").await.assert_status(404).assert_text("no such lot");
        let offer = |body: &str| client.post("/lots/clock").body(body.to_owned()).send();
        offer(r#"{"price":100,"seconds":0}"#).await?.assert_status(400);
        offer(r#"{"price":100,"seconds":3600}"#).await?.assert_status(201);
        offer(r#"{"price":100,"seconds":3600}"#).await?.assert_status(409);
        refused("/lots/clock").await.assert_status(400);

        let windows = [enter(&client, "ada").await?, enter(&client, "ada").await?];
        refused("/lots/clock?bidder=ada").await.assert_status(503);
        assert_eq!(auction.connections.available_to_key("bob"), 2);
        drop(windows);

        let (mut bob, _) = enter(&client, "bob").await?;
        bob.send("twenty").await?;
        assert!(bob.recv().await?.is_none());
        assert_eq!(code(&bob), Some(1007));
        Ok(())
    }
}
