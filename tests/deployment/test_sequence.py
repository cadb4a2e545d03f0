"""The whole way by the real Pulumi CLI on a real engine: up, up again, check, destroy; under a
certificate of the operator's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra import certificates
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Result, Workshop, check, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

ROWS = 3000


def given(directory: Path) -> dict[str, str]:
    """A certificate for where the application connects to, by an authority that is not the stage's;
    as settings."""
    authority, key = certificates.authority("somebody's own")
    certificate, server_key, _ = certificates.issue(authority, key, ["127.0.0.1"])
    made = {"tlsCertificate": certificate, "tlsKey": server_key, "tlsAuthority": authority}
    for name, text in made.items():
        (directory / f"{name}.pem").write_text(text)
    return {name: str(directory / f"{name}.pem") for name in made}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("stage")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=ROWS, seed=7)
    made = Workshop(
        directory, client, source=str(source), profile="radcase", tls="given", **given(directory)
    )
    yield made
    made.clear()


@pytest.fixture(scope="module")
def first(workshop: Workshop) -> Result:
    """The first `up`."""
    done = workshop.up()
    assert not done.failed, done.output
    return done


def said(workshop: Workshop) -> dict[str, object]:
    found: dict[str, object] = json.loads((workshop.connection / "database.json").read_text())
    return found


def dsn(first: Result) -> str:
    out = first.outputs
    return (
        f"host={out['host']} port={int(out['port'])} dbname={out['database']} "
        f"user={out['user']} password={out['password']} "
        f"sslmode=verify-full sslrootcert={out['connection']}/ca.crt"
    )


def test_up_moves_verifies_and_switches(workshop: Workshop, first: Result) -> None:
    assert first.outputs["phase"] == "switched"
    assert first.outputs["rows"] == ROWS
    assert len(first.outputs["certificate"]) == 64
    assert Path(first.outputs["report"]).is_file()
    assert said(workshop)["write"]["engine"] == "postgresql"  # type: ignore[index]
    with psycopg.connect(dsn(first)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    assert count > 0


def test_up_shows_the_jobs_progress(first: Result) -> None:
    for words in ("snapshot:", "copy:", "verify:", "verified", "PostgreSQL serves"):
        assert words in first.output


def test_a_second_up_changes_nothing_and_is_quick(workshop: Workshop, first: Result) -> None:
    second = workshop.up()
    assert not second.failed, second.output
    assert set(second.changes) == {"same"}, second.output
    assert second.processor_seconds < 10
    assert second.outputs == first.outputs


def test_no_secret_is_in_the_state_nor_was_printed(workshop: Workshop, first: Result) -> None:
    secret, state = first.outputs["password"], workshop.export()
    assert secret not in state
    assert "PRIVATE KEY" not in state
    assert secret not in first.output


def test_check_passes(workshop: Workshop, first: Result) -> None:
    check(workshop)


def test_destroy_goes_back_to_sqlite_with_what_was_written_since(
    workshop: Workshop, first: Result
) -> None:
    with psycopg.connect(dsn(first), autocommit=True) as connection:
        connection.execute("UPDATE cases SET diagnosis = 'written on PostgreSQL'")
        (count,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    done = workshop.destroy()
    assert not done.failed, done.output
    assert said(workshop)["write"]["engine"] == "sqlite"  # type: ignore[index]
    with sqlite3.connect(str(workshop.settings["source"])) as source:
        (back,) = source.execute(
            "SELECT count(*) FROM cases WHERE diagnosis = 'written on PostgreSQL'"
        ).fetchone()
        source.execute("UPDATE cases SET diagnosis = 'open again'")
    assert back == count
    assert workshop.left() == []
