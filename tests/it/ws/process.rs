//! A server in a process of its own, whose memory and CPU time are nobody else's: this test binary
//! again, for one test.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tidewire::Server;

use super::tcp::bind;

/// Set for the process that is the server of a test.
const SERVER: &str = "TIDEWIRE_TEST_SERVER";

/// The process; it ends when this is dropped.
pub(super) struct Process {
    child: Child,
    pub(super) addr: SocketAddr,
}

impl Process {
    /// Starts the server that the test of this name [serves](serve).
    pub(super) fn start(test: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(SERVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let addr = lines.find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        Self { child, addr: addr.unwrap() }
    }

    /// The path of one of its files in `/proc`.
    pub(super) fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Is the server, in the process that was started for it. Does nothing when run as a test.
pub(super) fn serve(server: impl FnOnce() -> Server) {
    if env::var_os(SERVER).is_none() {
        return;
    }
    println!("\nlistening on {}", bind(server()));
    // Until the test ends, however it does.
    let _ = std::io::stdin().read(&mut [0]);
}
