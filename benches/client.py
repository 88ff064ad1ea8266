#!/usr/bin/env python3
"""Measures tidewire as a client beside its peers and prints Markdown. How and what for: README.md.

The server is raw_epoll, on one core, the client on another; within a round every client takes its
turn, and each round begins with another one.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

from run import PATIENCE, PEERS, Cell, Failure, line_of, note, started
from tables import number, summary, table

# Name: program and mode.
CLIENTS = {
    "tidewire, run": ("client_tidewire", "run"),
    "tidewire, bare": ("client_tidewire", "bare"),
    "tokio-tungstenite, send": ("client_tokio_tungstenite", "send"),
    "tokio-tungstenite, feed": ("client_tokio_tungstenite", "feed"),
    "fastwebsockets": ("client_fastwebsockets", "only"),
    "tokio-websockets, send": ("client_tokio_websockets", "send"),
    "tokio-websockets, feed": ("client_tokio_websockets", "feed"),
    "yawc, send": ("client_yawc", "send"),
    "yawc, feed": ("client_yawc", "feed"),
}
BEST = "best peer = 1"
CELLS = ["64x16x32", "64x1024x32", "64x16x1", "64x65536x1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default=",".join(CELLS), help="CONNECTIONSxBYTESxINFLIGHT,…")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--peers", default=str(PEERS), help="the folder of the binaries")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--client-core", default="1")
    options = parser.parse_args()
    ratios = {}
    for cell in map(Cell.parse, options.cells.split(",")):
        spent = rounds(options, cell)
        best = min(statistics.median(runs["cpu"]) for name, runs in spent.items()
                   if not name.startswith("tidewire"))
        rows = {}
        for name, runs in spent.items():
            ratio = f"{best / statistics.median(runs['cpu']):.2f}"
            ratios.setdefault(name, {})[str(cell)] = ratio
            rows[name] = [number(statistics.median(runs["cpu"])), number(min(runs["cpu"])), ratio,
                          number(statistics.median(runs["rate"])),
                          f"{statistics.median(runs['busy']):.0%}"]
        columns = ["CPU ns/message", "min", BEST, "messages/s", "client busy"]
        table(f"{cell} in flight", columns, rows, first="client")
    summary(f"Messages per CPU second of the client, {BEST}", ratios)


def rounds(options, cell):
    spent = {}
    names = list(CLIENTS)
    for turn in range(options.rounds):
        for name in names[turn:] + names[:turn]:
            try:
                result = measure(options, cell, *CLIENTS[name])
            except (Failure, OSError) as failure:
                note(f"{name}: {failure}")
                continue
            runs = spent.setdefault(name, {"cpu": [], "rate": [], "busy": []})
            runs["cpu"].append(result["cpu_ns_per_message"])
            runs["rate"].append(result["messages_per_second"])
            runs["busy"].append(result["busy"])
    return spent


def measure(options, cell, program, mode):
    peers = Path(options.peers)
    server = ["taskset", "-c", options.server_core, peers / "raw_epoll", "127.0.0.1:0"]
    with started(server, stdout=subprocess.PIPE) as process:
        addr = line_of(process, process.stdout, PATIENCE).removeprefix("listening on http://")
        job = [f"ws://{addr}/echo", cell.connections, cell.size, cell.in_flight,
               options.seconds, options.warm_up, mode]
        command = ["taskset", "-c", options.client_core, peers / program, *map(str, job)]
        environment = os.environ | {"ASYNC_GLOBAL_EXECUTOR_THREADS": "1"}
        with started(command, env=environment, stdout=subprocess.PIPE) as client:
            patience = PATIENCE + options.seconds + options.warm_up
            return json.loads(line_of(client, client.stdout, patience))


if __name__ == "__main__":
    main()
