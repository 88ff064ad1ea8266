//! The log of a process, as a user keeps it: by a subscriber of `tracing`, or by a logger of `log`.

use std::io;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use tidewire::{RequestContext, Server};

/// Level, and target with text, of all records so far. The text has the fields.
static LINES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Keeps all records from now on, by a logger of `log`.
pub(crate) fn keep_by_log() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(LevelFilter::Trace);
}

/// Keeps all records from now on, by a subscriber of `tracing`.
pub(crate) fn keep_by_tracing() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .without_time()
        .with_ansi(false)
        .with_writer(|| Writer);
    subscriber.init();
}

/// The records so far.
pub(crate) fn lines() -> Vec<(String, String)> {
    LINES.lock().unwrap().clone()
}

/// A route that answers with the records of this crate as JSON: level and text.
pub(crate) fn show_at(server: &mut Server, path: &str) {
    server.get(path, |_: RequestContext| async {
        let mut lines = lines();
        lines.retain(|(_, text)| text.starts_with("tidewire"));
        Ok(serde_json::to_string(&lines)?)
    });
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = format!("{}: {}", record.target(), record.args());
        LINES.lock().unwrap().push((record.level().to_string(), text));
    }

    fn flush(&self) {}
}

/// The subscriber writes one record at a time.
struct Writer;

impl io::Write for Writer {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(record.to_vec()).unwrap();
        let text = text.strip_suffix('\n').unwrap();
        let (level, text) = text.trim_start().split_once(' ').unwrap();
        LINES.lock().unwrap().push((level.to_owned(), text.to_owned()));
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
