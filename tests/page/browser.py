"""Debian's Chromium without a screen, spoken to through two pipes: no package between us and it.

The protocol: https://chromedevtools.github.io/devtools-protocol/, messages ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


def find_chromium() -> str | None:
    """The program, by whichever of its names it is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Browser:
    """One browser with one tab; ``complaints`` is all that its console was told to worry about."""

    def __init__(self, program: str, profile: Path) -> None:
        to_it, from_us = os.pipe()
        from_it, to_us = os.pipe()
        # It reads from descriptor 3 and writes to 4.
        start = f'exec "$@" 3<&{to_it} 4>&{to_us}'
        options = [
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            # Nothing but this machine can be reached: the page has to work like that.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", start, "browser", program, *options],
            pass_fds=(to_it, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(to_us)
        self._out, self._in = from_us, from_it
        self._held, self._count = b"", 0
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        """Every address that the page asked for."""
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        """Ask the tab."""
        return self._ask(method, self._session, **params)

    def open(self, url: str) -> None:
        """Go to ``url``, afresh also where only what follows its ``#`` is another."""
        for address in ("about:blank", url):
            told = self.ask("Page.navigate", url=address)
            assert "errorText" not in told, (address, told)
            self.until(
                f"document.readyState === 'complete' && location.href.startsWith('{address}')"
            )

    def value(self, script: str) -> Any:
        """What ``script``, an expression, gives."""
        told = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of ``script`` once it is true; an assertion fails if it never is."""
        end = time.monotonic() + PATIENCE_S
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return found

    def look(self, width: int, height: int, *, dark: bool) -> None:
        """A screen of that size, in a system that is dark or light."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[wanted])

    def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        whole = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        told = self.ask(
            "Page.captureScreenshot", format="png", clip=whole, captureBeyondViewport=True
        )
        path.write_bytes(base64.b64decode(told["data"]))

    def _ask(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        self._count += 1
        asked: dict[str, object] = {"id": self._count, "method": method, "params": params}
        if session is not None:
            asked["sessionId"] = session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        for message in self._messages(end):
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)
        raise AssertionError(f"the browser did not answer {method}")

    def _messages(self, end: float) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._held:
                whole, _, self._held = self._held.partition(b"\0")
                yield json.loads(whole)
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                return
            read = os.read(self._in, 1 << 20)
            assert read, "the browser has ended"
            self._held += read

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                thrown = details.get("exception", {}).get("description", details["text"])
                self.complaints.append(thrown)
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str([arg.get("value") for arg in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                entry = params["entry"]
                self.complaints.append(f"{entry['text']} ({entry.get('url', '')})")
            case "Network.requestWillBeSent":
                self.addresses.append(params["request"]["url"])


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Browser]:
    """A browser for the length of the block."""
    browser = Browser(program, profile)
    try:
        yield browser
    finally:
        browser.close()
