"""Clients that come, talk, change rooms, leave and break off at random, against the chat example.

    tests/interop/chat_soak.py [CLIENTS [SECONDS]]      2 000 clients for two minutes by default

Every client checks what it is sent: each speaker's messages in order, none twice. At the end the
server must have no connection, no member and no room left, its counters must add up, and its memory
must be what it was halfway.
"""

import asyncio
import json
import random
import resource
import socket
import struct
import sys
import time
import urllib.request
from collections import Counter

from support import Checks, Example, equal

CLIENTS, SECONDS, ROOMS = 2_000, 120.0, 40
# What memory may grow by in the second half of the time, in bytes: allocators keep some.
GROWTH = 8 << 20
OPENING = (
    "GET /ws?room={room} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

check = Checks("chat soak")
told = Counter()


class Client:
    """A WebSocket client of few words: text up to 64 KiB, masked with zeros."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.heard = {}

    async def connect(self, room):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.writer.write(OPENING.format(room=room, host=self.host).encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head.split(b"\r\n")[0], head
        self.number = told["connected"] = told["connected"] + 1
        self.said = 0
        self.reading = asyncio.create_task(self.read())

    def send(self, opcode, payload):
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        self.writer.write(bytes([0x80 | opcode]) + length + bytes(4) + payload)

    def say(self, kind, **fields):
        self.send(1, json.dumps({"type": kind, **fields}).encode())

    async def read(self):
        while True:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", await self.reader.readexactly(2))
            payload = await self.reader.readexactly(size)
            if first == 0x88:
                return struct.unpack(">H", payload[:2])[0] if payload else 1005
            if first == 0x89:
                self.send(0xA, payload)
            elif first == 0x81:
                self.hear(json.loads(payload))
            else:
                raise AssertionError(f"frame {first:#x}")

    def hear(self, message):
        told[message.get("type", "error")] += 1
        if message.get("type") != "message":
            return
        # "17:3" is the third message of the seventeenth client.
        speaker, number = map(int, message["text"].split(":"))
        assert number > self.heard.get(speaker, 0), f"{message} after {self.heard[speaker]}"
        self.heard[speaker] = number

    async def live(self, until):
        """One visit: some messages, maybe other rooms, and an end, when the time is over at the latest."""
        await self.connect(a_room())
        for _ in range(random.randint(1, 8)):
            await asyncio.sleep(min(random.expovariate(1 / 4), max(0, until - time.monotonic())))
            if self.reading.done() or time.monotonic() >= until:
                break
            if random.random() < 0.2:
                self.say("enter", room=a_room())
            else:
                self.said += 1
                self.say("message", text=f"{self.number}:{self.said}")
        await random.choice([self.close, self.close, self.vanish, self.reset])()

    async def close(self):
        self.send(8, struct.pack(">H", 1000))
        equal(await asyncio.wait_for(self.reading, 20), 1000)
        self.writer.close()

    async def vanish(self):
        """Ends the stream without a word."""
        self.reading.cancel()
        self.writer.close()

    async def reset(self):
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        await self.vanish()


def a_room():
    return f"room-{random.randrange(ROOMS)}"


async def visitor(host, port, until):
    # They do not all come at once.
    await asyncio.sleep(random.random() * min(5, until - time.monotonic()))
    while time.monotonic() < until:
        await Client(host, port).live(until)
        told["visits"] += 1


def samples(addr):
    """The server's metrics, without what their lines are about."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    lines = opener.open(f"http://{addr}/metrics", timeout=10).read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def memory(pid):
    lines = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


async def rooms(host, port):
    """What a newcomer is told of the rooms."""
    client = Client(host, port)
    answers = []
    client.hear = answers.append
    await client.connect("alone")
    client.say("rooms")
    while not (found := [answer for answer in answers if answer.get("type") == "rooms"]):
        await asyncio.sleep(0.01)
    await client.close()
    return found[0]["rooms"]


async def soak(chat, clients, seconds):
    host, port = chat.addr.split(":")
    until = time.monotonic() + seconds
    visitors = [asyncio.create_task(visitor(host, port, until)) for _ in range(clients)]

    await asyncio.sleep(seconds / 2)
    halfway = memory(chat.process.pid)
    with check("the server counts as many connections as there are clients, or fewer"):
        found = await asyncio.to_thread(samples, chat.addr)
        assert clients / 4 < found['tidewire_connections{protocol="websocket"}'] <= clients, found

    with check("everybody heard everybody in order, and was let go"):
        await asyncio.gather(*visitors)
    with check("nobody was told of an error"):
        equal(told["error"], 0)

    async with asyncio.timeout(20):
        while (await asyncio.to_thread(samples, chat.addr))['tidewire_connections{protocol="websocket"}']:
            await asyncio.sleep(0.05)
    with check("no room and no member is left"):
        equal(await rooms(host, port), [{"room": "alone", "count": 1}])
    async with asyncio.timeout(20):
        while (found := await asyncio.to_thread(samples, chat.addr))['tidewire_connections{protocol="websocket"}']:
            await asyncio.sleep(0.05)
    with check("the counters add up"):
        closes = sum(value for name, value in found.items() if name.startswith("tidewire_closes"))
        equal((closes, found["tidewire_upgrades_total"]), (told["connected"], told["connected"]))
        equal(found["tidewire_queued_bytes"], 0)
        equal(found.get('tidewire_connections{protocol="http"}'), 1)
    with check(f"memory has not grown by {GROWTH >> 20} MiB since half of the time"):
        end = memory(chat.process.pid)
        assert end - halfway < GROWTH, f"{halfway} bytes, then {end}"
    chat.must_be_alive()
    print(
        f"        {told['connected']} connections, {told['message']} messages heard, "
        f"{told['join']} joins, {told['leave']} leaves; {halfway >> 10} KiB, then {end >> 10} KiB"
    )


def main():
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Example("chat") as chat:
        asyncio.run(soak(chat, clients, seconds))
    check.finish()


if __name__ == "__main__":
    main()
