"""The Python client `websockets` against the example servers."""

import asyncio

from support import Checks, Example, equal
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

MIB = 1 << 20

check = Checks("python websockets")


def client(url, **options):
    # No proxy from the environment, and no keepalive pings between those of the checks.
    return connect(url, proxy=None, max_size=None, ping_interval=None, **options)


async def main(conformance, echo, frames):
    url = f"ws://{conformance.addr}/echo"
    await messages(url)
    await pings(url, frames)
    await closing(url, f"ws://{conformance.addr}/default", frames)
    await handshakes(url)
    await echo_example(echo)


async def messages(url):
    for name, message in {
        "text": "Grüße, 世界 🌊",
        "binary": bytes(range(256)),
        "an empty text": "",
        "an empty binary message": b"",
        "125 bytes": b"x" * 125,
        "126 bytes": b"x" * 126,
        "65 535 bytes": b"x" * 65_535,
        "65 536 bytes": b"x" * 65_536,
        "1 MiB of text": "é" * (MIB // 2),
        "1 MiB of bytes": bytes(range(256)) * (MIB // 256),
        "16 MiB": bytes(16 * MIB),
    }.items():
        with check(f"{name} comes back"):
            async with client(url) as ws, asyncio.timeout(20):
                await ws.send(message)
                equal(await ws.recv(), message)

    with check("fragments come back as one message"):
        async with client(url) as ws, asyncio.timeout(5):
            await ws.send(["frag", "", "ments ", "\u00e9"])
            equal(await ws.recv(), "fragments \u00e9")
            await ws.send([b"\x00" * 70_000, b"\x01" * 70_000])
            equal(await ws.recv(), b"\x00" * 70_000 + b"\x01" * 70_000)

    with check("1 000 messages in flight come back in order"):
        async with client(url) as ws, asyncio.timeout(10):
            for number in range(1000):
                await ws.send(f"message {number}")
            for number in range(1000):
                equal(await ws.recv(), f"message {number}")

    with check("an offer of compression is declined"):
        async with client(url, compression="deflate") as ws, asyncio.timeout(5):
            equal(ws.protocol.extensions, [])
            await ws.send("a" * 1000)
            equal(await ws.recv(), "a" * 1000)


async def pings(url, frames):
    with check("a ping is answered with its payload"):
        async with client(url) as ws, asyncio.timeout(5):
            for payload in [b"", b"payload", bytes(125)]:
                await (await ws.ping(payload))

    with check("a pong that nobody asked for is taken"):
        async with client(f"ws://{frames.addr}/ws") as ws, asyncio.timeout(5):
            await ws.pong(b"unsolicited")
            await asyncio.to_thread(frames.wait_for_line, "Pong received")

    with check("a ping is answered between fragments"):
        async with client(url) as ws, asyncio.timeout(5):
            ponged = asyncio.Event()

            async def fragments():
                yield "before"
                await (await ws.ping(b"between"))
                ponged.set()
                yield " and after"

            await ws.send(fragments())
            assert ponged.is_set()
            equal(await ws.recv(), "before and after")


async def closing(url, default_url, frames):
    for code, reason in [(1000, ""), (1000, "done"), (1001, "going away"), (4321, "ours, é")]:
        with check(f"close {code} {reason!r} is answered with {code}"):
            async with client(url) as ws, asyncio.timeout(5):
                await ws.close(code, reason)
                equal(ws.protocol.close_rcvd.code, code)
                assert ws.protocol.close_rcvd_then_sent is False

    with check("the server learns code and reason"):
        async with client(f"ws://{frames.addr}/ws") as ws, asyncio.timeout(5):
            await ws.close(4000, "from python")
        await asyncio.to_thread(
            frames.wait_for_line, "Closed by the client: 4000 from python"
        )

    for name, target, message, as_text, code in [
        ("a message above the limit", default_url, bytes(MIB + 1), False, 1009),
        ("text that is not UTF-8", url, b"\xce\xba\xff", True, 1007),
    ]:
        with check(f"{name} is refused with {code} and a reason"):
            async with client(target) as ws, asyncio.timeout(5):
                try:
                    await ws.send(message, text=as_text)
                    await ws.recv()
                    raise AssertionError("the server took it")
                except ConnectionClosed as closed:
                    equal(closed.rcvd.code, code)
                    assert closed.rcvd.reason, "no reason"


async def handshakes(url):
    with check("a page of another site is refused with 403"):
        try:
            async with client(url, origin="http://elsewhere.example"):
                raise AssertionError("the server took it")
        except InvalidStatus as refused:
            equal(refused.response.status_code, 403)

    with check("a page of the same site connects"):
        async with client(url, origin=url.replace("ws:", "http:").removesuffix("/echo")) as ws:
            await ws.send("hi")
            equal(await ws.recv(), "hi")

    with check("an unknown route is a 404"):
        try:
            async with client(url.replace("/echo", "/nowhere")):
                raise AssertionError("the server took it")
        except InvalidStatus as refused:
            equal(refused.response.status_code, 404)


async def echo_example(echo):
    with check("the echo example prints what happens"):
        async with client(f"ws://{echo.addr}/ws") as ws, asyncio.timeout(5):
            await ws.send("from python")
            equal(await ws.recv(), "from python")
        for line in [
            "WebSocket client connected",
            "Received: from python",
            "WebSocket client disconnected",
        ]:
            await asyncio.to_thread(echo.wait_for_line, line)


with Example("conformance") as conformance, Example("echo") as echo, Example("frames") as frames:
    asyncio.run(main(conformance, echo, frames))
check.finish()
