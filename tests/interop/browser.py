"""The pages of the examples in headless Chromium, and compression."""

import re

from support import Checks, Example, equal, wait_until
from webdriver import Browser

check = Checks("chromium")


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


def greeting(browser, accept):
    with check("a page says hello, and hears the welcome before its echo"):
        browser.open(f"http://{accept.addr}/")
        script = """
            const log = [];
            const ws = new WebSocket(arguments[0]);
            ws.onopen = () => ws.send("Hello Server!");
            ws.onmessage = ({data}) => { if (log.push(`Received: ${data}`) === 2) done(log); };
            ws.onclose = ({code}) => done(code);
        """
        heard = browser.run(script, f"ws://{accept.addr}/websocket")
        equal(heard, ["Received: Welcome!", "Received: Hello Server!"])


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


def ticker_page(browser, ticker):
    with check("the page of the ticker example draws all prices, and says in words what it draws"):
        browser.open(f"http://{ticker.addr}/")
        points = """[...document.querySelectorAll("polyline")].map(line =>
            (line.getAttribute("points") ?? "").split(" ").length)"""
        wait_until(
            lambda: len(counts := browser.value(points)) == 3 and min(counts) >= 3,
            "three prices of each symbol are drawn",
        )
        equal(browser.text("#state"), "Live")
        label = browser.value("document.querySelector('svg').getAttribute('aria-label')")
        assert re.fullmatch(r"TIDE has (risen|fallen) by [\d.]+ percent, between .*", label), label


def broadcast_counts(browser, broadcast):
    # Any text of this server will do as a page.
    browser.open(f"http://{broadcast.addr}/ws")
    with check("the broadcast example counts who comes and goes"):
        script = """
            const ws = new WebSocket(`ws://${location.host}/ws`);
            ws.onopen = () => ws.send("hello, everybody");
            ws.onmessage = ({data}) => { ws.onclose = () => done(data); ws.close(); };
        """
        equal(browser.run(script), "hello, everybody")
        broadcast.wait_for_line("Client connected: 1 total")
        broadcast.wait_for_line("Client disconnected: 0 remaining")


with Browser() as browser:
    with Example("echo") as echo:
        echo_page(browser, echo)
    server_goes_away(browser)
    with Example("accept") as accept:
        greeting(browser, accept)
    with Example("conformance") as conformance:
        compression(browser, conformance)
    with Example("deflate") as deflate:
        deflate_page(browser, deflate)
    with Example("ticker") as ticker:
        ticker_page(browser, ticker)
    with Example("broadcast") as broadcast:
        broadcast_counts(browser, broadcast)
check.finish()
