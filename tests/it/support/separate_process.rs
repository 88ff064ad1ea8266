//! Programs that need a process of their own: this test binary again, for one test.

use std::process::Command;
use std::time::Duration;
use std::{env, process, thread};

/// Names what the process of a test is to do.
const PROGRAM: &str = "TIDEWIRE_TEST_PROGRAM";

/// Longest life of such a process.
const WITHIN: Duration = Duration::from_secs(20);

/// Runs the test of this name in a process of its own, which must succeed there. Returns its standard error.
pub(crate) fn run(test: &str, program: &str) -> String {
    let output = command(test, program).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {}\n{said}", output.status);
    said
}

/// The command that runs the test of this name in a process of its own.
pub(crate) fn command(test: &str, program: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PROGRAM, program).env("RUST_BACKTRACE", "0");
    command
}

/// What this process is to do; `None` if it runs tests.
pub(crate) fn program() -> Option<String> {
    program_within(WITHIN)
}

/// As [`program`], for a process that may live this long.
pub(crate) fn program_within(most: Duration) -> Option<String> {
    let program = env::var(PROGRAM).ok()?;
    // A thread that hangs cannot be told to end.
    thread::spawn(move || {
        thread::sleep(most);
        eprintln!("the program hangs");
        process::abort();
    });
    Some(program)
}
