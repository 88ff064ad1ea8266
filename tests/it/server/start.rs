//! Servers in the background.

use std::net::{TcpListener, TcpStream};

use async_std::task;
use tidewire::WebSocketOptions;
use tidewire::server::ShutdownOptions;

use super::{patient, start};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::within;
use crate::support::tcp::{Tcp, echo_server};

#[test]
fn a_server_serves_as_soon_as_it_is_started_and_its_port_is_free_when_it_has_ended() {
    let handle = start(echo_server(WebSocketOptions::default()));
    let addr = handle.local_addr();
    assert_ne!(addr.port(), 0);
    let mut client = Tcp::upgraded(addr);
    client.send(masked(TEXT, "hello"));
    client.expect(plain(TEXT, "hello"));
    client.send(masked(CLOSE, close(1000, "")));
    client.expect(plain(CLOSE, close(1000, "")));
    client.expect_end();

    let report = within(handle.shutdown(patient()));
    assert_eq!(report.dropped, 0);
    assert!(TcpStream::connect(addr).is_err());
    TcpListener::bind(addr).unwrap();
}

#[test]
fn a_server_goes_on_without_its_handle() {
    let handle = start(echo_server(WebSocketOptions::default()));
    let addr = handle.local_addr();
    drop(handle);
    let mut client = Tcp::upgraded(addr);
    client.send(masked(TEXT, "still here?"));
    client.expect(plain(TEXT, "still here?"));
}

#[test]
fn serve_returns_when_the_server_was_shut_down() {
    let bound = within(echo_server(WebSocketOptions::default()).bind("127.0.0.1:0")).unwrap();
    let handle = bound.handle();
    assert_eq!(handle.local_addr(), bound.local_addr());
    assert!(!handle.is_shutting_down());
    let serving = task::spawn(bound.serve());
    drop(Tcp::upgraded(handle.local_addr()));
    let report = within(handle.shutdown(patient()));
    within(serving).unwrap();
    assert!(handle.is_shutting_down());
    assert_eq!(within(handle.stopped()), report);
}

#[test]
fn a_server_that_never_served_can_be_shut_down_too() {
    let bound = within(echo_server(WebSocketOptions::default()).bind("127.0.0.1:0")).unwrap();
    let report = within(bound.handle().shutdown(ShutdownOptions::default()));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 0));
    within(bound.serve()).unwrap();
}
