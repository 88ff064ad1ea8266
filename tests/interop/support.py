"""What the interoperability scripts share: the programs under test, and checks that are counted."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# Another build of the examples than the release one, for who works on these scripts.
EXAMPLES = Path(os.environ.get("EXAMPLES", TARGET / "release" / "examples")).resolve()


class Example:
    """A build of `examples/NAME.rs`, serving on 127.0.0.1 at a port of its own choice."""

    def __init__(self, name, *arguments, scheme="http", addr="127.0.0.1:0"):
        self.name, self.arguments, self.scheme, self.wanted = name, arguments, scheme, addr
        self.lines = []

    def __enter__(self):
        binary = EXAMPLES / self.name
        if not binary.exists():
            sys.exit(f"{binary} is missing: cargo build --release --examples")
        self.process = subprocess.Popen(
            [binary, self.wanted, *self.arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        first = queue.Queue()
        threading.Thread(target=self._read, args=(first,), daemon=True).start()
        try:
            line = first.get(timeout=10)
        except queue.Empty:
            line = "nothing within 10 s"
        listening = f"listening on {self.scheme}://"
        if not line.startswith(f"{listening}127.0.0.1:"):
            self.process.kill()
            sys.exit(f"{self.name}: the first line should tell the address, but was: {line}")
        self.addr = line.removeprefix(listening).strip()
        return self

    def _read(self, first):
        # The pipe is read to its end, or a server that prints much would stall.
        for line in self.process.stdout:
            if not self.lines:
                first.put(line)
            self.lines.append(line.rstrip("\n"))
        first.put("end of output")

    def wait_for_line(self, line, seconds=5):
        """Waits until the server has printed the line."""
        wait_until(lambda: line in self.lines, f"{self.name} prints {line!r}", seconds)

    def must_be_alive(self):
        if (code := self.process.poll()) is not None:
            sys.exit(f"{self.name} ended during the run, exit code {code}")

    def __exit__(self, *_):
        """SIGTERM ends an example with exit code 0."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            sys.exit(f"{self.name} did not end within 15 s after SIGTERM")
        if code != 0:
            sys.exit(f"{self.name} ended with exit code {code} after SIGTERM")


class Checks:
    """Named checks; each one runs whatever became of those before it."""

    def __init__(self, peer):
        self.peer, self.passed, self.failed = peer, 0, 0

    @contextlib.contextmanager
    def __call__(self, name):
        try:
            yield
        except Exception:
            self.failed += 1
            print(f"FAILED  {self.peer}: {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            self.passed += 1
            print(f"ok      {self.peer}: {name}", flush=True)

    def finish(self):
        """Ends the program: with the line the runner counts, and exit code 1 if a check failed."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def equal(was, expected):
    assert was == expected, f"was {was!r}, expected {expected!r}"


def wait_until(is_true, what, seconds=5):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
