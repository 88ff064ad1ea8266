"""The programs under test: built, started on a free port, stopped by their process id."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


class Example:
    """A release build of `examples/NAME.rs`, serving on 127.0.0.1 at a port of its own choice."""

    def __init__(self, name):
        self.name = name
        self.lines = []

    def __enter__(self):
        binary = TARGET / "release" / "examples" / self.name
        if not binary.exists():
            sys.exit(f"{binary} is missing: cargo build --release --examples")
        self.process = subprocess.Popen(
            [binary, "127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        first = queue.Queue()
        threading.Thread(target=self._read, args=(first,), daemon=True).start()
        try:
            line = first.get(timeout=10)
        except queue.Empty:
            line = "nothing within 10 s"
        if not line.startswith("listening on http://127.0.0.1:"):
            self.process.kill()
            sys.exit(f"{self.name}: the first line should tell the address, but was: {line}")
        self.addr = line.removeprefix("listening on http://").strip()
        return self

    def _read(self, first):
        # The pipe is read to its end, or a server that prints much would stall.
        for line in self.process.stdout:
            if not self.lines:
                first.put(line)
            self.lines.append(line.rstrip("\n"))
        first.put("end of output")

    def must_be_alive(self):
        if (code := self.process.poll()) is not None:
            sys.exit(f"{self.name} ended during the run, exit code {code}")

    def __exit__(self, *_):
        """SIGTERM ends an example with exit code 0."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            sys.exit(f"{self.name} did not end within 10 s after SIGTERM")
        if code != 0:
            sys.exit(f"{self.name} ended with exit code {code} after SIGTERM")
