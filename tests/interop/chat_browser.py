"""The page of the chat in two headless Chromiums: what one does, the other sees.

Screenshots, for whoever wants to see them as well, are written to target/chat.
"""

import contextlib

from support import TARGET, Checks, Example, equal, wait_until
from webdriver import Browser

SHOTS = TARGET / "chat"

# Keys of WebDriver (§17.4.2).
ESCAPE, SHIFT = "\ue00c", "\ue008"

check = Checks("chat page")


class Page:
    """The page in a browser, and what is to be seen on it."""

    def __init__(self, browser, name):
        self.browser, self.name = browser, name

    def open(self, addr, room=""):
        self.browser.open(f"http://{addr}/#{room}")
        self.wait_for("#state-text", "Connected")
        self.rename(self.name)

    def rename(self, name):
        self.browser.click("#rename")
        self.browser.value("document.querySelector('#name').value = ''")
        self.browser.type("#name", name + "\n")
        wait_until(lambda: name in self.members(), f"{name} is called so")

    def say(self, text):
        self.browser.type("#text", text + "\n")

    def enter(self, room):
        self.browser.type("#room", room + "\n")
        self.wait_for("#title", room)

    def members(self):
        return self.texts("#members bdi")

    def said(self):
        """All messages, each with its speaker."""
        return self.browser.value(
            "[...document.querySelectorAll('.said')].map(said =>"
            " [said.closest('.group').dataset.from, said.textContent])"
        )

    def notes(self):
        return self.texts(".note")

    def texts(self, selector):
        texts = "[...document.querySelectorAll(arguments[0])].map(({textContent}) => textContent)"
        return self.browser.value(texts, selector)

    def wait_for(self, selector, *texts, seconds=5):
        wait_until(
            lambda: self.texts(selector) == list(texts),
            f"{self.name}: {selector} is {texts}", seconds,
        )

    def wait_for_note(self, note, seconds=5):
        wait_until(lambda: note in self.notes(), f"{self.name} reads {note!r}", seconds)

    def wait_for_said(self, *said):
        expected = [list(message) for message in said]
        wait_until(lambda: self.said() == expected, f"{self.name} reads {expected}")

    @contextlib.contextmanager
    def viewport(self, width, height, scheme="light"):
        self.browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.devtools("Emulation.setEmulatedMedia", features=[feature])
        yield
        self.browser.devtools("Emulation.clearDeviceMetricsOverride")

    def shoot(self, name):
        self.browser.screenshot(SHOTS / f"{name}.png")


def talking(ada, bob, addr):
    with check("two windows see each other come, and take names"):
        ada.open(addr)
        bob.open(addr)
        for page in (ada, bob):
            wait_until(lambda page=page: sorted(page.members()) == ["Ada", "Bob"], "both are here")
            page.wait_for("#people", "2 people")
        ada.wait_for_note("User2 joined")
        ada.wait_for_note("User2 is now Bob")

    with check("what one says, both read"):
        ada.say("Hello, Bob!")
        bob.wait_for_said(("Ada", "Hello, Bob!"))
        bob.say("Hi Ada.")
        bob.say("The tide is out — shall we walk to the island?")
        said = [
            ("Ada", "Hello, Bob!"),
            ("Bob", "Hi Ada."),
            ("Bob", "The tide is out — shall we walk to the island?"),
        ]
        ada.wait_for_said(*said)
        bob.wait_for_said(*said)
        # Two messages of one person are one group.
        equal(len(ada.texts(".group")), 2)

    with check("HTML is text, in messages, names and rooms"):
        html = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
        bob.say(html)
        ada.wait_for_said(*said, ("Bob", html))
        bob.rename("<b>Bob</b>")
        ada.wait_for_note("Bob is now <b>Bob</b>")
        bob.rename("Bob")
        for page in (ada, bob):
            elements = "document.querySelectorAll('#app :is(img, b, script)').length"
            equal(page.browser.value(elements), 0)
            equal(page.browser.value("document.title"), "#lobby · tidewire chat")

    with check("Shift and Enter begin a new line"):
        bob.say(f"low water 14:20{SHIFT}\n{SHIFT}high water 20:35")
        wait_until(
            lambda: ["Bob", "low water 14:20\nhigh water 20:35"] in ada.said(), "two lines arrive",
        )

    with check("a message that comes while the page is hidden is counted in its title"):
        script = (
            "Object.defineProperty(document, 'hidden',"
            " {value: arguments[0], configurable: true})"
        )
        ada.browser.value(script, True)
        bob.say("Are you still there?")
        wait_until(
            lambda: ada.browser.value("document.title") == "(1) #lobby · tidewire chat", "(1)",
        )
        equal(ada.texts(".new"), ["New messages"])
        ada.browser.value(script, False)
        ada.browser.value("document.dispatchEvent(new Event('visibilitychange'))")
        equal(ada.browser.value("document.title"), "#lobby · tidewire chat")


def rooms(ada, bob):
    with check("another room is another conversation"):
        bob.enter("tea")
        bob.wait_for("#people", "Only you are here")
        bob.wait_for_note("You are in tea as Bob")
        equal(bob.said(), [])
        ada.wait_for_note("Bob left")
        ada.say("Nobody hears this.")
        bob.say("Nor this.")
        bob.wait_for_said(("Bob", "Nor this."))
        assert ["Bob", "Nor this."] not in ada.said()

    with check("the room is in the address, and the way back leads back"):
        assert bob.browser.value("location.hash") == "#tea"
        bob.browser.value("history.back()")
        bob.wait_for("#title", "lobby")
        ada.wait_for_note("Bob joined")
        wait_until(lambda: sorted(bob.members()) == ["Ada", "Bob"], "both are here again")
        bob.say("There is tea next door.")
        wait_until(lambda: ["Bob", "There is tea next door."] in ada.said(), "they talk again")


def looks(ada):
    for name, width, height in (("desktop", 1280, 800), ("phone", 390, 844)):
        with check(f"{name}: the page is no larger than the window, light and dark"):
            for scheme in ("light", "dark"):
                with ada.viewport(width, height, scheme):
                    for side, size in (("Width", width), ("Height", height)):
                        scrolled = f"document.documentElement.scroll{side}"
                        equal(ada.browser.value(scrolled), size)
                    ada.shoot(f"{name}-{scheme}")

    with (
        check("phone: rooms and people are in a drawer that Escape closes"),
        ada.viewport(390, 844),
    ):
        drawer = "getComputedStyle(document.querySelector('#side')).visibility"
        focus = "document.activeElement"
        equal(ada.browser.value(drawer), "hidden")
        ada.browser.click("#menu")
        equal(ada.browser.value(drawer), "visible")
        equal(ada.browser.value(f"{focus}.dataset.room"), "lobby")
        at_rest = "document.querySelector('#side').getAnimations().length === 0"
        wait_until(lambda: ada.browser.value(at_rest), "the drawer is open")
        ada.shoot("phone-drawer")
        ada.browser.type("#rooms a", ESCAPE)
        equal(ada.browser.value(drawer), "hidden")
        equal(ada.browser.value(f"{focus}.id"), "menu")


def leaving(ada, bob):
    with check("a window that is killed is seen to leave"):
        bob.browser.kill()
        ada.wait_for_note("Bob left")
        ada.wait_for("#members bdi", "Ada")


def restarting(ada, server):
    with check("when the server ends, the page says so"):
        server.__exit__()
        ada.wait_for("#state-text", "Not connected")
        ada.wait_for_note("The connection was lost")
        ada.shoot("lost")
        equal(ada.browser.value("document.querySelector('#send').disabled"), True)

    with check("when it is there again, the page comes back by itself, under its name"):
        with Example("chat", addr=server.addr):
            ada.wait_for("#state-text", "Connected", seconds=30)
            ada.wait_for("#members bdi", "Ada")
            ada.say("Back again.")
            wait_until(lambda: ["Ada", "Back again."] in ada.said(), "one can talk again")
            # As if it had tried in vain for a while: the next attempt is due in 15 s at the earliest.
            ada.browser.run("attempts = 9; done()")
        ada.wait_for("#state-text", "Not connected")

    with check("when the browser is online again, the page does not wait"):
        with ada.viewport(390, 844):
            ada.shoot("phone-lost")
        with Example("chat", addr=server.addr):
            ada.browser.run("dispatchEvent(new Event('online')); done()")
            ada.wait_for("#state-text", "Connected")


def main():
    with Browser() as one, Browser() as other, Example("chat") as server:
        ada, bob = Page(one, "Ada"), Page(other, "Bob")
        talking(ada, bob, server.addr)
        rooms(ada, bob)
        looks(ada)
        leaving(ada, bob)
        restarting(ada, server)
    check.finish()


if __name__ == "__main__":
    main()
