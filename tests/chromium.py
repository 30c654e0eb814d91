"""A headless Chromium for tests, over the DevTools protocol on two pipes: standard library only, no port is opened."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 100
"""Seconds for one answer. A busy machine may take most of a minute to start the browser."""
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-default-browser-check",
    "--hide-scrollbars", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser of this machine, if it has one."""
    # Not `chromium-browser`: in Ubuntu it is a script that asks for a snap.
    names = ("chromium", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@dataclass(slots=True)
class Noticed:
    """What a page did that a report has no reason to do, or that it asked for.

    Attributes:
        faults: errors on the console, refusals of the content policy, exceptions, dialogs; one sentence each.
        requests: addresses that were asked for, without those of `data:`.
    """

    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Chromium:
    """One browser with one tab.

    Args:
        send, receive: file descriptors of the pipes; messages are JSON objects with a zero byte after each.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self._loaded = 0
        self.noticed = Noticed()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, url: str, *, width: int = 1400, height: int = 900) -> Noticed:
        """Go to a page, wait until all of it is there, and return what is noticed from now on."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.noticed = Noticed()
        self.after_load(lambda: self.call("Page.navigate", url=url))
        return self.noticed

    def after_load(self, act: Callable[[], object]) -> None:
        """Do something that leads to another page, and wait for that page."""
        before = self._loaded
        act()
        while self._loaded == before:
            self._take()

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse over the middle of the first element that a CSS selector finds."""
        x, y = self.run(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center'}); const r = found.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key; `code` is its Windows virtual-key code, `text` what it types."""
        names = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **names)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Ask the browser, and return its answer; events that come in between are noticed."""
        number = next(self._numbers)
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            found = self._take()
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])

    def _take(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium was silent for {PATIENCE_S} s"
            data = os.read(self._receive, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._notice(message.get("method", ""), message.get("params", {}))
        return message

    def _notice(self, event: str, found: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded += 1
        elif event == "Runtime.exceptionThrown":
            self.noticed.faults.append(f"exception: {found['exceptionDetails']['text']}")
        elif event == "Runtime.consoleAPICalled":
            self.noticed.faults.append(f"console.{found['type']}: {found['args']}")
        elif event == "Log.entryAdded":
            entry = found["entry"]
            self.noticed.faults.append(f"{entry['source']} {entry['level']}: {entry['text']}")
        elif event == "Network.requestWillBeSent" and not found["request"]["url"].startswith("data:"):
            self.noticed.requests.append(found["request"]["url"])
        elif event == "Page.javascriptDialogOpening":
            self.noticed.faults.append(f"dialog: {found['message']}")
            # Nothing else goes on in a page with an open dialog. The answer is not waited for: it comes as a message.
            closing = {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog", "sessionId": self._session}
            os.write(self._send, json.dumps(closing | {"params": {"accept": True}}).encode() + b"\0")


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Chromium]:
    """A browser with a fresh profile; ended with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The browser reads from descriptor 3 and writes to 4; bash puts them there. Higher ones cannot be in its way.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
    script = f'exec "$@" 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-'
    command = ["bash", "-c", script, "bash", program, f"--user-data-dir={profile}", *_FLAGS]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=high, **quiet)  # type: ignore[call-overload]
    for end in (theirs_in, theirs_out, *high):
        os.close(end)
    try:
        yield Chromium(ours_out, ours_in)
    finally:
        os.close(ours_out)  # the browser ends with its pipe
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
