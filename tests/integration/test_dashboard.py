"""The light page, in a real browser, in front of a real Prometheus that scrapes made-up servers.

The panels' queries are tried against a running stage by the deployment tests; here each is shown
to be drawn, and a Prometheus that is away to be said so.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from migration_job.dashboard.panels import BACKUP, DATABASE, MIGRATION, Query
from migration_job.dashboard.server import Dashboard, Prometheus
from migration_job.errors import InputError
from tests.browser import Browser, lacking

BOARDS = (MIGRATION, DATABASE, BACKUP)
LIMIT_SECONDS = 60

PLAIN = (
    "pg_up",
    "pgbouncer_up",
    "pg_stat_database_numbackends",
    "pg_settings_max_connections",
    "pgbouncer_pools_client_active_connections",
    "pgbouncer_pools_client_waiting_connections",
    "pgbouncer_pools_server_active_connections",
    "pgbouncer_pools_server_idle_connections",
    "pgbouncer_pools_client_maxwait_seconds",
    "pg_stat_database_blks_hit",
    "pg_stat_database_blks_read",
    "migration_rows_copied",
    "migration_rows_total",
    "migration_fence_seconds",
    "migration_differences",
    "migration_certificate_age_seconds",
    "migration_window_left_seconds",
    "backup_last_success",
    "migration_heartbeat_timestamp_seconds",
    "backup_last_success_timestamp_seconds",
    "backup_count",
)
RATES = (
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "pg_stat_database_deadlocks",
    "pg_stat_database_temp_files",
    "pg_stat_archiver_archived_count",
    "pg_stat_archiver_failed_count",
)
LABELLED = {
    "pg_database_size_bytes": ("datname", "radcase<b>"),
    "migration_phase": ("phase", "switched"),
    "migration_lag_seconds": ("direction", "reverse"),
    "migration_lag_changes": ("direction", "reverse"),
}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _exporter() -> int:
    registry = CollectorRegistry()
    for name in PLAIN:
        Gauge(name, name, registry=registry).set(time.time() if "timestamp" in name else 1)
    for name, (label, value) in LABELLED.items():
        Gauge(name, name, [label], registry=registry).labels(value).set(1)
    for name in RATES:
        # The exporters' counters bear no _total, which this library would append.
        Gauge(name, name, registry=registry).set(5)
    port = _free_port()
    start_http_server(port, addr="127.0.0.1", registry=registry)
    return port


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("prometheus")
    if program is None:
        lacking("prometheus is not installed (Debian: apt-get install prometheus)")
    home: Path = tmp_path_factory.mktemp("prometheus")
    port = _free_port()
    scrape = {"job_name": "all", "static_configs": [{"targets": [f"127.0.0.1:{_exporter()}"]}]}
    (home / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]})
    )
    process = subprocess.Popen(
        [
            program,
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def dashboard(prometheus: str) -> Iterator[Dashboard]:
    with Dashboard(Prometheus(prometheus), BOARDS, host="127.0.0.1", port=0) as page:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not _scraped(page):
            assert time.monotonic() < deadline, "Prometheus scraped nothing"
            time.sleep(0.2)
        yield page


def _scraped(page: Dashboard) -> bool:
    try:
        return all(page.panel(b.name, n) for b in BOARDS for n in range(len(b.panels)))
    except OSError:
        return False


def test_every_panel_is_drawn(dashboard: Dashboard, browser: Browser) -> None:
    browser.open(dashboard.url)
    panels = sum(len(board.panels) for board in BOARDS)
    deadline = time.monotonic() + LIMIT_SECONDS
    while browser.run("return document.querySelectorAll('.panel svg').length") != panels:
        assert time.monotonic() < deadline, browser.run("return document.body.innerText")
        time.sleep(0.1)
    assert browser.run("return document.getElementById('state').textContent").startswith("as of")
    text = browser.run("return document.body.innerText")
    assert "radcase<b>" in text, "a label is text, never markup"
    assert browser.log() == []
    axes = browser.run("return document.querySelectorAll('.panel .axis').length")
    assert axes == 3 * panels, "every curve says between which values and times it is"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_it(
    dashboard: Dashboard, browser: Browser, axe: str, scheme: str
) -> None:
    browser.emulate(**{"prefers-color-scheme": scheme})
    browser.resize(400, 900)
    try:
        browser.open(dashboard.url)
        deadline = time.monotonic() + LIMIT_SECONDS
        while not browser.run("return document.querySelectorAll('.panel svg').length"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert browser.run("return document.documentElement.scrollWidth") <= 400
        assert browser.serious(axe) == []
    finally:
        browser.emulate()
        browser.resize(1200, 1600)


def test_a_browser_that_leaves_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """It closes its page while a panel's answer is on its way."""

    class Slow(Prometheus):
        def range(self, query: Query, *, now: float) -> list[dict[str, Any]]:
            left.wait(LIMIT_SECONDS)
            return [{"legend": "x" * 9_000_000, "points": [[now, 1.0]]}]

    left = threading.Event()
    away = Slow("http://127.0.0.1:9")
    with Dashboard(away, (MIGRATION,), host="127.0.0.1", port=0) as page:
        port = int(page.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /panel/migration/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        left.set()
        with urllib.request.urlopen(f"{page.url}layout", timeout=LIMIT_SECONDS) as answer:  # noqa: S310
            assert answer.status == 200
    deadline = time.monotonic() + LIMIT_SECONDS
    while any(
        t.name.startswith("Thread-") and "process_request" in t.name for t in threading.enumerate()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "Traceback" not in capfd.readouterr().err


def test_it_answers_for_panels_alone(dashboard: Dashboard) -> None:
    for path in ("panel/database/99", "panel/none/0", "panel/database/-1", "panel/", "etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(dashboard.url + path, timeout=10)  # noqa: S310
        assert refused.value.code == 404


def test_a_prometheus_that_is_away_is_said(browser: Browser) -> None:
    away = Prometheus(f"http://127.0.0.1:{_free_port()}")
    with Dashboard(away, (MIGRATION,), host="127.0.0.1", port=0) as page:
        browser.open(page.url)
        deadline = time.monotonic() + LIMIT_SECONDS
        while browser.run("return document.getElementById('state').className") != "bad":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        said = browser.run("return document.getElementById('state').textContent")
    assert said == "Prometheus does not answer: Connection refused"


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="http or https"):
        Prometheus("file:///etc/passwd")


def answered(page: Dashboard, host: str | None, path: str = "/layout") -> int:
    """The status of a request with that Host header, or none."""
    port = int(page.url.rsplit(":", 1)[1].rstrip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_another_sites_name_reads_nothing() -> None:
    away = Prometheus(f"http://127.0.0.1:{_free_port()}")
    names = {"host": "127.0.0.1", "names": ("Panels.example",)}
    with Dashboard(away, (MIGRATION,), port=0, **names) as page:  # type: ignore[arg-type]
        for host in ("127.0.0.1", "localhost:8090", "[::1]:8090", "192.0.2.7", "panels.EXAMPLE:1"):
            assert answered(page, host) == 200, host
        others = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", None)
        for other in others:
            for path in ("/", "/layout", "/panel/migration/0"):
                assert answered(page, other, path) == 421, other


@pytest.mark.parametrize("said", [b"{}", b"[]", b"not JSON", b'{"data": {"result": [{}]}}'])
def test_an_answer_that_is_not_prometheus_is_no_missing_panel(said: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        strange = Prometheus(f"http://127.0.0.1:{other.server_port}")
        with Dashboard(strange, (MIGRATION,), host="127.0.0.1", port=0) as page:
            assert answered(page, "localhost", f"/panel/{MIGRATION.name}/0") == 502
        other.shutdown()
