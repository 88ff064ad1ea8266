"""Cells and servers of fan-out: what some say goes to everybody. What runs them is run.py."""

import statistics
import sys
from dataclasses import dataclass

from tables import figures, median, number, share, summary, table, worst

SIZES = {16: "16 B", 1024: "1 KiB"}


@dataclass(frozen=True)
class Server:
    """A program, and the route at which everybody is in one room."""

    binary: str
    route: str = "/room"


SERVERS = {
    "raw": Server("fanout_raw"),
    "tidewire": Server("tidewire"),
    "axum": Server("fanout_axum"),
    "axum_batched": Server("fanout_axum", "/room-batched"),
    "sockudo": Server("fanout_sockudo"),
    "sockudo_batched": Server("fanout_sockudo", "/room-batched"),
    "async_tungstenite": Server("fanout_async_tungstenite"),
}


@dataclass(frozen=True)
class Cell:
    members: int
    size: int
    senders: int
    burst: int
    stuck: int = 0

    @classmethod
    def parse(cls, text):
        words = text.split("x")
        if len(words) not in (4, 5) or not all(map(str.isdigit, words)):
            sys.exit(f"no cell called {text}: MEMBERSxBYTESxSENDERSxBURST, or with xSTUCK")
        return cls(*map(int, words))

    def options(self, route):
        options = ["--connections", str(self.members), "--bytes", str(self.size), "--path", route]
        options += ["--senders", str(self.senders), "--in-flight", str(self.burst)]
        return [*options, "--stuck", str(self.stuck), "--spin"]

    def __str__(self):
        text = f"{self.members} × {self.size} B, {self.senders} × {self.burst}"
        return f"{text}, {self.stuck} stuck" if self.stuck else text


GRID = [
    Cell(members, size, senders, burst)
    for burst in (1, 32)
    for size in SIZES
    for members in (10, 1000, 5000)
    for senders in (1, 8)
]
TARGETS = [
    Cell(10, 16, 1, 1),
    Cell(1000, 16, 1, 1),
    Cell(1000, 1024, 1, 1),
    Cell(1000, 16, 1, 32),
    Cell(1000, 1024, 8, 16),
    # One per cent who never read, beside the same without them.
    Cell(990, 1024, 1, 8),
    Cell(990, 1024, 1, 8, 10),
]


def binaries():
    """The program of every server."""
    return {name: server.binary for name, server in SERVERS.items()}


def cells(text):
    if text == "targets":
        return TARGETS
    return [Cell.parse(cell) for cell in text.split(",")] if text else GRID


def fanout(bench):
    ratios = {}
    for cell in cells(bench.options.cells):
        routes = {name: SERVERS.get(name, Server(name)).route for name in bench.servers}
        arguments = {name: cell.options(route) + bench.times() for name, route in routes.items()}
        results = {name: runs for name, runs in bench.rounds("fanout", arguments).items() if runs}
        best = best_peer(results, statistics.median), best_peer(results, min)
        rows = {}
        for name, runs in results.items():
            costs = figures(runs, "cpu_ns_per_delivery")
            each = statistics.median(costs), min(costs)
            ratio = [f"{least / cost:.2f}" if least else "–" for cost, least in zip(each, best)]
            rows[name] = [number(each[0]), number(each[1]), *ratio]
            rows[name] += [median(runs, "deliveries_per_second"), median(runs, "p50_us")]
            rows[name] += [median(runs, "p99_us"), share(runs, "server_busy"), worst(runs)]
            ratios.setdefault(name, {})[str(cell)] = ratio[0]
        columns = ["CPU ns/delivery", "min", "per CPU s, best peer = 1", "by min", "deliveries/s"]
        columns += ["p50 µs", "p99 µs", "server busy", "disturbed"]
        size = SIZES.get(cell.size, f"{cell.size} B")
        stuck = f", and {cell.stuck} who never read" if cell.stuck else ""
        title = f"{size} to {cell.members} members{stuck}; {cell.senders} × {cell.burst} at once"
        table(title, columns, rows)
    summary("Deliveries per CPU second, best peer = 1", ratios)


def best_peer(results, of):
    """The least CPU time per delivery among the others; builds added by hand are none of them."""
    peers = [name for name in results if name in SERVERS and name not in ("tidewire", "raw")]
    return min((of(figures(results[name], "cpu_ns_per_delivery")) for name in peers), default=None)
