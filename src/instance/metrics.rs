//! A snapshot of a server's counters, for programs and for [Prometheus].
//!
//! [Prometheus]: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

#[cfg(feature = "server")]
use super::Instance;
use super::Sockets;
#[cfg(feature = "server")]
use crate::runtime::WorkerStats;

/// A snapshot of a server's counters: its state at one moment, and sums since it was bound.
///
/// To take it, each open connection is locked for a moment, one after another. That is cheap enough for every
/// few seconds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections accepted from the kernel, without those that were turned away.
    pub accepted: u64,
    /// Connections that were closed as soon as they were accepted, because their address had as many as
    /// [`max_connections_per_address`](crate::server::ServerOptions::max_connections_per_address) allows.
    pub turned_away: u64,
    /// HTTP connections that were closed between requests, or before their first, to make room for others
    /// ([`max_connections`](crate::server::ServerOptions::max_connections)).
    pub made_room: u64,
    /// Open connections that speak HTTP.
    pub open_http: usize,
    /// Open WebSocket connections.
    pub open_websockets: usize,
    /// Opening handshakes that were completed.
    pub upgraded: u64,
    /// Opening handshakes that were refused, by [`HandshakeError::name`](crate::HandshakeError::name).
    pub refused: BTreeMap<&'static str, u64>,
    /// WebSocket connections that have ended, by code: that of the first close frame, 1005 for a
    /// close frame without one, 1006 for an end without a close frame (RFC 6455 §7.1.5).
    pub closes: BTreeMap<u16, u64>,
    /// Messages received over WebSocket connections.
    pub messages_in: u64,
    /// Messages sent over WebSocket connections.
    pub messages_out: u64,
    /// Bytes read from upgraded connections, frame headers included.
    pub wire_bytes_in: u64,
    /// Bytes written to upgraded connections, frame headers included.
    pub wire_bytes_out: u64,
    /// Bytes that were sent by handlers, and that the streams of open WebSocket connections have not taken yet.
    pub queued_bytes: usize,
    /// Bytes that WebSocket connections hold for messages in progress, as counted by
    /// [`ServerOptions::message_memory`](crate::server::ServerOptions::message_memory).
    pub message_bytes: usize,
    /// The limit on these bytes; `None` for no limit.
    pub message_bytes_limit: Option<usize>,
    /// The number of times that a WebSocket connection had to wait because this limit was reached.
    pub message_pauses: u64,
    /// WebSocket connections that were closed with 1013 because they held most of these bytes.
    pub message_closes: u64,
    /// HTTP responses by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 5],
    /// The [workers](crate::server::ServerOptions::workers) of the server, until it has ended.
    pub workers: Vec<WorkerMetrics>,
    /// Whether the server shuts down.
    pub is_shutting_down: bool,
}

/// One worker of a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Tasks that have not ended: one for each connection, those of handlers and of broadcasts, and one that accepts.
    pub tasks: usize,
    /// Connections that have not ended, over HTTP and WebSocket.
    pub connections: usize,
    /// Tasks of these that wait for their turn.
    pub queued: usize,
    /// The number of times that a task blocked the thread for 20 ms, so that another thread went on.
    pub stalls: u64,
}

#[cfg(feature = "server")]
impl From<WorkerStats> for WorkerMetrics {
    fn from(WorkerStats { tasks, connections, queued, stalls, .. }: WorkerStats) -> Self {
        Self { tasks, connections, queued, stalls }
    }
}

impl Metrics {
    /// Those of WebSocket connections; all others are zero.
    pub(crate) fn of_sockets(sockets: &Sockets) -> Self {
        let budget = sockets.budget().map(|budget| budget.figures());
        let held = budget.unwrap_or_default();
        let (totals, open_websockets) = sockets.totals();
        Self {
            open_websockets,
            upgraded: totals.connections,
            refused: sockets.refused(),
            closes: totals.closes,
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            wire_bytes_in: totals.wire_bytes_in,
            wire_bytes_out: totals.wire_bytes_out,
            queued_bytes: totals.queued_bytes,
            message_bytes: held.held,
            message_bytes_limit: budget.map(|budget| budget.limit),
            message_pauses: held.pauses,
            message_closes: held.closed,
            is_shutting_down: sockets.is_shutting_down(),
            ..Self::default()
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            accepted: instance.counters.accepted(),
            turned_away: instance.counters.turned_away(),
            made_room: instance.idle.closed(),
            open_http: instance.counters.open_http(),
            responses: instance.counters.responses(),
            workers: instance.tasks.workers().into_iter().map(WorkerMetrics::from).collect(),
            ..Self::of_sockets(&instance.sockets)
        }
    }

    /// Writes the metrics in the text format of Prometheus, version 0.0.4: `text/plain; version=0.0.4`.
    ///
    /// [`metrics`](crate::server::metrics) is a handler that answers with it.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::with_capacity(2048);
        // Writing to a string cannot fail.
        let _ = self.write_prometheus(&mut text);
        text
    }

    fn write_prometheus(&self, text: &mut String) -> fmt::Result {
        let direction = |incoming, outgoing| [("in", incoming), ("out", outgoing)];
        let open = [("http", self.open_http), ("websocket", self.open_websockets)];
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(self.responses);
        let messages = direction(self.messages_in, self.messages_out);
        let bytes = direction(self.wire_bytes_in, self.wire_bytes_out);

        counter(text, "accepted", "Connections accepted.")?;
        sample(text, "accepted_total", self.accepted)?;
        counter(text, "turned_away", "Connections closed since their address had too many.")?;
        sample(text, "turned_away_total", self.turned_away)?;
        counter(text, "made_room", "Idle HTTP connections closed to make room for others.")?;
        sample(text, "made_room_total", self.made_room)?;
        gauge(text, "connections", "Open connections, by protocol.")?;
        samples(text, "connections", "protocol", open)?;
        counter(text, "responses", "HTTP responses, by class of status.")?;
        samples(text, "responses_total", "class", classes)?;
        counter(text, "upgrades", "Opening handshakes completed.")?;
        sample(text, "upgrades_total", self.upgraded)?;
        counter(text, "refusals", "Opening handshakes refused, by reason.")?;
        samples(text, "refusals_total", "reason", &self.refused)?;
        counter(text, "closes", "WebSocket connections that have ended, by close code.")?;
        samples(text, "closes_total", "code", &self.closes)?;
        counter(text, "messages", "WebSocket messages, by direction.")?;
        samples(text, "messages_total", "direction", messages)?;
        counter(text, "wire_bytes", "Bytes of WebSocket connections, by direction.")?;
        samples(text, "wire_bytes_total", "direction", bytes)?;
        gauge(text, "queued_bytes", "Bytes sent that WebSocket connections have not taken yet.")?;
        sample(text, "queued_bytes", self.queued_bytes)?;
        gauge(
            text,
            "message_bytes",
            "Bytes that WebSocket connections hold for messages in progress.",
        )?;
        sample(text, "message_bytes", self.message_bytes)?;
        if let Some(limit) = self.message_bytes_limit {
            gauge(
                text,
                "message_bytes_limit",
                "Bytes that WebSocket connections may hold for messages in progress.",
            )?;
            sample(text, "message_bytes_limit", limit)?;
        }
        counter(
            text,
            "message_pauses",
            "Times that a WebSocket connection waited because that limit was reached.",
        )?;
        sample(text, "message_pauses_total", self.message_pauses)?;
        counter(
            text,
            "message_closes",
            "WebSocket connections closed because they held most of these bytes.",
        )?;
        sample(text, "message_closes_total", self.message_closes)?;
        self.write_workers(text)?;
        gauge(text, "shutting_down", "1 while the server shuts down, else 0.")?;
        sample(text, "shutting_down", u8::from(self.is_shutting_down))
    }

    fn write_workers(&self, text: &mut String) -> fmt::Result {
        let workers = || self.workers.iter().enumerate();
        gauge(text, "worker_tasks", "Tasks that have not ended, by worker.")?;
        samples(text, "worker_tasks", "worker", workers().map(|(number, it)| (number, it.tasks)))?;
        gauge(text, "worker_connections", "Open connections, by worker.")?;
        samples(
            text,
            "worker_connections",
            "worker",
            workers().map(|(number, it)| (number, it.connections)),
        )?;
        gauge(text, "worker_queued", "Tasks that wait for their turn, by worker.")?;
        samples(
            text,
            "worker_queued",
            "worker",
            workers().map(|(number, it)| (number, it.queued)),
        )?;
        counter(text, "worker_stalls", "Times that a task blocked its thread, by worker.")?;
        samples(
            text,
            "worker_stalls_total",
            "worker",
            workers().map(|(number, it)| (number, it.stalls)),
        )
    }
}

fn counter(text: &mut String, name: &str, help: &str) -> fmt::Result {
    // In this format a counter has the suffix `_total` everywhere.
    writeln!(text, "# HELP tidewire_{name}_total {help}")?;
    writeln!(text, "# TYPE tidewire_{name}_total counter")
}

fn gauge(text: &mut String, name: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP tidewire_{name} {help}")?;
    writeln!(text, "# TYPE tidewire_{name} gauge")
}

fn sample(text: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(text, "tidewire_{name} {value}")
}

/// Writes one line for each value of a label. Our values have no character to escape.
fn samples<L: Display, V: Display>(
    text: &mut String,
    name: &str,
    label: &str,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    for (of, value) in values {
        writeln!(text, "tidewire_{name}{{{label}=\"{of}\"}} {value}")?;
    }
    Ok(())
}
