//! The kernel's own list of TCP sockets, `/proc/net/tcp`.

use std::fs;
use std::net::SocketAddr;

/// A socket with an address of IPv4.
pub(super) struct Entry {
    pub(super) local_port: u16,
    pub(super) peer_port: u16,
    /// Bytes that nobody has read yet; of a listener, connections that nobody has accepted.
    pub(super) unread: u32,
    /// Does a process have a descriptor of it?
    pub(super) is_held: bool,
}

/// All sockets of the port of `addr`.
pub(super) fn entries(addr: SocketAddr) -> Vec<Entry> {
    let list = fs::read_to_string("/proc/net/tcp").unwrap();
    let entries = list.lines().skip(1).map(Entry::parse);
    entries.filter(|entry| entry.local_port == addr.port()).collect()
}

impl Entry {
    /// Reads a line: number, both addresses, state, `tx_queue:rx_queue`, timer, retransmissions, user,
    /// timeout, inode, and more.
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let second = |at: usize| fields[at].split_once(':').unwrap().1;
        let port = |at| u16::from_str_radix(second(at), 16).unwrap();
        Self {
            local_port: port(1),
            peer_port: port(2),
            unread: u32::from_str_radix(second(4), 16).unwrap(),
            is_held: fields[9] != "0",
        }
    }
}
