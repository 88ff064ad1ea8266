//! The load generator: one thread, one epoll, and as little work per message as can be.
//!
//! `load MODE --address HOST:PORT [--option value]…` prints one line of JSON. What a server costs is
//! read from the kernel's account of *its* process, so that a client which is slower than the
//! server does not change the figure by much; it is built to be faster all the same.
//!
//! The modes are in `echo.rs`, `idle.rs`, `handshake.rs`, `http.rs` and `fanout.rs`; what they share is in
//! `client.rs`, `messages.rs`, `reader.rs` and `process.rs`. TLS is in `stream.rs`.

#![expect(
    clippy::cast_precision_loss,
    reason = "counts become ratios; 52 bits of a counter are enough for any run"
)]

mod args;
mod client;
mod deflate;
mod echo;
mod fanout;
mod handshake;
mod histogram;
mod http;
mod idle;
mod json;
mod messages;
mod process;
mod reader;
mod stream;

use std::io;
use std::process::ExitCode;

use args::{Args, Mode};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("load: {error}\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    match args.mode {
        Mode::Echo => echo::run(args),
        Mode::Idle => idle::run(args),
        Mode::Handshake => handshake::run(args),
        Mode::Http => http::run(args),
        Mode::Fanout => fanout::run(args),
    }
}
