"""Headless Chromium, driven over WebDriver: https://www.w3.org/TR/webdriver2/."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from support import wait_until

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
            self.process = session["capabilities"]["goog:processID"]
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
            if self.process:
                self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=10)
            self.profile.cleanup()

    def kill(self):
        """Ends the browser so that it cannot say good-bye to anybody."""
        os.kill(self.process, signal.SIGKILL)
        self.process = None

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

    def value(self, expression, *args):
        """The value of a JavaScript expression."""
        script = {"script": f"return {expression}", "args": list(args)}
        return self.call("POST", "/execute/sync", script)

    def click(self, selector):
        self.call("POST", self.element(selector) + "/click")

    def type(self, selector, text):
        self.call("POST", self.element(selector) + "/value", {"text": text})

    def devtools(self, command, **params):
        """One command of the Chrome DevTools Protocol."""
        self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def screenshot(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def run(self, script, *args):
        """Runs JavaScript that ends with a call of `done`; the value given to it."""
        script = f"const done = arguments[arguments.length - 1]; {script}"
        return self.call("POST", "/execute/async", {"script": script, "args": list(args)})


def tool(name):
    return shutil.which(name) or sys.exit(f"{name} is missing; Debian: chromium, chromium-driver")
