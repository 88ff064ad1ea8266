"""Python's `ssl` and openssl judge how TLS ends: both sides say `close_notify`, whatever the end."""

import base64
import contextlib
import hashlib
import queue
import re
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from certificate import make_certificate
from support import EXAMPLES, Checks, Example, equal

CLIENT = EXAMPLES / "client"
PATIENCE = 15

check = Checks("tls ends")


def frame(opcode, payload=b""):
    """As a client sends it, masked with zeros."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def upgrade(*lines):
    head = [
        "GET /ws HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *lines,
    ]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode()


CLOSE = frame(8, struct.pack(">H", 1000))
PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# What the client sends, and why the server then ends the connection.
SERVER_ENDS = {
    "the client closes": upgrade() + CLOSE,
    "the client breaks a rule, and never answers": upgrade() + frame(3),
    "the last response": LAST_PAGE,
    "a malformed request": b"GET  / HTTP/1.1\r\n\r\n",
    "a head that is late": b"GET /",
    "no request": b"",
}

# What the client sends before it ends TLS, or TCP, itself.
CLIENT_ENDS = {
    "an open WebSocket": upgrade(),
    "a WebSocket in the middle of a frame": upgrade() + frame(1, b"Hello")[:7],
    "a refused upgrade": upgrade("Origin: https://elsewhere.example"),
    "HTTP between requests": PAGE,
    "HTTP before the first request": b"",
}
# It is answered with a 400, which openssl does not expect behind its own close_notify.
HALF_HEAD = {"HTTP in the middle of a head": b"GET /"}


def tls(addr, version, certificate):
    """A client that takes an end without `close_notify` for an error."""
    context = ssl.create_default_context(cafile=certificate)
    context.minimum_version = context.maximum_version = version
    plain = socket.create_connection(addr, PATIENCE)
    return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def read_to_end(stream):
    """All that comes up to `close_notify`; an end without one raises SSLEOFError."""
    return b"".join(iter(lambda: stream.recv(4096), b""))


def read_answer(stream, sent):
    """The head of the answer, and the page behind it."""
    answer = b""
    while b"\r\n\r\n" in sent and b"\r\n\r\n" not in answer:
        answer += stream.recv(4096)
    length = re.search(rb"content-length: (\d+)", answer)
    while length and len(answer.partition(b"\r\n\r\n")[2]) < int(length[1]):
        answer += stream.recv(4096)
    return answer


def ends_as_python_sees_them(addr, certificate):
    for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        # All at once, for some wait for a deadline.
        streams = [tls(addr, version, certificate) for _ in SERVER_ENDS]
        for stream, sent in zip(streams, SERVER_ENDS.values()):
            stream.sendall(sent)
        for stream, end in zip(streams, SERVER_ENDS):
            with check(f"python, {version.name}: the server's end: {end}"), stream:
                read_to_end(stream)
        for end, sent in CLIENT_ENDS.items():
            with check(f"python, {version.name}: close_notify is answered: {end}"):
                with tls(addr, version, certificate) as stream:
                    stream.sendall(sent)
                    read_answer(stream, sent)
                    stream.unwrap().close()
        for end, sent in (CLIENT_ENDS | HALF_HEAD).items():
            with check(f"python, {version.name}: the end of TCP is answered: {end}"):
                with tls(addr, version, certificate) as stream:
                    stream.sendall(sent)
                    read_answer(stream, sent)
                    stream.shutdown(socket.SHUT_WR)
                    end_of_tcp(stream)


def end_of_tcp(stream):
    # `SSLSocket.shutdown` forgets TLS, so the records are read as they are: an alert is the last.
    last = 0
    while header := stream.recv(5):
        kind, _, length = struct.unpack(">BHH", header)
        body = stream.recv(length, socket.MSG_WAITALL)
        equal(len(body), length)
        last = (kind, length)
    # In TLS 1.3 an alert looks like data, but for its length (RFC 8446 §5.2).
    assert last[0] == 21 or last == (23, 19), last


def shutdown_as_python_sees_it(certificate, key):
    with Example("tls", certificate, key, scheme="https") as example:
        addr = split(example.addr)
        version = ssl.TLSVersion.TLSv1_3
        waiting, open_ws, idle = [tls(addr, version, certificate) for _ in range(3)]
        open_ws.sendall(upgrade())
        read_answer(open_ws, upgrade())
        idle.sendall(PAGE)
        read_answer(idle, PAGE)
        example.process.send_signal(signal.SIGTERM)
        for end, stream in [
            ("before the first request", waiting), ("between requests", idle),
            ("a WebSocket whose client never answers", open_ws),
        ]:
            with check(f"python: the server shuts down: {end}"):
                read_to_end(stream)


def ends_as_openssl_sees_them(addr, certificate):
    for version in ["-tls1_2", "-tls1_3"]:
        command = ["openssl", "s_client", "-connect", "{}:{}".format(*addr), version, "-quiet",
                   "-ign_eof", "-msg", "-CAfile", certificate]
        clients = []
        for sent in SERVER_ENDS.values():
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
            client.stdin.write(sent)
            client.stdin.flush()
            clients.append(client)
        for client, end in zip(clients, SERVER_ENDS):
            with check(f"openssl {version}: the server's end: {end}"), client:
                said = client.communicate(timeout=PATIENCE)[0].decode(errors="replace")
                received = [line for line in said.splitlines() if line.startswith("<<<")]
                assert "close_notify" in received[-1], said
                assert "unexpected eof" not in said, said


def split(addr):
    host, _, port = addr.rpartition(":")
    return host, int(port)


# -- the ends of a client -------------------------------------------------------------------------


def client(port):
    """The example, whose input ends at once: it closes when no answer has come for a second."""
    command = [CLIENT, f"wss://localhost:{port}/", "--insecure"]
    deadline = time.monotonic() + PATIENCE
    while True:
        run = subprocess.run(command, input="", text=True, capture_output=True, timeout=PATIENCE)
        # openssl may not listen yet.
        if "cannot connect" not in run.stderr or time.monotonic() > deadline:
            return run


def accept_key(head):
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest)


def switching(head):
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(head) + b"\r\n\r\n")


OUR_CLOSE = b"\x88\x02" + struct.pack(">H", 1000)


def answers_close(stream, head):
    stream.sendall(switching(head))
    stream.recv(8)
    stream.sendall(OUR_CLOSE)


def answers_close_and_ends(stream, head):
    answers_close(stream, head)
    stream.unwrap()


def closes(stream, head):
    stream.sendall(switching(head) + OUR_CLOSE)
    stream.recv(8)


def never_answers(stream, head):
    stream.sendall(switching(head))


def ends_tls(stream, head):
    stream.sendall(switching(head))
    stream.unwrap()


def ends_tcp(stream, head):
    stream.sendall(switching(head))
    stream.shutdown(socket.SHUT_WR)
    end_of_tcp(stream)


def breaks_a_rule(stream, head):
    stream.sendall(switching(head) + frame(1, b"Hello"))


def refuses(stream, head):
    stream.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def redirects(stream, head):
    stream.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")


def lies(stream, head):
    stream.sendall(switching(b"Sec-WebSocket-Key: another\r\n"))


def speaks_ssh(stream, head):
    stream.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


# What a server does about the client's request; the end of the stream is read behind it.
SERVERS = {
    "the server answers the close frame": answers_close,
    "the server answers the close frame and ends TLS": answers_close_and_ends,
    "the server closes": closes,
    "the server never answers the close frame": never_answers,
    "the server ends TLS": ends_tls,
    "the server ends TCP": ends_tcp,
    "the server breaks a rule": breaks_a_rule,
    "the server refuses": refuses,
    "the server sends the client elsewhere": redirects,
    "the server's key is wrong": lies,
    "the server speaks no HTTP": speaks_ssh,
}


@contextlib.contextmanager
def python_server(context, serve):
    """Serves one connection; yields the port, and what came of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    outcome = queue.Queue()

    def run():
        try:
            plain, _ = listener.accept()
            plain.settimeout(PATIENCE)
            with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += stream.recv(4096)
                serve(stream, head)
                if stream.fileno() != -1 and stream.version():
                    read_to_end(stream)
            outcome.put(None)
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    with listener:
        yield listener.getsockname()[1], outcome


def client_as_python_sees_it(certificate, key):
    for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.minimum_version = context.maximum_version = version
        for end, serve in SERVERS.items():
            with check(f"python, {version.name}: the client's end: {end}"):
                with python_server(context, serve) as (port, outcome):
                    client(port)
                    if error := outcome.get(timeout=PATIENCE):
                        raise error


def client_as_openssl_sees_it(certificate, key):
    # `-WWW` answers every request, so the client is refused; without it we answer by hand.
    for version in ["-tls1_2", "-tls1_3"]:
        with check(f"openssl {version}: the client's end: the server refuses"):
            said = s_server(certificate, key, version, "-WWW", by_hand=False)
            assert "close_notify" in said, said
        with check(f"openssl {version}: the client's end: the server answers the close frame"):
            said = s_server(certificate, key, version, by_hand=True)
            assert "close_notify" in said, said


def s_server(certificate, key, version, *options, by_hand):
    """Runs the client against `openssl s_server`; the last message that it has received."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port, messages = free.getsockname()[1], Path(folder) / "messages"
        free.close()
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1", version,
                   "-cert", certificate, "-key", key, "-msg", "-msgfile", messages, *options]
        if by_hand:
            command.append("-quiet")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder,
                              stderr=subprocess.DEVNULL, bufsize=0) as server:
            running = threading.Thread(target=client, args=(port,))
            running.start()
            if by_hand:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += server.stdout.read(4096)
                server.stdin.write(switching(head))
                server.stdout.read(8)
                server.stdin.write(OUR_CLOSE)
            running.join()
            server.wait(PATIENCE)
        received = [line for line in messages.read_text().splitlines() if line.startswith("<<<")]
        return received[-1]


with tempfile.TemporaryDirectory() as folder:
    certificate, key = make_certificate(Path(folder), "interop")
    with Example("tls", certificate, key, scheme="https") as example:
        ends_as_python_sees_them(split(example.addr), certificate)
        ends_as_openssl_sees_them(split(example.addr), certificate)
        example.must_be_alive()
    shutdown_as_python_sees_it(certificate, key)
    client_as_python_sees_it(certificate, key)
    client_as_openssl_sees_it(certificate, key)
check.finish()
