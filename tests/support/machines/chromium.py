"""A headless Chromium that a test steers by the DevTools protocol, over two pipes.

Messages are JSON, each ended by a zero byte (https://chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--hide-scrollbars", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-dev-shm-usage"),
)
PATIENCE = 60.0


class Tab:
    """One page of a browser.

    Attributes:
        said: Texts of the page's console, and of exceptions that nothing caught.
        asked: Addresses that the page asked for.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._numbers, self._left = itertools.count(1), b""
        self.said: list[str] = []
        self.asked: list[str] = []
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, found
                result: dict[str, Any] = found["result"]
                return result

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "the browser says nothing"
            block = os.read(self._answers, 1 << 16)
            assert block, "the browser has ended"
            self._left += block
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(each.get("value")) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression, as if the user had clicked."""
        found = self.send(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until a JavaScript expression is true; returns its value."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"{script}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)
        return found

    def open(self, url: str, width: int = 1280, *, until: str = "true") -> None:
        """Load a page, and wait for what it shows then; nothing is left of a page before it."""
        self.widen(width)
        self.send("Emulation.setEmulatedMedia", features=[])
        self.said.clear()
        self.asked.clear()
        self.send("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && ({until})")

    def widen(self, width: int) -> None:
        """Give the page another width, such as that of a telephone."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def picture(self, path: Path) -> None:
        """Save the whole page as a picture."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromium(folder: Path, *options: str) -> Iterator[Tab]:
    """Context of a browser with one page.

    Args:
        folder: Where it keeps its profile.
        options: More options of the command line.
    """
    theirs, ours = os.pipe()
    heard, said = os.pipe()
    # It reads commands from descriptor 3 and answers through descriptor 4.
    script = f'exec "$@" 3<&{theirs} 4>&{said}'
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *QUIET, "--remote-debugging-pipe", profile, *options]
    with (
        (folder / "chromium.log").open("w") as log,
        subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(theirs, said),
            stdout=log,
            stderr=log,
        ) as browser,
    ):
        os.close(theirs)
        os.close(said)
        try:
            tab = Tab(ours, heard)
            yield tab
            tab.send("Browser.close")
        finally:
            browser.terminate()
            os.close(ours)
            os.close(heard)
