"""Whole connections: connect, upgrade, one echo, close; plain or over TLS. What runs them is run.py."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tables import figures, median, number, relative, share, table, worst

# At a time.
CONNECTIONS = 64
# Over TLS, whose connections are the measure of the others'.
TLS_BASE = "axum_tls"
# Servers that speak TLS, and where each of them echoes.
TLS_ROUTES = {"tidewire": "/ws", TLS_BASE: "/echo"}
# Made here rather than by a server, so that all have the same: ECDSA on P-256.
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
NAMES = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]


@contextlib.contextmanager
def certificate():
    """What servers take after their address: a chain and its key, as files that go with the block."""
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        command = ["openssl", "req", "-x509", *CURVE, *NAMES, "-out", chain, "-keyout", key]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"openssl made no certificate: {made.stderr.strip()}")
        yield [chain, key]


def measure(bench, limit):
    results = bench.rounds("handshake", {name: arguments(bench, name) for name in bench.servers})
    base = TLS_BASE if bench.options.tls else limit
    least = figures(results.get(base), "cpu_ns_per_cycle")
    rows = {}
    for name, runs in results.items():
        if spent := figures(runs, "cpu_ns_per_cycle"):
            rows[name] = [number(statistics.median(spent)), number(min(spent))]
            rows[name] += [number(1e9 / statistics.median(spent))]
            rows[name] += [relative(of, least, spent) for of in (statistics.median, min)]
            rows[name] += [median(runs, "cycles_per_second"), share(runs, "server_busy")]
            rows[name] += [share(runs, "client_busy"), worst(runs)]
    columns = ["CPU ns", "min", "per CPU s", f"{base} = 1", "by min", "per second"]
    columns += ["server busy", "load busy", "disturbed"]
    first = "Connect, TLS 1.3 in full, upgrade" if bench.options.tls else "Connect, upgrade"
    table(f"{first}, one echo, close; {CONNECTIONS} at a time", columns, rows)


def arguments(bench, name):
    arguments = ["--connections", str(CONNECTIONS), *bench.times()]
    if bench.options.tls:
        # One that was added on the command line has the usual route.
        arguments += ["--tls", "--path", TLS_ROUTES.get(name, bench.options.path)]
    return arguments
