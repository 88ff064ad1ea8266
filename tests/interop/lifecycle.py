"""Servers that start, count, refuse and end, as the Python client `websockets` sees them."""

import asyncio
import re
import signal
import subprocess
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from support import TARGET, Checks, Example, equal
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CONNECTIONS = 1_000

check = Checks("python lifecycle")


def client(url, **options):
    # No proxy from the environment, and no keepalive pings between those of the checks.
    return connect(url, proxy=None, ping_interval=None, **options)


def main():
    with Example("accept") as accept:
        asyncio.run(accepting(accept))
    with Example("shutdown") as shutdown:
        asyncio.run(metrics(shutdown))
    asyncio.run(shutting_down())
    background()
    check.finish()


async def accepting(accept):
    url = f"ws://{accept.addr}/websocket"

    with check("whoever is accepted is welcomed, and echoed"):
        async with client(url) as ws, asyncio.timeout(5):
            equal(await ws.recv(), "Welcome!")
            await ws.send("Hello Server!")
            equal(await ws.recv(), "Hello Server!")
        for line in [
            "WebSocket client connected",
            "WebSocket ready",
            "Received: Hello Server!",
            "WebSocket client disconnected",
        ]:
            await asyncio.to_thread(accept.wait_for_line, line)

    with check("the handler closes at the message it likes"):
        async with client(url) as ws, asyncio.timeout(5):
            equal(await ws.recv(), "Welcome!")
            await ws.send("bye")
            try:
                await ws.recv()
            except ConnectionClosed as closed:
                equal((closed.rcvd.code, closed.rcvd.reason), (1000, "good-bye"))
            else:
                raise AssertionError("the server went on")

    with check("whoever is refused gets a status and no connection"):
        try:
            async with client(url, user_agent_header="BadBot/1.0"):
                raise AssertionError("the server upgraded")
        except InvalidStatus as refused:
            equal(refused.response.status_code, 403)

    with check("every other path is the page"):
        for path in ["/", "/some/where"]:
            answer = await asyncio.to_thread(get, f"http://{accept.addr}{path}")
            equal(answer.read().decode(), "<h1>WebSocket Server</h1>")
            assert answer.headers["content-type"].startswith("text/html")


async def metrics(shutdown):
    with check("Prometheus reads the metrics"):
        async with client(f"ws://{shutdown.addr}/ws") as ws, asyncio.timeout(5):
            await ws.send("one")
            await ws.recv()
        async with client(f"ws://{shutdown.addr}/ws") as ws, asyncio.timeout(5):
            await ws.send("two")
            await ws.recv()
            await ws.ping()
            answer = await asyncio.to_thread(get, f"http://{shutdown.addr}/metrics")
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }
        for name, value in {
            ("tidewire_upgrades_total",): 2,
            ("tidewire_connections", "websocket"): 1,
            ("tidewire_messages_total", "in"): 2,
            ("tidewire_messages_total", "out"): 2,
            ("tidewire_closes_total", "1000"): 1,
            ("tidewire_responses_total", "1xx"): 2,
        }.items():
            equal((name, samples.get(name)), (name, value))
        equal({family.type for family in families}, {"counter", "gauge"})
        assert all(family.documentation for family in families)


async def shutting_down():
    with check(f"SIGTERM under {CONNECTIONS} connections: each gets 1001, and the exit code is 0"):
        with Example("shutdown") as server:
            opening = [client(f"ws://{server.addr}/ws") for _ in range(CONNECTIONS)]
            sockets = [socket for batch in batches(opening, 100)
                       for socket in await asyncio.gather(*batch)]
            for ws in sockets[::10]:
                await ws.send("still here")
                equal(await ws.recv(), "still here")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                await asyncio.gather(*(ws.wait_closed() for ws in sockets))
                code = await asyncio.to_thread(server.process.wait, 10)
            took = time.monotonic() - began
            equal({ws.close_code for ws in sockets}, {1001})
            equal(code, 0)
            assert took < 10, f"{took:.1f} s, the grace period is 10 s"
            line = f"{CONNECTIONS} closed, 0 lost, 0 dropped"
            await asyncio.to_thread(server.wait_for_line, line)
            print(f"        {line}, {took:.1f} s after the signal")


def background():
    with check("a server in the background serves the program it is in, and ends with it"):
        binary = TARGET / "release" / "examples" / "background"
        run = subprocess.run([binary], timeout=10, text=True, capture_output=True, check=True)
        first, *rest = run.stdout.splitlines()
        assert first.startswith("listening on http://127.0.0.1:"), first
        serving, *rest = rest
        assert re.fullmatch(r"serving ws://127\.0\.0\.1:[1-9]\d*/ws", serving), serving
        equal(rest, ["Received: Hello from the foreground!", "Server ended"])


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def get(url):
    # No proxy from the environment.
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5)


if __name__ == "__main__":
    main()
