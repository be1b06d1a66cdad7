"""A real Chromium without a window, driven over its DevTools protocol: pages as people get them, keys and clicks."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.live.peers import path_of
from tests.live.processes import PATIENCE, Process

LARGEST_MESSAGE = 64 << 20  # bytes: a screenshot of a long page
NAME = "harp.test"  # 127.0.0.1 by a name, which makes the browser one of another host to HaRP
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--no-first-run", "--hide-scrollbars", "--font-render-hinting=none", "--force-color-profile=srgb"),
    *(f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--remote-debugging-port=0"),
)
KEYS = {"Tab": 9, "Enter": 13}


class Tab:
    """One page of the browser."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._ids = itertools.count(1)
        self.complaints: list[str] = []  # exceptions, and what the console says of errors and blocked loads
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are noted."""
        number = next(self._ids)
        self._wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._wire.recv(timeout=PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                self.complaints.append(str(message["params"]["entry"]["text"]))
            case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning"):
                self.complaints.append(json.dumps(message["params"]["args"])[:500])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, by value; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, what: str, seconds: float = PATIENCE) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                value = self.evaluate(expression)
            except AssertionError:  # the page is being left
                value = None
            if value:
                return value
            assert time.monotonic() < end, f"no {what}: {self.text()[:2000]} {self.complaints}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there with all its scripts."""
        self.send("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'", url)

    def text(self) -> str:
        """What a person can read."""
        return str(self.evaluate("document.body.innerText"))

    def until_shown(self, text: str) -> None:
        """Wait until a person can read `text`."""
        self.until(f"document.body.innerText.includes({json.dumps(text)})", text)

    def click(self, selector: str) -> None:
        """Press an element with the mouse, where it is."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{place} !== null", selector)
        self.painted()
        box = self.evaluate(
            f"(() => {{ const e = {place}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def painted(self) -> None:
        """Wait until the page is on the screen: before that, Chromium drops what a person does."""
        self.until("performance.getEntriesByName('first-contentful-paint').length > 0", "first paint")
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def show_as(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Be a window, or a phone, of that size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)

    def without_scripts(self, off: bool) -> None:
        """Switch the scripts of pages off, or on again."""
        self.send("Emulation.setScriptExecutionDisabled", value=off)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium(directory: Path) -> Iterator[Tab]:
    """A browser with one empty page, for as long as the block lasts."""
    profile = directory / "chromium"
    argv = [path_of("chromium", "chromium"), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    with Process(argv, directory / "chromium.log") as process:
        port_file = profile / "DevToolsActivePort"
        process.until(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, "DevTools port")
        port, path = port_file.read_text().split("\n")[:2]
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=LARGEST_MESSAGE, compression=None) as wire:
            browser = _Browser(wire)
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            with connect(
                f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=LARGEST_MESSAGE, compression=None
            ) as page:
                yield Tab(page)


class _Browser:
    """The browser itself."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._wire.send(json.dumps({"id": 1, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._wire.recv(timeout=PATIENCE))
            if message.get("id") == 1:
                result: dict[str, Any] = message["result"]
                return result
