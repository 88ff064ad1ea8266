#!/usr/bin/env python3
"""Measures tidewire beside its peers and prints Markdown. How and what for: README.md.

Builds nothing and ends only what it started. Servers run on one core, the load on another, or with
--threads both wherever the kernel lets them; within a round every server takes its turn, so that
whatever else the machine does meets all of them.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import blocked
import deflate
import fanout
import gets
import handshake
from tables import disturbance, figures, median, number, relative, share, summary, table, worst

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers" / "target" / "release"
EXAMPLES = HERE.parent / "target" / "release" / "examples"
LIMIT = "raw_epoll"
SERVERS = [
    LIMIT,
    "tidewire",
    "tide_websockets",
    "async_tungstenite_std",
    "async_tungstenite_forward",
    "axum",
    "fastwebsockets",
    "tokio_websockets",
    "yawc",
    "yawc_batched",
    "uwebsockets",
]
# Cells that have a name.
NAMED = {
    # Those with a target: most of what there is to know.
    "targets": ["64x16x1", "64x16x32", "1000x16x1", "64x1024x32", "1x16x1", "64x65536x1"],
    # What becomes of a message's cost with the number of connections.
    "growth": ["10x16x1", "100x16x1", "1000x16x1", "9000x16x1"],
}
SIZES = {16: "16 B", 1024: "1 KiB", 65_536: "64 KiB", 1_048_576: "1 MiB"}
# Where system calls are counted unless `--cells` says otherwise.
CALL_CELLS = ["64x16x32", "64x16x1", "1x16x1"]
# What can be measured instead of messages.
MODES = ["calls", "strace", "idle", "handshake", "http", "blocked"]
# More than this on the way at once measures the memory, not the server.
MOST_UNDER_WAY = 1 << 30
# Seconds a program may take to say its next line, beyond what it was asked to run.
PATIENCE = 30
# The most that may be disturbed of a run that is not repeated. A server's own threads wait for each
# other as well, a few per cent; a compiler beside it takes half.
DISTURBED = 0.1


@dataclass(frozen=True)
class Cell:
    connections: int
    size: int
    in_flight: int

    @classmethod
    def parse(cls, text):
        return cls(*map(int, text.split("x")))

    @property
    def under_way(self):
        return self.connections * self.size * self.in_flight

    def options(self):
        options = ["--connections", str(self.connections), "--bytes", str(self.size)]
        options += ["--in-flight", str(self.in_flight)]
        # A client that sleeps makes the server pay for waking its core, and sleeps the more the
        # slower the server is: two costs that are not the server's.
        return [*options, "--spin"]

    def __str__(self):
        size = SIZES.get(self.size, f"{self.size} B")
        return f"{self.connections} × {size} × {self.in_flight}"


GRID = [Cell(c, b, f) for f in (32, 1) for b in SIZES for c in (1, 64, 1000)]


class Failure(Exception):
    """A program did not do its part; the run goes on without that figure."""


def line_of(process, stream, patience):
    """The next line of a program, or a failure when it takes too long."""
    ready, _, _ = select.select([stream], [], [], patience)
    line = stream.readline() if ready else ""
    if not line:
        raise Failure(f"{Path(process.args[0]).name}: no answer (exit code {process.poll()})")
    return line.strip()


@contextlib.contextmanager
def started(command, **options):
    """A program that does not outlive the block."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # A program that went first leaves a broken pipe.
                with contextlib.suppress(OSError):
                    stream.close()


class Bench:
    def __init__(self, options, certificate):
        self.options = options
        self.certificate = certificate
        self.paths = {name: Path(options.peers, binary) for name, binary in self.binaries().items()}
        example = Path(options.tidewire or EXAMPLES / ("tls" if options.tls else "conformance"))
        self.paths |= {name: example for name, path in self.paths.items() if path.name == "tidewire"}
        for extra in options.add or []:
            name, _, path = extra.partition("=")
            self.paths[name] = Path(path)
        self.servers = self.choose()

    def binaries(self):
        if self.options.http:
            return {name: name for name in gets.SERVERS}
        if self.options.fanout:
            return fanout.binaries(self.options.deflate)
        if self.options.deflate:
            return deflate.binaries(self.options.level)
        return {name: name for name in (handshake.TLS_ROUTES if self.options.tls else SERVERS)}

    def choose(self):
        names = self.options.servers.split(",") if self.options.servers else list(self.paths)
        if unknown := [name for name in names if name not in self.paths]:
            sys.exit(f"no server called {', '.join(unknown)}; there are {', '.join(self.paths)}")
        missing = [name for name in names if not self.paths[name].exists()]
        for name in missing:
            note(f"{name} is not built: {self.paths[name]}")
        return [name for name in names if name not in missing]

    @contextlib.contextmanager
    def server(self, name):
        """A fresh server; yields its process and address."""
        command = [*self.pinned(self.options.server_core), self.paths[name], "127.0.0.1:0"]
        family = fanout if self.options.fanout else deflate
        if self.options.deflate and family.server(name).takes_level:
            command.append(str(self.options.level))
        command += self.certificate
        with started(command, env=self.environment(), stdout=subprocess.PIPE) as process:
            line = line_of(process, process.stdout, PATIENCE)
            found = re.match(r"listening on https?://(\S+)$", line)
            if not found:
                raise Failure(f"{name}: first line {line!r}")
            yield process, found[1]

    def environment(self):
        """Tells a server, whichever it is, how many threads it has."""
        threads = str(self.options.threads)
        names = ["PEER_THREADS", "TIDEWIRE_WORKERS", "ASYNC_GLOBAL_EXECUTOR_THREADS"]
        environment = os.environ | dict.fromkeys(names, threads)
        if self.options.workers == "default":
            del environment["TIDEWIRE_WORKERS"]
        elif self.options.workers:
            environment["TIDEWIRE_WORKERS"] = self.options.workers
        return environment

    def pinned(self, core):
        """The start of a command that stays on a core; one with more threads goes where it likes."""
        return ["taskset", "-c", core] if self.options.threads == 1 else []

    def load(self, mode, server, address, arguments):
        command = [*self.pinned(self.options.load_core), Path(self.options.peers, "load"), mode]
        command += ["--address", address, "--path", self.options.path, "--pid", str(server.pid)]
        # Of an option given twice the last one counts: some arguments bring a path of their own.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return started(command + arguments, **pipes)

    def measure(self, mode, name, arguments, beside=contextlib.nullcontext):
        """One run of the load against a fresh server, whose address `beside` gets for what it does meanwhile."""
        with self.server(name) as (server, address), beside(address):
            with self.load(mode, server, address, arguments) as load:
                # The load has its own patience, which tells more when it ends.
                patience = 4 * PATIENCE + self.options.seconds
                result = json.loads(line_of(load, load.stdout, patience))
        return result | {"disturbed": disturbance(result, self.options.threads == 1)}

    def attempt(self, mode, name, arguments):
        """One run, recorded; `None` if it failed, which has been noted."""
        try:
            result = self.measure(mode, name, arguments)
        except Failure as failure:
            note(f"{name}: {failure}")
            return None
        record(self.options, name, result)
        return result

    def rounds(self, mode, arguments, beside=contextlib.nullcontext):
        """What every server did in each round: `{name: [result, …]}`; `arguments` by name as well."""
        results = {name: [] for name in arguments}
        names = list(arguments)
        for number in range(self.options.rounds):
            # Each round begins with another server, so that none is always first.
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                try:
                    result = self.quietest(mode, name, arguments[name], beside)
                except Failure as failure:
                    note(f"{name}, round {number + 1}: {failure}")
                    continue
                results[name].append(result)
                record(self.options, name, result)
        return results

    def quietest(self, mode, name, arguments, beside):
        """Measures again while something else takes the cores; returns the least disturbed run."""
        best = None
        for _ in range(1 + self.options.retries):
            result = self.measure(mode, name, arguments, beside)
            if best is None or result["disturbed"] < best["disturbed"]:
                best = result
            if best["disturbed"] < DISTURBED:
                break
        return best

    def all(self, arguments):
        return dict.fromkeys(self.servers, arguments)

    def times(self):
        return ["--seconds", str(self.options.seconds), "--warm-up", str(self.options.warm_up)]

    def cells(self):
        if cells := self.options.cells:
            return [Cell.parse(text) for text in NAMED.get(cells) or cells.split(",")]
        for cell in GRID:
            if cell.under_way > MOST_UNDER_WAY:
                print(f"Skipped: {cell}, {cell.under_way / (1 << 30):.0f} GiB on the way at once.\n")
        return [cell for cell in GRID if cell.under_way <= MOST_UNDER_WAY]

    def echo(self):
        ratios = {}
        for cell in self.cells():
            results = self.rounds("echo", self.all(cell.options() + self.times()))
            columns = ["CPU ns/message", "min", f"per CPU s, {LIMIT} = 1", "by min"]
            columns += ["messages/s", "p50 µs", "p99 µs", "server busy", "load busy", "disturbed"]
            rows = {}
            limit = figures(results.get(LIMIT), "cpu_ns_per_message")
            for name, runs in results.items():
                spent = figures(runs, "cpu_ns_per_message")
                if not spent:
                    continue
                ratio = relative(statistics.median, limit, spent)
                ratios.setdefault(name, {})[str(cell)] = ratio
                rows[name] = [number(statistics.median(spent)), number(min(spent))]
                rows[name] += [ratio, relative(min, limit, spent)]
                rows[name] += [median(runs, "messages_per_second"), median(runs, "p50_us")]
                rows[name] += [median(runs, "p99_us"), share(runs, "server_busy")]
                rows[name] += [share(runs, "client_busy")]
                rows[name] += [worst(runs)]
            table(f"{cell} in flight", columns, rows)
        summary(f"Messages per CPU second, {LIMIT} = 1", ratios)

    def handshake(self):
        handshake.measure(self, LIMIT)

    def http(self):
        gets.measure(self)

    def blocked(self):
        for cell in self.few_cells():
            blocked.measure(self, cell)

    def idle(self):
        count = self.options.idle_connections or 5000
        rows = {}
        for name in self.servers:
            if result := self.attempt("idle", name, ["--connections", str(count)]):
                rows[name] = [number(result[key]) for key in
                              ("bytes_per_connection", "bytes_per_used_connection", "rss_used")]
        columns = ["bytes/connection, just upgraded", "after one echo", "whole RSS"]
        table(f"Resident memory of {count} idle connections", columns, rows)

    def strace(self):
        """Which calls: exact counts, of a server that tracing slows down."""
        for cell in self.few_cells():
            rows = {}
            for name, (messages, report) in self.traced(strace, cell):
                calls = parse_strace(report)
                most = sorted(calls.items(), key=lambda call: -call[1])[:6]
                each = ", ".join(f"{call} {count / messages:.3g}" for call, count in most)
                rows[name] = [per_message(sum(calls.values()), messages), each]
            table(f"System calls per message under strace, {cell} in flight", ["calls", "of which"], rows)

    def calls(self):
        """How many calls: perf counts them at full speed, but does not know which."""
        for cell in self.few_cells():
            rows = {}
            for name, (messages, report) in self.traced(perf, cell):
                rows[name] = [per_message(parse_perf(report), messages)]
            table(f"System calls per message at full speed, {cell} in flight", ["calls"], rows)

    def few_cells(self):
        return self.cells() if self.options.cells else list(map(Cell.parse, CALL_CELLS))

    def traced(self, tracer, cell):
        for name in self.servers:
            try:
                traced = self.trace(tracer, name, cell)
            except Failure as failure:
                note(f"{name}: {failure}")
            else:
                yield name, traced

    def trace(self, tracer, name, cell):
        """How many messages were echoed while the tracer looked, and its report."""
        messages = max(cell.connections * cell.in_flight * 100, 10_000)
        arguments = cell.options() + ["--gate", "--messages", str(messages)]
        with tempfile.NamedTemporaryFile("r") as report, self.server(name) as (server, address):
            with self.load("echo", server, address, arguments) as load:
                line_of(load, load.stdout, PATIENCE)
                with started(tracer(report.name, server.pid), stderr=subprocess.DEVNULL) as process:
                    # Neither tracer says when it has attached to the last thread.
                    time.sleep(1)
                    if process.poll() is not None:
                        raise Failure(f"{process.args[0]} ended with {process.returncode}")
                    go_on(load)
                    line_of(load, load.stdout, 4 * PATIENCE)
                    process.send_signal(signal.SIGINT)
                    process.wait(PATIENCE)
                go_on(load)
            return messages, report.read()


def strace(report, pid):
    return ["strace", "-c", "-f", "-o", report, "-p", str(pid)]


def perf(report, pid):
    return ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", report, "-p", str(pid)]


def go_on(load):
    load.stdin.write("\n")
    load.stdin.flush()


def parse_strace(text):
    """The calls of a summary: share, seconds, µs per call, calls, perhaps errors, name."""
    rows = (line.split() for line in text.splitlines())
    rows = (row for row in rows if len(row) in (5, 6) and row[0][0].isdigit())
    return {row[-1]: int(row[3]) for row in rows if row[-1] != "total"}


def parse_perf(text):
    """The count at the start of a line, if perf may count at all."""
    count = re.search(r"^(\d+),", text, re.MULTILINE)
    return int(count[1]) if count else None


def per_message(count, messages):
    return f"{count / messages:.3f}" if count is not None else "–"


def record(options, name, result):
    if options.json:
        with open(options.json, "a", encoding="utf-8") as file:
            file.write(json.dumps({"server": name} | result) + "\n")


def note(text):
    print(f"run.py: {text}", file=sys.stderr, flush=True)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", help=f"some of {','.join(SERVERS)}, with "
                        f"--deflate of {','.join(deflate.SERVERS)}, "
                        f"with --fanout of {','.join(fanout.SERVERS)}, "
                        f"with --tls of {','.join(handshake.TLS_ROUTES)}, "
                        f"with --http of {','.join(gets.SERVERS)}")
    parser.add_argument("--threads", type=int, default=1, help="of each server: 1, pinned to a core as "
                        "the load is to another; with more nothing is pinned")
    parser.add_argument("--workers", help="tidewire's, if not as many as --threads: a number, or "
                        "`default` for as many as it takes by itself")
    parser.add_argument("--cells", help="CONNECTIONSxBYTESxINFLIGHT,…, `targets` or `growth`; all by "
                        "default. "
                        "With --deflate BYTESxboth|out|in[xtakeover],…, with --fanout "
                        "MEMBERSxBYTESxSENDERSxBURST[xSTUCK],… or `targets`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--retries", type=int, default=3, help="of a run that was disturbed")
    parser.add_argument("--tidewire", help="its server's binary, an example in target/ by default")
    parser.add_argument("--peers", default=str(PEERS), help="the folder of the load's and peers' binaries")
    parser.add_argument("--add", action="append", metavar="NAME=PATH", help="one more server")
    parser.add_argument("--path", help="the route that echoes, /echo, or answers --http, /ping")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--json", help="append every single result to this file")
    parser.add_argument("--idle-connections", type=int, help="5000, with --deflate 2000")
    parser.add_argument("--deflate", action="store_true", help="the cells of deflate.py, or --idle")
    parser.add_argument("--level", type=int, help="of the peers of --deflate: 6, with --fanout 1")
    parser.add_argument("--fanout", action="store_true", help="the cells of fanout.py")
    parser.add_argument("--tls", action="store_true", help="with --handshake: over TLS")
    for mode in MODES:
        parser.add_argument(f"--{mode}", action="store_true", help=f"instead of the cells: {mode}")
    return parser.parse_args()


def main():
    chosen = options()
    # Two sockets ends per connection live in two processes; each inherits this limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    modes = [mode for mode in MODES if getattr(chosen, mode)] or ["echo"]
    if chosen.fanout and modes != ["echo"]:
        sys.exit("--fanout measures fan-out, and nothing else at the same time")
    if chosen.threads < 1:
        sys.exit("--threads begins at 1")
    if chosen.http and (modes != ["http"] or chosen.fanout or chosen.deflate):
        sys.exit("--http measures requests, and nothing else at the same time")
    if chosen.path is None:
        chosen.path = gets.PATH if chosen.http else "/echo"
    if chosen.level is None:
        chosen.level = fanout.LEVEL if chosen.fanout else deflate.LEVEL
    if chosen.tls and (modes != ["handshake"] or chosen.deflate):
        sys.exit("--tls measures handshakes: --handshake --tls")
    with handshake.certificate() if chosen.tls else contextlib.nullcontext([]) as certificate:
        run(Bench(chosen, certificate), modes)


def run(bench, modes):
    if bench.options.fanout:
        return fanout.fanout(bench)
    for mode in modes:
        if not bench.options.deflate:
            getattr(bench, mode)()
        elif mode in ("echo", "idle"):
            getattr(deflate, mode)(bench)
        else:
            sys.exit(f"--deflate measures echoes, or --idle: not --{mode}")


if __name__ == "__main__":
    main()
