"""Cells and servers of fan-out: what some say goes to everybody. What runs them is run.py."""

import statistics
import sys
from dataclasses import dataclass

from tables import figures, median, number, share, summary, table, worst

SIZES = {16: "16 B", 1024: "1 KiB"}
# Of the JSON that is said with --deflate.
JSON_SIZES = {256: "256 B", 1024: "1 KiB"}
# At which peers compress unless `--level` says otherwise: that of tidewire's default options.
LEVEL = 1


@dataclass(frozen=True)
class Server:
    """A program, and the route at which everybody is in one room."""

    binary: str
    route: str = "/room"
    # Is the level its second argument?
    takes_level: bool = False


SERVERS = {
    "raw": Server("fanout_raw"),
    "tidewire": Server("tidewire"),
    "axum": Server("fanout_axum"),
    "axum_batched": Server("fanout_axum", "/room-batched"),
    "sockudo": Server("fanout_sockudo"),
    "sockudo_batched": Server("fanout_sockudo", "/room-batched"),
    "async_tungstenite": Server("fanout_async_tungstenite"),
}
DEFLATE = "/room-deflate"
COMPRESSED = {
    "tidewire": Server("tidewire", DEFLATE),
    "sockudo": Server("fanout_sockudo", DEFLATE, takes_level=True),
    "sockudo_batched": Server("fanout_sockudo", f"{DEFLATE}-batched", takes_level=True),
    "yawc": Server("fanout_yawc", DEFLATE, takes_level=True),
    "yawc_batched": Server("fanout_yawc", f"{DEFLATE}-batched", takes_level=True),
    "yawc_pooled": Server("fanout_yawc", f"{DEFLATE}-pooled", takes_level=True),
    "yawc_pooled_batched": Server("fanout_yawc", f"{DEFLATE}-pooled-batched", takes_level=True),
    # For scale: the same messages, and nobody compresses them.
    "tidewire_plain": Server("tidewire"),
}
# Those to which nobody is compared, for they are no peers or do less.
OURS = ["raw", "tidewire", "tidewire_plain"]


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

    def options(self, route, is_json=False):
        options = ["--connections", str(self.members), "--bytes", str(self.size), "--path", route]
        options += ["--senders", str(self.senders), "--in-flight", str(self.burst)]
        options += ["--json"] if is_json else []
        options += ["--deflate", "both"] if route.startswith(DEFLATE) else []
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
COMPRESSED_GRID = [
    Cell(members, size, 1, burst) for burst in (1, 32) for size in JSON_SIZES for members in (100, 1000)
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


def binaries(compressed):
    """The program of every server."""
    return {name: server.binary for name, server in (COMPRESSED if compressed else SERVERS).items()}


def server(name, compressed=True):
    """One that was added on the command line has the usual route."""
    if compressed:
        return COMPRESSED.get(name, Server(name, DEFLATE))
    return SERVERS.get(name, Server(name))


def cells(text, compressed):
    if text == "targets" and not compressed:
        return TARGETS
    if text:
        return [Cell.parse(cell) for cell in text.split(",")]
    return COMPRESSED_GRID if compressed else GRID


def fanout(bench):
    spent, ratios = {}, {}
    compressed = bench.options.deflate
    for cell in cells(bench.options.cells, compressed):
        routes = {name: server(name, compressed).route for name in bench.servers}
        options = {name: cell.options(route, compressed) for name, route in routes.items()}
        arguments = {name: mine + bench.times() for name, mine in options.items()}
        results = {name: runs for name, runs in bench.rounds("fanout", arguments).items() if runs}
        best = best_peer(results, statistics.median), best_peer(results, min)
        rows = {}
        for name, runs in results.items():
            costs = figures(runs, "cpu_ns_per_delivery")
            each = statistics.median(costs), min(costs)
            ratio = [f"{least / cost:.2f}" if least else "–" for cost, least in zip(each, best)]
            rows[name] = [number(each[0]), number(each[1]), *ratio]
            rows[name] += [median(runs, "wire_in"), median(runs, "wire_out")] if compressed else []
            rows[name] += [median(runs, "deliveries_per_second"), median(runs, "p50_us")]
            rows[name] += [median(runs, "p99_us"), share(runs, "server_busy"), worst(runs)]
            spent.setdefault(name, {})[str(cell)] = rows[name][0]
            ratios.setdefault(name, {})[str(cell)] = ratio[0]
        columns = ["CPU ns/delivery", "min", "per CPU s, best peer = 1", "by min"]
        columns += ["bytes in", "bytes out"] if compressed else []
        columns += ["deliveries/s", "p50 µs", "p99 µs", "server busy", "disturbed"]
        size = (SIZES | JSON_SIZES).get(cell.size, f"{cell.size} B")
        size = f"JSON of {size}" if compressed else size
        stuck = f", and {cell.stuck} who never read" if cell.stuck else ""
        title = f"{size} to {cell.members} members{stuck}; {cell.senders} × {cell.burst} at once"
        table(title, columns, rows)
    if compressed:
        summary("CPU ns per delivery", spent)
    summary("Deliveries per CPU second, best peer = 1", ratios)


def best_peer(results, of):
    """The least CPU time per delivery among the others; builds added by hand are none of them."""
    peers = [name for name in results if name in SERVERS | COMPRESSED and name not in OURS]
    return min((of(figures(results[name], "cpu_ns_per_delivery")) for name in peers), default=None)
