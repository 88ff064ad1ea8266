//! A peer that stops reading, and stays.

use std::time::Duration;

use tidewire::WebSocketOptions;

use super::server::End;
use super::site::{Security, Site};

/// A limit that is meant to be exceeded.
const SOON: Duration = Duration::from_millis(100);

#[test]
fn a_peer_that_stops_reading_is_given_up_although_it_is_still_there() {
    for security in Security::ALL {
        let options = WebSocketOptions::default().send_timeout(SOON);
        let mut site = Site::start(*security, &options);
        for _ in 0..3 {
            let stuck = site.upgraded_at("/flood");
            assert_eq!(site.at_rest("stuck"), [End::Lost(1006)], "{security:?}");
            drop(stuck);
        }
        site.end();
    }
}
