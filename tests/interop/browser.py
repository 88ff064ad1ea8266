"""Headless Chromium, driven over WebDriver: the pages of the examples, and compression."""

import http.client
import json
import re
import shutil
import subprocess
import sys
import tempfile

from support import Checks, Example, equal, wait_until

# The keys that WebDriver wraps element references in (W3C WebDriver §12.1).
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
]

check = Checks("chromium")


class Browser:
    """A browser of our own with an empty profile, which goes with it."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            [tool("chromedriver"), "--port=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        try:
            self.port = self._port()
            options = {
                "binary": tool("chromium"),
                "args": [*FLAGS, f"--user-data-dir={self.profile.name}"],
            }
            capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
            self.session = ""
            session = self.call("POST", "", {"capabilities": capabilities})
            self.session = f"/{session['sessionId']}"
        except BaseException:
            self.driver.kill()
            raise
        return self

    def _port(self):
        for line in self.driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        sys.exit("chromedriver did not start")

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=10)
            self.profile.cleanup()

    def call(self, method, path, body=None):
        """One WebDriver command; its value."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = None if method != "POST" else json.dumps(body or {})
        connection.request(method, f"/session{self.session}{path}", text)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        if isinstance(answer["value"], dict) and "error" in answer["value"]:
            raise AssertionError(f"{path or 'new session'}: {answer['value']['message']}")
        return answer["value"]

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def element(self, selector):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def log(self):
        """The lines of the page's log."""
        script = "return document.querySelector('#log').innerText"
        return self.call("POST", "/execute/sync", {"script": script, "args": []}).splitlines()

    def text(self, selector):
        """The text of an element."""
        return self.call("GET", self.element(selector) + "/text")

    def wait_for_log(self, *lines):
        wait_until(lambda: self.log() == list(lines), f"the log is {lines}")

    def run(self, script, *args):
        """Runs JavaScript that ends with a call of `done`; the value given to it."""
        script = f"const done = arguments[arguments.length - 1]; {script}"
        return self.call("POST", "/execute/async", {"script": script, "args": list(args)})


def tool(name):
    return shutil.which(name) or sys.exit(f"{name} is missing; Debian: chromium, chromium-driver")


def echo_page(browser, echo):
    with check("the page connects and gets its greeting back"):
        browser.open(f"http://{echo.addr}/")
        browser.wait_for_log("Connected", "Received: Hello, Server!")
        echo.wait_for_line("Received: Hello, Server!")

    with check("what is typed comes back"):
        browser.call("POST", browser.element("#text") + "/value", {"text": "Grüße ✓"})
        browser.call("POST", browser.element("button") + "/click")
        browser.wait_for_log("Connected", "Received: Hello, Server!", "Received: Grüße ✓")

    with check("1 MiB of bytes comes back"):
        script = """
            const ws = new WebSocket(arguments[0]);
            ws.binaryType = "arraybuffer";
            ws.onopen = () => ws.send(new Uint8Array(1 << 20).fill(7));
            ws.onmessage = ({data}) =>
                done([data.byteLength, new Uint8Array(data).every(byte => byte === 7)]);
            ws.onclose = ({code}) => done(code);
        """
        equal(browser.run(script, f"ws://{echo.addr}/ws"), [1 << 20, True])

    with check("code and cleanness of a close are what the page sent"):
        script = """
            const ws = new WebSocket(arguments[0]);
            ws.onopen = () => ws.close(4321, "from the page");
            ws.onclose = ({code, wasClean}) => done([code, wasClean]);
        """
        equal(browser.run(script, f"ws://{echo.addr}/ws"), [4321, True])
        echo.wait_for_line("WebSocket client disconnected")

    with check("a page of another host is refused"):
        script = """
            const ws = new WebSocket(arguments[0]);
            ws.onopen = () => done("connected");
            ws.onclose = ({code}) => done(code);
        """
        elsewhere = f"ws://{echo.addr}/ws".replace("127.0.0.1", "localhost")
        equal(browser.run(script, elsewhere), 1006)

    with check("reloading the page ends one connection and opens another"):
        # Not by going elsewhere: Chromium may keep a page that was left, and its socket open.
        disconnected = echo.lines.count("WebSocket client disconnected")
        browser.call("POST", "/refresh")
        wait_until(
            lambda: echo.lines.count("WebSocket client disconnected") > disconnected,
            "the server notices",
        )
        browser.wait_for_log("Connected", "Received: Hello, Server!")


def server_goes_away(browser):
    with check("the page notices that the server ends"):
        with Example("echo") as echo:
            browser.open(f"http://{echo.addr}/")
            browser.wait_for_log("Connected", "Received: Hello, Server!")
        browser.wait_for_log("Connected", "Received: Hello, Server!", "Disconnected")


def compression(browser, conformance):
    # Any text of this server will do as a page: its routes are then of the same host.
    browser.open(f"http://{conformance.addr}/echo")
    apart = "server_no_context_takeover; client_no_context_takeover"
    for path, agreed in [
        ("/echo", ""),
        ("/default-deflate", f"permessage-deflate; {apart}"),
        ("/echo-deflate", "permessage-deflate"),
        ("/echo-takeover", "permessage-deflate"),
    ]:
        name = f"with {agreed}" if agreed else "uncompressed"
        with check(f"{path} sends messages of 0 bytes to 1 MiB back, {name}"):
            equal(browser.run(SERIES, f"ws://{conformance.addr}{path}"), agreed)


# Sends messages of all sizes at once, compares what comes back, and tells the extensions.
SERIES = """
    const ticks = JSON.stringify(Array.from({length: 2000}, (_, n) =>
        ({symbol: "TIDE", price: (n * n) % 997, volume: n})));
    const bytes = (length, byte) => Uint8Array.from({length}, byte);
    const messages = [
        "x", bytes(1, () => 7), "", bytes(0), "Grüße, 世界 🌊", ticks, ticks,
        bytes(70000, () => Math.random() * 256), "x".repeat(65535), bytes(65536, n => n >> 8),
        "é".repeat(1 << 19), bytes(1 << 20, n => n >> 4), "", "the end",
    ];
    const same = (sent, came) => typeof sent === "string" ? sent === came :
        sent.length === came.byteLength && new Uint8Array(came).every((byte, i) => byte === sent[i]);
    const ws = new WebSocket(arguments[0]);
    ws.binaryType = "arraybuffer";
    ws.onopen = () => messages.forEach(message => ws.send(message));
    let number = 0;
    ws.onmessage = ({data}) => {
        if (!same(messages[number], data)) done(`message ${number} is another than was sent`);
        number += 1;
        if (number === messages.length) done(ws.extensions);
    };
    ws.onclose = ({code}) => done(`closed with ${code} after ${number} messages`);
"""


def deflate_page(browser, deflate):
    agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    with check("the page of the deflate example shows what was agreed"):
        browser.open(f"http://{deflate.addr}/")
        wait_until(lambda: len(browser.log()) == 3, "greeting and echo are logged")
        equal(browser.log()[:2], ["Connected", f"Received: {agreed}"])
        equal(browser.text("#extensions"), agreed)
        deflate.wait_for_line(f"WebSocket client connected: {agreed}")

    with check("most of what it sends and gets is saved"):
        browser.call("POST", browser.element("button") + "/click")
        wait_until(lambda: len(browser.log()) == 4, "the second echo is logged")
        wait_until(lambda: saved(browser, "in") > 60, "60 % are saved to the server")
        wait_until(lambda: saved(browser, "out") > 60, "60 % are saved from the server")


def saved(browser, direction):
    """Of the bytes that the page shows, the share that did not go over the wire, in percent."""
    cells = [browser.text(f"#{direction} td:nth-of-type({n})") for n in (1, 2)]
    payload, wire = [int(cell.replace(",", "")) for cell in cells]
    return 100 * (1 - wire / payload)


with Browser() as browser:
    with Example("echo") as echo:
        echo_page(browser, echo)
    server_goes_away(browser)
    with Example("conformance") as conformance:
        compression(browser, conformance)
    with Example("deflate") as deflate:
        deflate_page(browser, deflate)
check.finish()
