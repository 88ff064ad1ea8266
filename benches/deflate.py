"""Cells and servers with permessage-deflate (RFC 7692). What runs them is run.py."""

import statistics
import sys
from dataclasses import dataclass

from tables import figures, median, number, share, summary, table, worst

# The same in every cell: enough at a time to show who writes answers together, and few enough
# connections that the contexts of those who keep one for each are not all that is measured.
CONNECTIONS, IN_FLIGHT = 16, 4
SIZES = {256: "256 B", 1024: "1 KiB", 16_384: "16 KiB"}
DIRECTIONS = {
    "both": "compressed both ways",
    "out": "plain in, compressed out",
    "in": "compressed in, plain out",
}
IDLE_BYTES = 1024
# At which peers compress unless `--level` says otherwise: zlib's default.
LEVEL = 6


@dataclass(frozen=True)
class Server:
    """A program, and its routes without and with context takeover."""

    binary: str
    off: str | None = "/echo-deflate"
    on: str | None = "/echo-takeover"
    # Routes that inflate and answer plain, for the direction `in`.
    plain_off: str | None = None
    plain_on: str | None = None
    # Is the level its second argument?
    takes_level: bool = False

    def route(self, takeover, direction="both"):
        if direction == "in":
            return self.plain_on if takeover else self.plain_off
        return self.on if takeover else self.off


LEVELS = {"takes_level": True}
PLAIN = {"plain_off": "/plain-deflate", "plain_on": "/plain-takeover"}
BATCHED = ("/batched-deflate", "/batched-takeover")
SERVERS = {
    "tidewire": Server("tidewire", off="/default-deflate"),
    "yawc": Server("yawc_deflate", **PLAIN, **LEVELS),
    "yawc_batched": Server("yawc_deflate", *BATCHED, **LEVELS),
    "yawc_pooled": Server("yawc_deflate", "/pooled-deflate", None, **LEVELS),
    "sockudo": Server("sockudo_deflate", **PLAIN, **LEVELS),
    "sockudo_batched": Server("sockudo_deflate", *BATCHED, **LEVELS),
    # Its contexts of their own have 9 bits whatever one asks for (README.md), so without takeover only.
    "uwebsockets": Server("uwebsockets", on=None, plain_off="/plain-deflate"),
}


@dataclass(frozen=True)
class Cell:
    size: int
    direction: str
    takeover: bool

    @classmethod
    def parse(cls, text):
        size, _, rest = text.partition("x")
        direction, _, takeover = rest.partition("x")
        if not size.isdigit() or direction not in DIRECTIONS or takeover not in ("", "takeover"):
            sys.exit(f"no cell called {text}: BYTESxDIRECTION or BYTESxDIRECTIONxtakeover")
        return cls(int(size), direction, bool(takeover))

    def options(self, route):
        options = ["--json", "--bytes", str(self.size), "--deflate", self.direction, "--path", route]
        options += ["--connections", str(CONNECTIONS), "--in-flight", str(IN_FLIGHT), "--spin"]
        return [*options, "--takeover"] if self.takeover else options

    def __str__(self):
        return f"{SIZES.get(self.size, f'{self.size} B')}, {self.direction}, {context(self.takeover)}"


WAYS = [(takeover, way) for takeover in (False, True) for way in ("both", "out")]
GRID = [Cell(size, way, takeover) for takeover, way in WAYS for size in SIZES]


def context(takeover):
    return "takeover" if takeover else "no takeover"


def binaries(level):
    """The program of every server; uWebSockets knows no level but zlib's default."""
    names = [name for name in SERVERS if name != "uwebsockets" or level == LEVEL]
    return {name: SERVERS[name].binary for name in names}


def server(name):
    """One that was added on the command line has the usual routes."""
    return SERVERS.get(name, Server(name))


def cells(text):
    return [Cell.parse(cell) for cell in text.split(",")] if text else GRID


def echo(bench):
    spent, ratios, answers = {}, {}, {}
    for cell in cells(bench.options.cells):
        routes = {name: server(name).route(cell.takeover, cell.direction) for name in bench.servers}
        arguments = {name: cell.options(route) + bench.times() for name, route in routes.items() if route}
        results = {name: runs for name, runs in bench.rounds("echo", arguments).items() if runs}
        best = best_peer(results, statistics.median), best_peer(results, min)
        rows = {}
        for name, runs in results.items():
            costs = figures(runs, "cpu_ns_per_message")
            each = statistics.median(costs), min(costs)
            ratio = [f"{cost / least:.2f}" if least else "–" for cost, least in zip(each, best)]
            rows[name] = [f"{each[0] / 1000:.2f}", f"{each[1] / 1000:.2f}", *ratio]
            rows[name] += [median(runs, "wire_in"), median(runs, "wire_out")]
            rows[name] += [median(runs, "messages_per_second"), median(runs, "p50_us")]
            rows[name] += [median(runs, "p99_us"), share(runs, "server_busy"), worst(runs)]
            spent.setdefault(name, {})[str(cell)] = rows[name][0]
            ratios.setdefault(name, {})[str(cell)] = ratio[0]
            answers.setdefault(name, {})[context(cell.takeover)] = f"`{runs[0]['extensions']}`"
        columns = ["CPU µs/message", "min", "best peer = 1", "by min", "bytes in", "bytes out"]
        columns += ["messages/s", "p50 µs", "p99 µs", "server busy", "disturbed"]
        size = SIZES.get(cell.size, f"{cell.size} B")
        title = f"JSON of {size}, {DIRECTIONS[cell.direction]}, {context(cell.takeover)}"
        table(f"{title}; {CONNECTIONS} connections × {IN_FLIGHT} in flight", columns, rows)
    summary("CPU µs per message", spent)
    summary("CPU time per message, best peer = 1", ratios)
    both = [context(takeover) for takeover in (False, True)]
    rows = {name: [answer.get(key, "–") for key in both] for name, answer in answers.items()}
    table("Answers to the offer", both, rows)


def best_peer(results, of):
    """The least CPU time per message among the others; builds added by hand are none of them."""
    peers = [name for name in results if name in SERVERS and name != "tidewire"]
    return min((of(figures(results[name], "cpu_ns_per_message")) for name in peers), default=None)


def idle(bench):
    count = bench.options.idle_connections or 2000
    for takeover in (False, True):
        rows = {}
        for name in bench.servers:
            if not (route := server(name).route(takeover)):
                continue
            arguments = ["--json", "--bytes", str(IDLE_BYTES), "--deflate", "both", "--path", route]
            arguments += ["--connections", str(count)] + (["--takeover"] if takeover else [])
            if result := bench.attempt("idle", name, arguments):
                rows[name] = [number(result[key]) for key in
                              ("bytes_per_connection", "bytes_per_used_connection", "rss_used")]
        columns = ["bytes/connection, just upgraded", "after one echo", "whole RSS"]
        title = f"Resident memory of {count} idle connections with deflate, {context(takeover)}"
        table(title, columns, rows)
