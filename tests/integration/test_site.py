"""The site as `make site` builds it, in a real browser: it is found, read and searched."""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import Browser, lacking

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-site" / "bin" / "python"
LIMIT_SECONDS = 60.0


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest's output is the tests'."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not PYTHON.exists():
        lacking("the site's environment is not here: `make site` makes it")
    output = tmp_path_factory.mktemp("site") / "site"
    command = [str(PYTHON), "-m", "tools.site", "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(output))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# The search stands in a shadow tree of the page's.
SEARCH = """
const found = [...document.querySelectorAll("*")].map(e => e.shadowRoot).filter(Boolean)
const box = found.map(root => root.querySelector("input")).find(Boolean)
if (!box) return null
if (box.value !== arguments[0]) {
    box.focus()
    box.value = arguments[0]
    box.dispatchEvent(new Event("input", {bubbles: true, composed: true}))
}
return found.flatMap(root => [...root.querySelectorAll("ol a")].map(a => a.getAttribute("href")))
"""


def test_a_word_is_found_by_the_search(address: str, browser: Browser) -> None:
    browser.open(f"{address}/index.html")
    browser.click(".md-search__button")
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := browser.run(SEARCH, "alembic")):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert any("how-to/alembic.html" in link for link in found), found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_a_page(
    address: str, browser: Browser, axe: str, scheme: str
) -> None:
    browser.emulate(**{"prefers-color-scheme": scheme})
    browser.open(f"{address}/how-to/by-hand.html")
    assert browser.serious(axe) == []
    assert [line for line in browser.log() if line["level"] == "SEVERE"] == []
