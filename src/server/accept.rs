//! The accept loop of one listener, which no error ends.
//!
//! It knows sockets only; `http/` serves them.

use std::io::{self, ErrorKind};
use std::time::Duration;

use super::capacity::Capacity;
use super::listener::Listener;
use crate::escaped::Escaped;
use crate::http::Addrs;
use crate::records::record;
use crate::runtime::yield_now;
use crate::stream::Stream;

/// Connections accepted in a row, before the other listeners of the same task have their turn.
const CONNECTIONS_PER_TURN: u32 = 32;

/// Accepts connections without end, at most as many at once as the server has capacity for. Each goes to
/// `serve`, which must not block.
///
/// An error delays this listener only.
pub(super) async fn accept_from(
    listener: &Listener,
    capacity: &Capacity,
    serve: impl Fn(Stream, Addrs),
) -> ! {
    let mut backoff = Backoff::default();
    let mut accepted: u32 = 0;
    loop {
        match listener.accept_within(capacity).await {
            Ok(outcome) => {
                backoff = Backoff::default();
                if let Ok((stream, addrs)) = outcome {
                    serve(stream, addrs);
                }
                accepted = accepted.wrapping_add(1);
                if accepted % CONNECTIONS_PER_TURN == 0 {
                    yield_now().await;
                }
            }
            Err(error) => {
                if let Some(pause) = backoff.after(&error) {
                    record!(
                        warn,
                        "cannot accept connections",
                        next_try_in = pause,
                        error = Escaped(&error)
                    );
                    capacity.make_room();
                    let clock = capacity.clock();
                    clock.timer(clock.after(pause)).await;
                }
            }
        }
    }
}

/// The pauses of a listener after errors.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The pause after `error`; `None` if the error does not concern the next connection.
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        if concerns_one_connection(error.kind()) {
            return None;
        }
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(Self::LONGEST);
        Some(pause)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

/// Whether the error is about the one connection that accept(2) would have returned.
///
/// All other errors are taken for a lack of resources, such as EMFILE, ENFILE, ENOBUFS and ENOMEM. The
/// connection then stays in the queue, and another try at once would spin.
fn concerns_one_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpStream;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::http::ServerOptions;
    use crate::server::listener;
    use crate::server::listener::TcpOptions;

    #[test]
    fn after_32_connections_the_other_listeners_have_their_turn() {
        let socket = listener::tcp(([127, 0, 0, 1], 0).into(), TcpOptions::default()).unwrap();
        let listener = Listener::tcp(socket).unwrap();
        let addr = listener.local_addr().as_tcp().unwrap();
        let crowd: Vec<_> = (0..40).map(|_| TcpStream::connect(addr).unwrap()).collect();

        let capacity = Capacity::new(&ServerOptions::default(), Arc::default());
        let accepted = Cell::new(0);
        let mut accepting =
            pin!(accept_from(&listener, &capacity, |_, _| accepted.set(accepted.get() + 1)));
        let mut cx = Context::from_waker(Waker::noop());
        for so_far in [32, 40] {
            assert!(accepting.as_mut().poll(&mut cx).is_pending());
            assert_eq!(accepted.get(), so_far);
        }
        drop(crowd);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lack_of_resources_pauses_for_5_ms_doubling_up_to_a_second() {
        const EMFILE: i32 = 24;
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = std::iter::repeat_with(|| io::Error::from_raw_os_error(EMFILE))
            .take(10)
            .filter_map(|error| backoff.after(&error))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_errors_of_one_connection_are_passed_over_without_a_pause() {
        let pause = |code| Backoff::default().after(&io::Error::from_raw_os_error(code));
        let [lacking, single] = [[12, 23, 24, 105].as_slice(), &[4, 103, 104]];
        assert!(
            lacking.iter().all(|code| pause(*code).is_some()),
            "ENOMEM, ENFILE, EMFILE, ENOBUFS"
        );
        assert!(
            single.iter().all(|code| pause(*code).is_none()),
            "EINTR, ECONNABORTED, ECONNRESET"
        );
    }
}
