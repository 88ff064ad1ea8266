"""Requests without WebSocket: `GET` of five bytes on connections that stay open. What runs them is run.py."""

import statistics

from tables import figures, median, number, relative, share, summary, table, worst

# The measure of the others', and hyper without a framework around it.
BASE = "axum"
SERVERS = [BASE, "tidewire", "hyper"]
PATH = "/ping"
BYTES = 5
# Connections, with one request under way on each.
CELLS = [1, 64, 512]


def measure(bench):
    ratios = {}
    for connections in cells(bench.options.cells):
        arguments = ["--connections", str(connections), "--bytes", str(BYTES), "--spin"]
        results = bench.rounds("http", bench.all(arguments + bench.times()))
        least = figures(results.get(BASE), "cpu_ns_per_request")
        rows = {}
        for name, runs in results.items():
            if spent := figures(runs, "cpu_ns_per_request"):
                ratio = relative(statistics.median, least, spent)
                ratios.setdefault(name, {})[str(connections)] = ratio
                rows[name] = [number(statistics.median(spent)), number(min(spent))]
                rows[name] += [number(1e9 / statistics.median(spent)), ratio]
                rows[name] += [relative(min, least, spent), median(runs, "requests_per_second")]
                rows[name] += [median(runs, "p50_us"), median(runs, "p99_us")]
                rows[name] += [share(runs, "server_busy"), share(runs, "client_busy"), worst(runs)]
        columns = ["CPU ns/request", "min", "per CPU s", f"{BASE} = 1", "by min", "requests/s"]
        columns += ["p50 µs", "p99 µs", "server busy", "load busy", "disturbed"]
        table(f"`GET` of {BYTES} bytes, connections: {connections}", columns, rows)
    summary(f"Requests per CPU second, {BASE} = 1", ratios)


def cells(text):
    return [int(cell) for cell in text.split(",")] if text else CELLS
