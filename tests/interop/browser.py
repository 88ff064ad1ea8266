"""Headless Chromium, driven over WebDriver, on the page of the echo example."""

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


with Browser() as browser:
    with Example("echo") as echo:
        echo_page(browser, echo)
    server_goes_away(browser)
check.finish()
