"""A real browser for tests of pages, driven over the WebDriver protocol, which is plain JSON."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference (https://www.w3.org/TR/webdriver2/#elements)."""
START_SECONDS = 60.0
ANSWER_SECONDS = 240.0

FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--disable-sync", "--no-first-run"),
    *("--disable-component-update", "--window-size=1200,1600", "--force-color-profile=srgb"),
]


TOOLS_INSTALLED = "TOOLS_INSTALLED"
"""A variable by which who runs the tests says that their tools are here: ``.ci/run`` has installed
them. A tool that is missing then fails its tests, which nobody would miss as skipped ones."""


def lacking(what: str) -> NoReturn:
    """Skip the test for a tool that is not here; fail it where it has to be."""
    if os.environ.get(TOOLS_INSTALLED):
        pytest.fail(f"{what}, although {TOOLS_INSTALLED} says that the tests' tools are here")
    pytest.skip(what)


class Browser:
    """A session of a running chromedriver."""

    def __init__(self, base: str) -> None:
        self._base = base
        found = self._call("POST", "/session", {"capabilities": {"alwaysMatch": _capabilities()}})
        self._session = f"/session/{found['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, method=method)  # noqa: S310
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, address: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def type_into(self, selector: str, text: str) -> None:
        body = {"using": "css selector", "value": selector}
        element = self._call("POST", f"{self._session}/element", body)[ELEMENT]
        self._call("POST", f"{self._session}/element/{element}/clear", {})
        self._call("POST", f"{self._session}/element/{element}/value", {"text": text})

    def click(self, selector: str) -> None:
        body = {"using": "css selector", "value": selector}
        element = self._call("POST", f"{self._session}/element", body)[ELEMENT]
        self._call("POST", f"{self._session}/element/{element}/click", {})

    def log(self) -> list[dict[str, Any]]:
        """What the page wrote to the console, refused loads and scripts included."""
        found: list[dict[str, Any]] = self._call(
            "POST", f"{self._session}/se/log", {"type": "browser"}
        )
        return found

    def emulate(self, **features: str) -> None:
        parameters = {"features": [{"name": k, "value": v} for k, v in features.items()]}
        media = parameters["features"][0]["value"] if features == {"media": "print"} else ""
        self._devtools("Emulation.setEmulatedMedia", {"media": media, **parameters})

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def pages(self) -> int:
        """How many pages of A4 the page is in print."""
        # WebDriver's own command gives the renderer ten seconds, too few on a busy machine.
        said = self._devtools("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
        return len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(said["data"])))

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def resize(self, width: int, height: int) -> None:
        """Show the page as a screen of so many pixels would, also one narrower than a window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    def serious(self, axe: str) -> list[str]:
        """What axe-core finds that keeps people from the page: rule and first element of each."""
        self.run(axe)
        found: list[str] = self.run(
            "return axe.run().then(done => done.violations"
            ".filter(v => ['serious', 'critical'].includes(v.impact))"
            ".map(v => v.id + ': ' + v.nodes[0].html))"
        )
        return found

    def close(self) -> None:
        self._call("DELETE", self._session)


def _capabilities() -> dict[str, Any]:
    return {
        "browserName": "chrome",
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {"args": FLAGS, "binary": _browser()},
    }


def _browser() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or _browser() is None:
        lacking("no browser: needs chromium and chromedriver (Debian: chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [driver, f"--port={port}", "--log-level=SEVERE"], stdout=subprocess.DEVNULL
    )
    try:
        _await(f"http://127.0.0.1:{port}/status")
        session = Browser(f"http://127.0.0.1:{port}")
        yield session
        session.close()
    finally:
        process.terminate()
        process.wait()


AXE = "axe-core@4.10.3"
CACHE = Path(__file__).resolve().parents[1] / ".cache"


@pytest.fixture(scope="session")
def axe() -> str:
    """The program by which a page is looked at for what keeps people out; from npm, once."""
    archive = CACHE / f"{AXE.replace('@', '-')}.tgz"
    if not archive.exists():
        if shutil.which("npm") is None:
            lacking("axe-core is not here, and npm, which would fetch it, is not either")
        CACHE.mkdir(exist_ok=True)
        command = ["npm", "pack", AXE, "--silent", "--pack-destination", str(CACHE)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            lacking("npm did not fetch axe-core within two minutes")
        if done.returncode or not archive.exists():
            lacking(f"npm could not fetch axe-core: {done.stderr.decode()[-200:]}")
    with tarfile.open(archive) as package:
        member = package.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def _await(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310
                if json.load(answer)["value"]["ready"]:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"chromedriver did not answer within {START_SECONDS} s")
        time.sleep(0.05)
