//! An example as the program that it is.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::ws::peer::WITHIN;

/// The binary of an example. `cargo test` builds them; for `cargo test --test it` that is done here.
pub(super) fn example(name: &str) -> PathBuf {
    static BUILD: Once = Once::new();
    let target = env::current_exe().unwrap();
    let path =
        target.parent().and_then(|folder| folder.parent()).unwrap().join("examples").join(name);
    BUILD.call_once(|| {
        if !path.exists() {
            let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
            let built = Command::new(cargo).args(["build", "--quiet", "--examples"]).status();
            assert!(built.is_ok_and(|status| status.success()), "the examples cannot be built");
        }
    });
    path
}

/// A server that is an example; it is killed when this is dropped.
pub(super) struct Program {
    child: Child,
    lines: Receiver<String>,
    pub(super) addr: SocketAddr,
}

impl Program {
    /// Starts it, and waits until it listens.
    pub(super) fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let first = lines.recv_timeout(WITHIN).unwrap();
        let addr = first.split_once("://").unwrap_or_else(|| panic!("{first}")).1;
        Self { child, addr: addr.parse().unwrap(), lines }
    }

    pub(super) fn next_line(&mut self) -> String {
        self.lines.recv_timeout(WITHIN).unwrap()
    }

    /// The next line is this one.
    pub(super) fn prints(&mut self, line: &str) {
        assert_eq!(self.next_line(), line);
    }

    /// It ends by itself, and says that all went well.
    pub(super) fn ends_well(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
