"""The `client` example against servers that nobody here wrote: Python `websockets`, node `ws`."""

import contextlib
import http
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from certificate import make_certificate
from support import TARGET, Checks, equal
from websockets.sync.server import serve

HERE = Path(__file__).resolve().parent
CLIENT = TARGET / "release" / "examples" / "client"
TEXTS = ["Hello, Server!", "Grüße ✓", "x" * 100_000]

check = Checks("client")


def client(url, *options, lines=TEXTS):
    said = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        [CLIENT, url, *options], input=said, text=True, capture_output=True, timeout=20
    )


def echoes(run):
    assert run.returncode == 0, run
    equal(run.stdout.splitlines(), [f"Received: {text}" for text in TEXTS])


def against(server, url):
    for options in [[], ["--deflate"]]:
        with check(f"{server} sends everything back {' '.join(options)}"):
            echoes(client(url, *options))

    with check(f"{server} agrees on a subprotocol"):
        run = client(url, "--subprotocol", "soap", "--subprotocol", "chat")
        echoes(run)
        assert "connected, speaking chat" in run.stderr, run.stderr

    with check(f"{server} sees a header, and refuses without it"):
        echoes(client(f"{url}secret", "--header", "X-Token: 42"))
        run = client(f"{url}secret")
        equal(run.returncode, 1)
        equal(run.stderr, "no connection to the server: the server answered 401 instead of 101\n")

    with check(f"{server} says why it closes"):
        run = client(url, lines=["close"])
        equal(run.returncode, 0)
        assert "closed by the server: 4001 as you wish" in run.stderr, run.stderr


@contextlib.contextmanager
def websockets(**options):
    """A server of the Python library; yields its port."""

    def refuse(connection, request):
        if request.path == "/secret" and request.headers.get("X-Token") != "42":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you?\n")
        return None

    def echo(ws):
        for message in ws:
            if message == "close":
                return ws.close(4001, "as you wish")
            ws.send(message)

    with serve(
        echo, "127.0.0.1", 0, process_request=refuse, subprotocols=["chat"],
        select_subprotocol=lambda _, offered: "chat" if "chat" in offered else None, **options,
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
        server.shutdown()


@contextlib.contextmanager
def node():
    """A server of the node library; yields its port."""
    with subprocess.Popen(
        ["node", HERE / "node_server.mjs"], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        line = process.stdout.readline()
        port = re.fullmatch(r"listening on (\d+)\n", line)
        assert port, line
        yield int(port[1])
        process.terminate()


def encrypted():
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(Path(folder), "localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with websockets(ssl=context) as port:
            url = f"wss://localhost:{port}/"
            with check("websockets behind TLS sends everything back"):
                echoes(client(url, "--insecure"))
            with check("a certificate that nobody has issued is refused"):
                run = client(url)
                equal(run.returncode, 1)
                assert run.stderr.startswith(
                    "no connection to the server: the TLS handshake with localhost failed: "), run.stderr


def main():
    if not CLIENT.exists():
        sys.exit(f"{CLIENT} is missing: cargo build --release --examples")
    with websockets() as port:
        against("websockets", f"ws://127.0.0.1:{port}/")
    with node() as port:
        against("node ws", f"ws://127.0.0.1:{port}/")
    encrypted()
    with check("nobody at the port is told"):
        run = client("ws://127.0.0.1:1/")
        equal(run.returncode, 1)
        assert "cannot connect to 127.0.0.1:1: " in run.stderr, run.stderr
    check.finish()


if __name__ == "__main__":
    main()
