"""nginx as reverse proxy in front of the servers, with the configuration that the documentation shows."""

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from certificate import make_certificate
from client import TEXTS, client, echoes
from support import ROOT, Checks, Example, equal, wait_until
from websockets.asyncio.client import connect

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

check = Checks("nginx")

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{encrypted} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ proxy_pass http://{upstream}; }}
        location /forgetful {{ proxy_pass http://{upstream}/ws; }}
        {documented}
    }}
}}
"""


def documented(upstream):
    """The block of the chapter on proxies, for this server."""
    chapter = (ROOT / "src" / "guide" / "proxies.md").read_text()
    block = re.search(r"# nginx\n\n```text\n(.*?)```", chapter, re.DOTALL)[1]
    assert "127.0.0.1:8080" in block, block
    return block.replace("127.0.0.1:8080", upstream)


def free_ports(count):
    # nginx does not tell which ports it was given.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def proxy(upstream):
    """nginx in front of a server; yields its ports, plain and encrypted."""
    plain, encrypted = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        # Its workers may be another user.
        Path(folder).chmod(0o755)
        certificate, key = make_certificate(Path(folder), "localhost")
        configuration = Path(folder, "nginx.conf")
        configuration.write_text(CONFIGURATION.format(
            folder=folder, plain=plain, encrypted=encrypted, upstream=upstream,
            certificate=certificate, key=key, documented=documented(upstream),
        ))
        command = [NGINX, "-p", folder, "-c", configuration]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_until(lambda: listens(plain) or process.poll() is not None, "nginx listens")
                assert process.poll() is None, process.stderr.read()
                yield plain, encrypted
            finally:
                process.terminate()


def with_client(plain, encrypted):
    with check("the client is let through"):
        echoes(client(f"ws://127.0.0.1:{plain}/ws"))
    with check("the client is let through TLS"):
        echoes(client(f"wss://localhost:{encrypted}/ws", "--insecure"))
    with check("a proxy that does not pass on Upgrade is answered with the reason"):
        run = client(f"ws://127.0.0.1:{plain}/forgetful")
        equal(run.returncode, 1)
        assert "the server answered 400 instead of 101" in run.stderr, run.stderr
    with check("HTTP goes through as well"):
        page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{plain}/", timeout=5)
        assert "new WebSocket(" in page.read().decode()


async def with_websockets(plain, encrypted):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for url, options in [
        (f"ws://127.0.0.1:{plain}/ws", {}),
        (f"wss://localhost:{encrypted}/ws", {"ssl": context}),
    ]:
        with check(f"websockets is let through, by a page of the same host: {url[:3]}"):
            origin = re.sub(r"^ws(s?://[^/]+)/.*$", r"http\1", url)
            async with connect(url, proxy=None, origin=origin, **options) as ws:
                for text in TEXTS:
                    await ws.send(text)
                    equal(await ws.recv(), text)
                await ws.send(bytes(1 << 19))
                equal(await ws.recv(), bytes(1 << 19))
            equal(ws.close_code, 1000)
    with check("a connection ends when its server does"):
        with Example("echo") as echo, proxy(echo.addr) as (port, _):
            ws = await connect(f"ws://127.0.0.1:{port}/ws", proxy=None)
            await ws.send("hello")
            equal(await ws.recv(), "hello")
            echo.process.terminate()
            await asyncio.wait_for(ws.wait_closed(), 10)
            equal(ws.close_code, 1001)


def main():
    if not Path(NGINX).exists():
        sys.exit("nginx is missing (Debian: nginx-light)")
    with Example("echo") as echo, proxy(echo.addr) as (plain, encrypted):
        with_client(plain, encrypted)
        asyncio.run(with_websockets(plain, encrypted))
    check.finish()


if __name__ == "__main__":
    main()
