//! No descriptor for another connection, and no listener.

use std::net::{Shutdown, TcpListener, TcpStream};

use futures::channel::mpsc;
use socket2::SockRef;
use tidewire::WebSocketOptions;
use tidewire::server::Listeners;

use super::separate_process::Apart;
use super::server::{Held, server};
use crate::support::frames::{TEXT, masked, plain};
use crate::support::tcp::{Tcp, until};

fn expect_echo(client: &mut Tcp) {
    client.send(masked(TEXT, "Hello"));
    client.expect(plain(TEXT, "Hello"));
}

#[test]
fn connections_go_on_while_there_is_no_descriptor_for_another() {
    const FILES: usize = 32;
    let apart = Apart::start_with_files(FILES);
    let mut open = apart.upgraded_at("/echo");
    let crowd: Vec<_> = (0..2 * FILES).map(|_| Tcp::connect(apart.process.addr)).collect();
    until("all descriptors are in use", || apart.process.descriptors() >= FILES);
    for _ in 0..20 {
        expect_echo(&mut open);
        assert_eq!(apart.numbers(["permits", "members"]), [1, 1]);
    }
    drop(crowd);
    expect_echo(&mut apart.upgraded_at("/echo"));
    expect_echo(&mut open);
    drop(open);
    apart.at_rest("there were too many");
    apart.end();
}

#[test]
fn connections_go_on_without_a_listener_and_others_come_when_it_is_back() {
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    // Whoever handed the listener over has it, too.
    let ours = inherited.try_clone().unwrap();
    let addr = ours.local_addr().unwrap();
    let options = WebSocketOptions::default();
    let bound = server(&Held::new(2), &options, mpsc::unbounded().0)
        .bind_to(Listeners::new().from_tcp(inherited).unwrap())
        .unwrap();
    async_std::task::spawn(bound.serve());

    let mut open = Tcp::upgraded_at(addr, "/echo");
    SockRef::from(&ours).shutdown(Shutdown::Both).unwrap();
    assert!(TcpStream::connect(addr).is_err(), "nobody listens");
    for _ in 0..20 {
        expect_echo(&mut open);
    }
    // It gets another port, because the system has chosen the first as well.
    SockRef::from(&ours).listen(16).unwrap();
    expect_echo(&mut Tcp::upgraded_at(ours.local_addr().unwrap(), "/echo"));
    expect_echo(&mut open);
}
