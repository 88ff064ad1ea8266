//! A server in a process of its own, whose memory, CPU time and descriptors are nobody else's: this
//! test binary again, for one test.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use tidewire::Server;
use tidewire::server::ShutdownOptions;

use super::peer::within;

/// Set for the process that is the server of a test.
const SERVER: &str = "TIDEWIRE_TEST_SERVER";

/// The process; it ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) addr: SocketAddr,
}

impl Process {
    /// Starts the server that the test of this name [serves](serve).
    pub(crate) fn start(test: &str) -> Self {
        Self::spawn(Command::new(env::current_exe().unwrap()), test)
    }

    /// As [`start`](Self::start), with room for so many descriptors.
    pub(crate) fn start_with_files(test: &str, most: usize) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]);
        shell.arg(env::current_exe().unwrap());
        Self::spawn(shell, test)
    }

    fn spawn(mut command: Command, test: &str) -> Self {
        let mut child = command
            .args(["--exact", test, "--nocapture"])
            .env(SERVER, "1")
            // What one thread frees, glibc keeps from the others otherwise.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = line(&mut lines, "listening on ").parse().unwrap();
        Self { child, lines, addr }
    }

    /// Shuts the server down, and tells how many of its handlers and requests had to be dropped.
    pub(crate) fn end(self) -> usize {
        self.end_and_rest().0
    }

    /// As [`end`](Self::end), with the lines that nobody has read before.
    pub(crate) fn end_and_rest(mut self) -> (usize, String) {
        drop(self.child.stdin.take());
        let lines: Vec<_> = self.lines.by_ref().map_while(Result::ok).collect();
        let dropped = lines.iter().find_map(|line| line.strip_prefix("dropped "));
        (dropped.unwrap().parse().unwrap(), lines.join("\n"))
    }

    /// Waits for a line that begins with `prefix`, and returns what follows it.
    pub(crate) fn line(&mut self, prefix: &str) -> String {
        line(&mut self.lines, prefix)
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let statm = fs::read_to_string(self.proc("statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// The path of one of its files in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What follows `prefix` in the next line that begins with it.
fn line(lines: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    let mut lines = lines.map_while(Result::ok);
    lines.find_map(|line| line.strip_prefix(prefix).map(str::to_owned)).unwrap()
}

/// Is the server, in the process that was started for it. Does nothing when run as a test.
pub(crate) fn serve(server: impl FnOnce() -> Server) {
    if env::var_os(SERVER).is_none() {
        return;
    }
    let handle = within(server().start("127.0.0.1:0")).unwrap();
    println!("\nlistening on {}", handle.local_addr());
    // Until the test ends, however it does.
    let _ = std::io::stdin().read(&mut [0]);
    let options = ShutdownOptions::default().grace(Duration::from_secs(1));
    println!("dropped {}", within(handle.shutdown(options)).dropped);
}
