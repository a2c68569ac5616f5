"""Headless Chromium, driven by the Chrome DevTools Protocol over a WebSocket."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.waiting import PATIENCE, PAUSE, until
from websockets.sync.client import ClientConnection, connect

Json = dict[str, Any]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-port=0"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
DOMAINS = ("Page", "Runtime", "Log", "Network")


class Tab:
    """One tab of a browser, with what it has reported: requests, bytes, exceptions and messages of the console."""

    def __init__(self, socket: ClientConnection) -> None:
        self.problems: list[str] = []
        self.urls: list[str] = []
        self.received: dict[str, int] = {}  # bytes on the wire by request
        self._socket = socket
        self._number = 0
        for domain in DOMAINS:
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Json:
        """The result of a command."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message["method"], message["params"])

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded; forgets what earlier pages reported."""
        self.send("Page.navigate", url="about:blank")
        self.urls, self.received, self.problems = [], {}, []
        self.send("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        outcome = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in outcome, outcome["exceptionDetails"]
        return outcome["result"].get("value")

    def until(self, expression: str) -> None:
        """Return when the expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression}: {self.value('document.body.innerText')}"
            time.sleep(PAUSE)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field, as by typing or pasting."""
        self.value(f"(field => {{ field.focus(); field.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a file field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def key(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press and release a key.  modifiers: 2 for Ctrl, 8 for Shift."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers
            )

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window in CSS pixels, and the color scheme that the user prefers."""
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, file: Path) -> None:
        """Save a picture of the window as PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _note(self, method: str, event: Json) -> None:
        if method == "Network.requestWillBeSent":
            self.urls.append(event["request"]["url"])
        elif method == "Network.loadingFinished":
            self.received[event["requestId"]] = event["encodedDataLength"]
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(event["exceptionDetails"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.problems.append(str(event["args"]))


@contextmanager
def chromium() -> Iterator[Tab]:
    """A browser with one tab; the test is skipped if there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("cannot test page: it needs chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port = Path(folder, "DevToolsActivePort")
        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: port.exists() and "\n" in port.read_text())
            (target,) = _pages(port.read_text().split("\n")[0])
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _pages(port: str) -> list[Json]:
    found: list[Json] = []

    def opened() -> bool:
        targets = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE).json()
        found[:] = [target for target in targets if target["type"] == "page"]
        return bool(found)

    until(opened)
    return found
