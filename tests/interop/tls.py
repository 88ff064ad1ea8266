"""openssl, curl and the Python client `websockets` against the TLS example."""

import asyncio
import re
import ssl
import subprocess
import tempfile
from pathlib import Path

from certificate import make_certificate
from support import Checks, Example, equal
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

MIB = 1 << 20

check = Checks("tls")


def run(*command, stdin=b""):
    return subprocess.run(command, input=stdin, capture_output=True, timeout=20)


def curl(url, *options):
    return run("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10",
               *options, url)


def s_client(addr, *options, stdin=b""):
    made = run("openssl", "s_client", "-connect", addr, "-servername", "localhost",
               *options, stdin=stdin)
    return made.stdout.decode(errors="replace") + made.stderr.decode(errors="replace")


def with_openssl(addr, certificate):
    for version in ["-tls1_2", "-tls1_3"]:
        with check(f"openssl {version}: certificate verified, http/1.1 by ALPN"):
            said = s_client(addr, version, "-CAfile", certificate, "-alpn", "h2,http/1.1")
            assert "Verify return code: 0 (ok)" in said, said
            assert "ALPN protocol: http/1.1" in said, said

    with check("openssl: a client of h2 only is told so by an alert"):
        said = s_client(addr, "-alpn", "h2")
        assert re.search(r"alert no application protocol|alert number 120", said), said

    with check("openssl: versions before 1.2 are refused"):
        said = s_client(addr, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said or "Cipher    : 0000" in said, said

    with check("openssl: the end of the stream is announced"):
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        said = s_client(addr, "-quiet", "-CAfile", certificate, "-ign_eof", stdin=request)
        assert "</p>" in said, said
        assert "unexpected eof" not in said, said


def with_curl(addr, certificate):
    port = addr.rpartition(":")[2]
    with check("curl --cacert: a page over https"):
        for host in ["localhost", "127.0.0.1"]:
            page = curl(f"https://{host}:{port}/", "--cacert", certificate)
            assert b"<h1>HTTPS and WSS" in page.stdout, page.stderr.decode()

    with check("curl without the certificate does not trust it"):
        equal(curl(f"https://{addr}/").returncode, 60)

    with check("curl: several requests over one connection, to its orderly end"):
        urls = [f"https://{addr}/"] * 3
        options = ["--cacert", certificate, "--write-out", "%{num_connects}\n"]
        said = run("curl", "--silent", "--show-error", "--noproxy", "*", *options, *urls)
        equal(re.findall(rb"(?m)(\d)$", said.stdout), [b"1", b"0", b"0"])

    with check("curl: plain http on the port is a 400 that says what to do"):
        plain = curl(f"http://{addr}/", "-i")
        assert plain.stdout.startswith(b"HTTP/1.1 400 "), plain
        assert b"https://" in plain.stdout


async def with_websockets(addr, certificate):
    context = ssl.create_default_context(cafile=certificate)
    url = f"wss://localhost:{addr.rpartition(':')[2]}/ws"

    def client(**options):
        return connect(url, ssl=context, proxy=None, max_size=None, ping_interval=None, **options)

    with check("python websockets: messages of many sizes over wss"):
        async with client() as ws, asyncio.timeout(20):
            for size in [0, 1, 125, 126, 16_384, 16_385, 65_536, MIB]:
                await ws.send("x" * size)
                equal(await ws.recv(), "Echo: " + "x" * size)
                await ws.send(b"\xff" * size)
                equal(await ws.recv(), b"\xff" * size)

    with check("python websockets: 1 000 messages in flight over wss"):
        async with client() as ws, asyncio.timeout(20):
            for number in range(1000):
                await ws.send(str(number))
            for number in range(1000):
                equal(await ws.recv(), f"Echo: {number}")

    with check("python websockets: ping, fragments and close over wss"):
        async with client() as ws, asyncio.timeout(10):
            await (await ws.ping(b"payload"))
            await ws.send(["frag", "ments"])
            equal(await ws.recv(), "Echo: fragments")
            await ws.close(4321, "enough")
            equal(ws.protocol.close_rcvd.code, 4321)

    with check("python websockets: 50 connections at once over wss"):
        async def one(number):
            async with client() as ws, asyncio.timeout(20):
                await ws.send(str(number))
                equal(await ws.recv(), f"Echo: {number}")

        await asyncio.gather(*map(one, range(50)))

    with check("python websockets: ws:// on the port fails at once"):
        try:
            async with asyncio.timeout(5), connect(f"ws://{addr}/ws", proxy=None):
                raise AssertionError("it connected")
        except InvalidMessage:
            pass
        except Exception as error:
            assert "400" in str(error), repr(error)


def own_certificate():
    with Example("tls", scheme="https") as example:
        with check("without files the example makes a certificate for this machine"):
            page = curl(f"https://{example.addr}/", "--insecure")
            assert b"<h1>HTTPS and WSS" in page.stdout, page.stderr.decode()
            said = s_client(example.addr)
            assert "self-signed certificate" in said or "self signed certificate" in said, said


with tempfile.TemporaryDirectory() as folder:
    certificate, key = make_certificate(Path(folder), "interop")
    with Example("tls", certificate, key, scheme="https") as example:
        with_openssl(example.addr, certificate)
        with_curl(example.addr, certificate)
        asyncio.run(with_websockets(example.addr, certificate))
        example.must_be_alive()
own_certificate()
check.finish()
