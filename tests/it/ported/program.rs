//! An example as the program that it is.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::support::peer::WITHIN;

/// The binary of an example. `cargo test` builds them all; for `cargo test --test it` that is done here.
pub(super) fn example(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    // TARGET/PROFILE/deps/it-…
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(name);
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        build(name, profile);
    }
    path
}

fn build(name: &str, profile: &Path) {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--example", name, "--target-dir"])
        .arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().is_ok_and(|status| status.success()), "{name} cannot be built");
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
