"""curl against the HTTP routes, and against WebSocket routes without a proper handshake."""

import subprocess

from support import Checks, Example, equal

check = Checks("curl")


class Answer:
    """The last answer of a curl run: status, headers with lower-case names, body."""

    def __init__(self, *arguments):
        command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "-i"]
        run = subprocess.run([*command, *arguments], capture_output=True, check=True)
        head, _, body = run.stdout.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (f.partition(":") for f in fields)}
        self.body = body.decode()


def handshake(url, **changes):
    """An opening handshake over curl; a change to None leaves the header out."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    fields = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return Answer(*[part for field in fields for part in ("-H", field)], url)


def http_routes(http_and_ws):
    url = f"http://{http_and_ws.addr}"

    with check("GET / is a page"):
        page = Answer(f"{url}/")
        equal(page.status, 200)
        assert page.headers["content-type"].startswith("text/html"), page.headers
        assert "<h1>" in page.body

    with check("HEAD / has the headers and no body"):
        page = Answer("--head", f"{url}/")
        equal(page.status, 200)
        assert int(page.headers["content-length"]) > 0
        equal(page.body, "")

    with check("GET of another path is 404 Not Found"):
        missing = Answer(f"{url}/no/such/path")
        equal((missing.status, missing.body), (404, "Not Found"))

    with check("GET of a route with state"):
        equal(Answer(f"{url}/visits").body, "0")

    with check("a method that the route has not is 405"):
        equal(Answer("--request", "DELETE", f"{url}/visits").status, 405)

    with check("a body nobody asked for does no harm to the next request"):
        options = ["--silent", "--noproxy", "*", "--max-time", "10", "-i"]
        first = Answer("--data", "x" * 100_000, f"{url}/", "--next", *options, f"{url}/visits")
        equal(first.status, 405)
        # curl goes on over the same connection if the server kept it, and prints both answers.
        assert "HTTP/1.1 200 OK" in first.body and first.body.endswith("0"), first.body

    with check("a header beyond 16 KiB is a 431"):
        equal(Answer("-H", "X-Long: " + "x" * 20_000, f"{url}/").status, 431)

    with check("a URI beyond every limit is a 414"):
        equal(Answer(f"{url}/" + "x" * 20_000).status, 414)


def refused_handshakes(conformance, echo):
    url = f"http://{conformance.addr}/echo"

    with check("a plain GET on a WebSocket route is a 400 that says why"):
        for target in [url, f"http://{echo.addr}/ws"]:
            answer = Answer(target)
            equal(answer.status, 400)
            assert answer.body.strip(), "no explanation"

    with check("a version other than 13 is a 426 that names ours"):
        for version in ["8", "12", "14"]:
            answer = handshake(url, Sec_WebSocket_Version=version)
            equal((answer.status, answer.headers["sec-websocket-version"]), (426, "13"))

    with check("a page of another site is a 403"):
        equal(handshake(url, Origin="http://elsewhere.example").status, 403)

    for name, changes in {
        "no Upgrade": {"Upgrade": None},
        "no Connection: Upgrade, as behind a proxy": {"Connection": "keep-alive"},
        "no key": {"Sec_WebSocket_Key": None},
        "a key of 15 bytes": {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25j"},
        "no version": {"Sec_WebSocket_Version": None},
    }.items():
        with check(f"{name} is a 400 that says why"):
            answer = handshake(url, **changes)
            equal(answer.status, 400)
            assert answer.body.strip(), "no explanation"

    with check("POST to a WebSocket route is a 405"):
        equal(Answer("--data", "x", url).status, 405)


with Example("http_and_ws") as http_and_ws:
    http_routes(http_and_ws)
with Example("conformance") as conformance, Example("echo") as echo:
    refused_handshakes(conformance, echo)
check.finish()
