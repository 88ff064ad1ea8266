"""The Python client `websockets` against the example servers."""

import asyncio
import json
import random
import zlib

from support import Checks, Example, equal
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

MIB = 1 << 20

check = Checks("python websockets")


def client(url, **options):
    # No proxy from the environment, and no keepalive pings between those of the checks.
    return connect(url, proxy=None, max_size=None, ping_interval=None, **options)


async def main(conformance, echo, frames, deflate):
    url = f"ws://{conformance.addr}/echo"
    await messages(url)
    await pings(url, frames)
    await closing(url, f"ws://{conformance.addr}/default", frames)
    await handshakes(url)
    await echo_example(echo)
    await compression(f"ws://{conformance.addr}")
    await no_compression(f"ws://{conformance.addr}")
    await broken_compression(f"ws://{conformance.addr}")
    await deflate_example(f"ws://{deflate.addr}/ws")


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


# -- permessage-deflate (RFC 7692) ----------------------------------------------------------------

DEFLATE_ROUTES = ["/default-deflate", "/echo-deflate", "/echo-takeover"]

OFFERS = {
    "its default offer": {},
    "no context takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "takeover by the server": {"client_no_context_takeover": True},
    "takeover by the client": {"server_no_context_takeover": True},
    "a window that it cannot limit": {"client_max_window_bits": None},
} | {
    f"windows of {bits} bits": {"server_max_window_bits": bits, "client_max_window_bits": bits}
    for bits in range(9, 16)
}

TICKS = json.dumps([{"symbol": "TIDE", "price": n * n % 997, "volume": n} for n in range(2000)])

# One after the other over one connection, each with those before it as its context.
SERIES = [
    "x", b"x", "", b"", "Grüße, 世界 🌊", bytes(range(256)), TICKS[:300], TICKS[:300], TICKS,
    random.Random(7692).randbytes(70_000), "x" * 65_535, b"x" * 65_536, TICKS.encode(),
    "é" * (MIB // 2), bytes(range(64)) * (MIB // 64), "", "the end",
]
SERIES_BYTES = sum(len(m if isinstance(m, bytes) else m.encode()) for m in SERIES)


class Counted(ClientConnection):
    """A connection that counts the bytes it gets."""

    received = 0

    def data_received(self, data):
        self.received += len(data)
        super().data_received(data)

    async def echo(self, message):
        """Has a message sent back; the number of bytes in which it came."""
        before = self.received
        await self.send(message)
        equal(await self.recv(), message)
        return self.received - before


def deflating(url, **offer):
    extensions = [ClientPerMessageDeflateFactory(**offer)] if offer else None
    return client(url, extensions=extensions, create_connection=Counted)


async def compression(base):
    for path in DEFLATE_ROUTES:
        for name, offer in OFFERS.items():
            with check(f"{path} compresses with {name}"):
                async with deflating(base + path, **offer) as ws, asyncio.timeout(20):
                    agrees(ws, path, offer)
                    came = 0
                    for message in SERIES:
                        came += await ws.echo(message)
                    # A window of 9 bits makes it 332 000, one of 15 bits 130 000.
                    assert came < SERIES_BYTES / 5, f"{SERIES_BYTES} came as {came}"

        with check(f"{path} refers to earlier messages exactly if that was agreed"):
            async with deflating(base + path) as ws, asyncio.timeout(5):
                [once, again] = [await ws.echo(TICKS[:2000]) for _ in range(2)]
                if path == "/default-deflate":
                    equal(again, once)
                else:
                    assert again < once / 4, (once, again)

        with check(f"{path} compresses fragments, and 200 messages in flight"):
            async with deflating(base + path) as ws, asyncio.timeout(10):
                await ws.send(["frag", "", "ments ", "é" * 1000])
                equal(await ws.recv(), "fragments " + "é" * 1000)
                messages = [TICKS[n : 4 * n] for n in range(200)]
                for message in messages:
                    await ws.send(message)
                for message in messages:
                    equal(await ws.recv(), message)


def agrees(ws, path, offer):
    """Is what was agreed on what was offered, and what the options of the route add?"""
    [agreed] = ws.protocol.extensions
    apart = path == "/default-deflate"
    equal(
        {
            "server_no_context_takeover": agreed.remote_no_context_takeover,
            "client_no_context_takeover": agreed.local_no_context_takeover,
            "server_max_window_bits": agreed.remote_max_window_bits,
            "client_max_window_bits": agreed.local_max_window_bits,
        },
        {
            "server_no_context_takeover": apart or offer.get("server_no_context_takeover", False),
            "client_no_context_takeover": apart or offer.get("client_no_context_takeover", False),
            "server_max_window_bits": offer.get("server_max_window_bits", 15),
            "client_max_window_bits": offer.get("client_max_window_bits") or 15,
        },
    )


async def no_compression(base):
    for path in DEFLATE_ROUTES:
        with check(f"{path} serves a client that offers no compression"):
            uncompressed = client(base + path, compression=None, create_connection=Counted)
            async with uncompressed as ws, asyncio.timeout(20):
                assert "Sec-WebSocket-Extensions" not in ws.response.headers
                came = 0
                for message in SERIES:
                    came += await ws.echo(message)
                assert came > SERIES_BYTES, f"{SERIES_BYTES} came as {came}"


    # zlib cannot compress with it, neither ours nor that of anybody else.
    with check("an offer that wants a window of 8 bits from the server is declined"):
        async with deflating(f"{base}/echo-deflate", server_max_window_bits=8) as ws:
            assert "Sec-WebSocket-Extensions" not in ws.response.headers
            await ws.echo("not compressed")


async def broken_compression(base):
    binary, text = Opcode.BINARY, Opcode.TEXT
    for name, path, frames, code in [
        ("data that is not DEFLATE", "/default-deflate", [(binary, b"\x07\xff", True)], 1007),
        (
            "compressed data that is cut short", "/default-deflate",
            [(binary, deflated(TICKS.encode())[:5000], True)], 1007,
        ),
        (
            "compressed text that is not UTF-8", "/default-deflate",
            [(text, deflated(b"\xce\xba\xff"), True)], 1007,
        ),
        (
            "64 MiB that were compressed to 64 KiB", "/default-deflate",
            [(binary, deflated(bytes(64 * MIB)), True)], 1009,
        ),
        (
            "RSV1 on a continuation", "/default-deflate",
            [(binary, b"", False), (Opcode.CONT, deflated(b"x"), True)], 1002,
        ),
        ("RSV1 without compression", "/default", [(binary, deflated(b"x"), True)], 1002),
    ]:
        with check(f"{name} is refused with {code} and a reason"):
            async with deflating(base + path) as ws, asyncio.timeout(5):
                # From here on the frames are ours.
                ws.protocol.extensions = []
                try:
                    async with ws.send_context():
                        for number, (opcode, data, rsv1) in enumerate(frames, start=1):
                            fin = number == len(frames)
                            frame = UncheckedFrame(opcode, data, fin=fin, rsv1=rsv1)
                            ws.protocol.send_frame(frame)
                    await ws.recv()
                    raise AssertionError("the server took it")
                except ConnectionClosed as closed:
                    equal(closed.rcvd.code, code)
                    assert closed.rcvd.reason, "no reason"


class UncheckedFrame(Frame):
    def check(self):
        pass


def deflated(data):
    """A message as it is on the wire: one that ends with an empty block, less that block's end."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\x00\x00\xff\xff"
    )


async def deflate_example(url):
    for compression, saves in [("deflate", True), (None, False)]:
        with check(f"the deflate example tells what was agreed and saved, if {compression}"):
            async with client(url, compression=compression) as ws, asyncio.timeout(5):
                agreed = ws.response.headers.get("Sec-WebSocket-Extensions", "no compression")
                equal(await ws.recv(), agreed)
                equal(agreed.startswith("permessage-deflate"), saves)
                await ws.send(TICKS)
                equal(await ws.recv(), TICKS)
                await ws.send("stats")
                stats = json.loads(await ws.recv())
                equal(stats["payload_bytes_in"], len(TICKS + "stats"))
                equal(stats["payload_bytes_out"], len(agreed + TICKS))
                for way in ["in", "out"]:
                    wire, payload = stats[f"wire_bytes_{way}"], stats[f"payload_bytes_{way}"]
                    equal(wire < payload / 2, saves)

    with check("the deflate example sends its secret uncompressed"):
        async with client(url, create_connection=Counted) as ws, asyncio.timeout(5):
            assert (await ws.recv()).startswith("permessage-deflate")
            before = ws.received
            await ws.send("login " + "a" * 1000)
            answer = await ws.recv()
            assert answer.startswith("Welcome aaa"), answer
            assert ws.received - before > len(answer)


with (
    Example("conformance") as conformance,
    Example("echo") as echo,
    Example("frames") as frames,
    Example("deflate") as deflate,
):
    asyncio.run(main(conformance, echo, frames, deflate))
check.finish()
