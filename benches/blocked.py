"""Echo while a handler blocks its thread, for a second each time. What runs it is run.py.

A framework without a way out serves nobody on that thread meanwhile. Measured is how long the others wait.
"""

import contextlib
import threading
import urllib.request

from tables import median, number, table

# Sleeps for a second without giving its thread away.
PATH = "/block"


def measure(bench, cell):
    arguments = bench.all(cell.options() + bench.times())
    # A load that spins takes a core, which is then missing where nothing is pinned.
    arguments = {name: [it for it in given if it != "--spin"] for name, given in arguments.items()}
    rows = {}
    for label, beside in [("alone", contextlib.nullcontext), ("beside a blocked thread", blocking)]:
        for name, runs in bench.rounds("echo", arguments, beside).items():
            figures = [median(runs, key) for key in ("messages_per_second", "p50_us", "p99_us")]
            rows[f"{name}, {label}"] = [*figures, number(max(run["p99_us"] for run in runs))]
    table(f"{cell} in flight", ["messages/s", "p50 µs", "p99 µs", "worst p99 µs"], rows)


@contextlib.contextmanager
def blocking(address):
    """Has one thread of the server blocked nearly all of the time."""
    over = threading.Event()

    def ask():
        while not over.is_set():
            # One that the end of the server breaks off is no failure.
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}{PATH}", timeout=5).read()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
