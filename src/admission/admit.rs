//! The admission of a request: a permit of each of its limits, or none at all.

use std::sync::Arc;

use super::pool::{AccountEntry, Client};
use super::{ClientAddr, ConnectionLimit, LimitKey};
use crate::permits::Permit;
use crate::proto::handshake::HandshakeError;
use crate::runtime::Clock;

/// The limits of a whole server. If it has any, every request that may be upgraded holds them in its
/// extensions.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub(crate) struct ServerLimits(pub(crate) Arc<[ConnectionLimit]>);

/// The permits of one connection. Dropping it frees them.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    _seats: Box<[Seat]>,
}

/// A permit, and the place that it was taken from. The fields are dropped in this order.
#[derive(Debug)]
struct Seat {
    _permit: Permit,
    _place: AccountEntry,
}

/// Takes a permit of each limit, and waits for permits if the limit allows that. A limit that is given
/// twice counts once.
///
/// # Cancel safety
///
/// Safe: a future that is dropped leaves all queues, and frees the permits that it has.
pub(crate) async fn admit(
    mut limits: Vec<&ConnectionLimit>,
    client: ClientAddr,
    key: &LimitKey,
    clock: &Clock,
) -> Result<Admission, HandshakeError> {
    if limits.iter().any(|limit| limit.is_zero()) {
        return Err(HandshakeError::LimitIsZero);
    }
    let key = match key {
        LimitKey::Known(key) => Some(Arc::clone(key)),
        LimitKey::Missing => None,
        LimitKey::Exempt => {
            limits.retain(|limit| !limit.pool.is_for_each_key());
            None
        }
    };
    if key.is_none() && limits.iter().any(|limit| limit.pool.is_for_each_key()) {
        return Err(HandshakeError::LimitKeyMissing);
    }
    let address = match client {
        ClientAddr::Known(address) => Some(address),
        ClientAddr::Disputed if limits.iter().any(|limit| limit.pool.is_for_each_address()) => {
            return Err(HandshakeError::AddressDisputed);
        }
        ClientAddr::Unknown | ClientAddr::Disputed => None,
    };
    let client = Client { address, key };
    // All requests use one order: a request that holds a permit waits for later limits only. So no two
    // requests can wait for each other.
    limits.sort_by_key(|limit| limit.pool.rank());
    limits.dedup_by_key(|limit| limit.pool.rank());
    // On an error, the seats so far are dropped, and their permits are free.
    let mut seats = Vec::with_capacity(limits.len());
    for limit in limits {
        seats.push(take_seat(limit, &client, clock).await?);
    }
    Ok(Admission { _seats: seats.into() })
}

async fn take_seat(
    limit: &ConnectionLimit,
    client: &Client,
    clock: &Clock,
) -> Result<Seat, HandshakeError> {
    let place = limit.pool.enter(client).ok_or(HandshakeError::LimitKeyMissing)?;
    let permit = match place.permits.try_acquire() {
        Some(permit) => permit,
        None => wait_in_line(limit, &place, clock)
            .await
            .ok_or(HandshakeError::LimitReached { retry_after: limit.retry_after })?,
    };
    Ok(Seat { _permit: permit, _place: place })
}

async fn wait_in_line(
    limit: &ConnectionLimit,
    place: &AccountEntry,
    clock: &Clock,
) -> Option<Permit> {
    let queue = limit.queue?;
    let in_line = place.permits.queue(queue.max_waiting)?;
    clock.timeout(Some(queue.timeout), in_line.permit()).await
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn admit(
        limits: Vec<&ConnectionLimit>,
        client: ClientAddr,
    ) -> impl Future<Output = Result<Admission, HandshakeError>> {
        super::admit(limits, client, &LimitKey::Missing, Box::leak(Box::default()))
    }

    fn admit_keyed(
        limits: &[&ConnectionLimit],
        key: &LimitKey,
    ) -> Result<Admission, HandshakeError> {
        let clock = Clock::default();
        super::admit(limits.to_vec(), CLIENT, key, &clock).now_or_never().unwrap()
    }

    fn key(key: &str) -> LimitKey {
        LimitKey::Known(key.into())
    }

    const CLIENT: ClientAddr = ClientAddr::Known(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn try_admit(limits: &[&ConnectionLimit]) -> Option<Result<Admission, HandshakeError>> {
        admit(limits.to_vec(), CLIENT).now_or_never()
    }

    fn waiting(number: usize) -> ConnectionLimit {
        ConnectionLimit::new(number).wait(Duration::from_secs(60), 10)
    }

    #[test]
    fn a_request_that_one_limit_refuses_holds_no_permit_of_another() {
        let (wide, narrow) = (ConnectionLimit::new(2), ConnectionLimit::per_address(1));
        let narrow = narrow.retry_after(Duration::from_millis(1500));
        let admitted = try_admit(&[&wide, &narrow]).unwrap().unwrap();
        let refusal = HandshakeError::LimitReached { retry_after: Duration::from_millis(1500) };
        assert_eq!(try_admit(&[&wide, &narrow]).unwrap().unwrap_err(), refusal);
        assert_eq!((wide.in_use(), narrow.in_use()), (1, 1));
        drop(admitted);
        assert_eq!((wide.in_use(), narrow.in_use()), (0, 0));
    }

    #[test]
    fn a_limit_that_is_given_twice_counts_once() {
        let limit = waiting(1);
        let admitted = try_admit(&[&limit, &limit.clone()]).unwrap().unwrap();
        assert_eq!(limit.available(), 0);
        drop(admitted);
        assert_eq!(limit.available(), 1);
    }

    #[test]
    fn two_limits_in_two_orders_never_wait_for_each_other() {
        let [first, second, third, fourth] = [(); 4].map(|()| waiting(1));
        // One request needs the third limit, the other the fourth, and both have to wait there.
        let held = [&third, &fourth].map(|limit| try_admit(&[limit]).unwrap().unwrap());
        let mut one = Box::pin(admit(vec![&first, &third, &second], CLIENT));
        let mut other = Box::pin(admit(vec![&second, &fourth, &first], CLIENT));
        assert!((&mut one).now_or_never().is_none());
        assert!((&mut other).now_or_never().is_none());
        drop(held);
        drop(one.now_or_never().unwrap().unwrap());
        drop(other.now_or_never().unwrap().unwrap());
        assert_eq!((first.available(), second.available()), (1, 1));
    }

    #[test]
    fn a_request_that_waits_for_a_limit_per_address_holds_no_permit_of_a_limit_for_all() {
        let all = waiting(1);
        let each = ConnectionLimit::per_address(1).wait(Duration::from_secs(60), 10);
        let held = try_admit(&[&each]).unwrap().unwrap();
        assert!(try_admit(&[&all, &each]).is_none());
        let mut one = Box::pin(admit(vec![&all, &each], CLIENT));
        assert!((&mut one).now_or_never().is_none());
        assert_eq!((all.available(), each.waiting()), (1, 1));
        drop(held);
        assert!(one.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_request_that_stops_waiting_leaves_the_queue_and_the_permit() {
        let limit = waiting(1);
        let held = try_admit(&[&limit]).unwrap().unwrap();
        let mut gone = Box::pin(admit(vec![&limit], CLIENT));
        assert!((&mut gone).now_or_never().is_none());
        assert_eq!(limit.waiting(), 1);
        // The permit is meant for the one that leaves.
        drop(held);
        drop(gone);
        assert_eq!((limit.waiting(), limit.available()), (0, 1));
        assert!(try_admit(&[&limit]).is_some());
    }

    #[test]
    fn a_newcomer_does_not_pass_waiting_requests() {
        let refusing = ConnectionLimit::new(1);
        let limit = refusing.clone().wait(Duration::from_secs(60), 10);
        let held = try_admit(&[&limit]).unwrap().unwrap();
        let mut first = Box::pin(admit(vec![&limit], CLIENT));
        assert!((&mut first).now_or_never().is_none());
        drop(held);
        assert!(try_admit(&[&limit]).is_none());
        assert!(matches!(try_admit(&[&refusing]), Some(Err(_))));
        assert!(first.now_or_never().is_some());
    }

    #[test]
    fn a_client_whose_address_is_disputed_has_no_permit_of_an_address() {
        let (all, each) = (waiting(3), ConnectionLimit::per_address(2));
        let admit = |limits: &[&ConnectionLimit], client| {
            admit(limits.to_vec(), client).now_or_never().unwrap()
        };
        let refused = admit(&[&all, &each], ClientAddr::Disputed).unwrap_err();
        assert_eq!(refused, HandshakeError::AddressDisputed);
        assert_eq!((all.in_use(), each.in_use()), (0, 0));
        let _one_of_all = admit(&[&all], ClientAddr::Disputed).unwrap();
        // All clients without an address share one.
        let _unknown = [(); 2].map(|()| admit(&[&all, &each], ClientAddr::Unknown).unwrap());
        assert!(admit(&[&each], ClientAddr::Unknown).is_err());
        assert!(admit(&[&each], CLIENT).is_ok());
    }

    #[test]
    fn each_key_has_permits_of_its_own_from_any_address() {
        let (all, each) = (waiting(9), ConnectionLimit::per_key(2));
        let limits = [&all, &each];
        let held = [(); 2].map(|()| admit_keyed(&limits, &key("ada")).unwrap());
        let refusal = HandshakeError::LimitReached { retry_after: Duration::from_secs(5) };
        assert_eq!(admit_keyed(&limits, &key("ada")).unwrap_err(), refusal);
        let _other = admit_keyed(&limits, &key("bob")).unwrap();
        assert_eq!((all.in_use(), each.in_use(), each.available()), (3, 3, 0));
        assert_eq!(["ada", "bob", "eve"].map(|key| each.available_to_key(key)), [0, 1, 2]);
        drop(held);
        assert_eq!((all.in_use(), each.in_use(), each.available_to_key("ada")), (1, 1, 2));
    }

    #[test]
    fn a_connection_without_a_key_is_an_error_unless_it_is_opened_to_refuse() {
        let (all, each) = (waiting(1), ConnectionLimit::per_key(1));
        let error = admit_keyed(&[&all, &each], &LimitKey::Missing).unwrap_err();
        assert_eq!((error, all.in_use()), (HandshakeError::LimitKeyMissing, 0));
        let _refusing = admit_keyed(&[&all, &each], &LimitKey::Exempt).unwrap();
        assert_eq!((all.in_use(), each.in_use()), (1, 0));
    }

    #[test]
    fn permits_are_taken_of_addresses_first_then_of_keys_then_of_all() {
        let clock = Clock::default();
        let wait = |limit: ConnectionLimit| limit.wait(Duration::from_secs(60), 10);
        let (all, keys) = (waiting(1), wait(ConnectionLimit::per_key(1)));
        let addresses = wait(ConnectionLimit::per_address(1));
        let ada = key("ada");
        let held = admit_keyed(&[&keys], &ada).unwrap();
        let waits = super::admit(vec![&all, &keys, &addresses], CLIENT, &ada, &clock);
        let mut waits = Box::pin(waits);
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!((addresses.in_use(), keys.waiting(), all.in_use()), (1, 1, 0));
        drop(held);
        assert!(waits.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_limit_of_zero_is_an_error_that_says_so() {
        for zero in [
            ConnectionLimit::new(0),
            ConnectionLimit::per_address(0),
            ConnectionLimit::per_key(0),
            waiting(0),
        ] {
            let error = try_admit(&[&ConnectionLimit::new(1), &zero]).unwrap().unwrap_err();
            assert_eq!(error, HandshakeError::LimitIsZero);
        }
    }
}
