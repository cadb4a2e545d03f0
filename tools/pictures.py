"""``python -m tools.pictures``: make docs/images from real runs.

A demo under load, with a Prometheus beside it that scrapes the demo's own ``sync``: the terminal's
lines, the dashboard while the demo runs, and its report. Needs chromium and prometheus on PATH.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from migration_job.dashboard.panels import MIGRATION
from migration_job.dashboard.server import Dashboard, Prometheus

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
DWELL_SECONDS = 45
"""At each step of the demo: the curves are to have something to show."""
SPAN_SECONDS = 180
LIMIT_SECONDS = 900.0
COLUMNS = 110


def main() -> None:
    """Make all of them, or end with a sentence."""
    for program in ("chromium", "prometheus"):
        if shutil.which(program) is None:
            raise SystemExit(f"expected {program} on PATH, found none: the pictures need it")
    with tempfile.TemporaryDirectory(prefix="pictures-") as scratch:
        home = Path(scratch)
        metrics = free_port()
        with prometheus(home, metrics) as url:
            said = demo(home / "demo", metrics, url)
        terminal(shortened(said, str(home / "demo")), IMAGES / "demo.svg")
        picture((home / "demo" / "report" / "report.html").as_uri(), "report.png", (1200, 1500))
    sys.stdout.write(f"README.md quotes this run: {said[-1]}\n")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def prometheus(home: Path, metrics: int) -> Iterator[str]:
    """A Prometheus that asks the demo's sync every second; its address."""
    port = free_port()
    scrape = {"job_name": "sync", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    (home / "prometheus.yml").write_text(json.dumps(settings))
    command = ["prometheus", f"--config.file={home / 'prometheus.yml'}", "--log.level=error"]
    command += [f"--storage.tsdb.path={home / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command)  # noqa: S603 - found on PATH
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def demo(directory: Path, metrics: int, url: str) -> list[str]:
    """The demo's lines. The dashboard's picture is taken while PostgreSQL serves."""
    options = ["--directory", str(directory), "--back", "--dwell", str(DWELL_SECONDS)]
    command = [sys.executable, "-m", "migration_job", "demo", *options]
    command += ["--metrics-port", str(metrics)]
    said: list[str] = []
    deadline = time.monotonic() + LIMIT_SECONDS
    boards = Dashboard(Prometheus(url, span=SPAN_SECONDS), [MIGRATION], host="127.0.0.1", port=0)
    with (
        boards as page,
        subprocess.Popen(  # noqa: S603 - this project's own command
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout or ():
            said.append(line.rstrip())
            if time.monotonic() > deadline:
                process.kill()
            if line.startswith("$ migration-job rollback"):
                picture(page.url, "dashboard.png", (1200, 860))
    if process.returncode:
        raise SystemExit(f"the demo ended with {process.returncode}: {said[-3:]}")
    return said


def picture(address: str, name: str, size: tuple[int, int]) -> None:
    """What a browser of that size shows at an address, as a file of docs/images."""
    target = IMAGES / name
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=10000"]
    command += [f"--screenshot={target}", address]
    done = subprocess.run(  # noqa: S603 - found on PATH
        command, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode or not target.exists():
        raise SystemExit(f"chromium made no {name}: {done.stderr[-300:]}")


def shortened(said: list[str], directory: str) -> list[str]:
    """The lines as one sees them: of the standing, which a terminal writes over, the last of each
    row of them; and the demo's directory by its usual name."""
    named = [line.replace(directory, ".state/demo") for line in said]
    return [
        line
        for line, after in zip(named, [*named[1:], ""], strict=True)
        if not (line.startswith("  [") and after.startswith("  ["))
    ]


def terminal(said: list[str], target: Path) -> None:
    """The lines as a terminal shows them, as SVG that loads nothing."""
    console = Console(record=True, width=COLUMNS, file=Path("/dev/null").open("w"))  # noqa: SIM115
    options = f"'--back --dwell {DWELL_SECONDS}'"
    console.print(Text(f"$ make demo OPTIONS={options}", style="bold"))
    for line in said:
        console.print(Text(line), soft_wrap=False)
    svg = console.export_svg(title="make demo", theme=MONOKAI)
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
