"""Row-level security of the RadCase profile: two institutions, through one pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner, Result

from migration_job.cli import app
from migration_job.demo.radcase import make_radcase
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.suitability import examine

PROFILE = Path(__file__).resolve().parents[2] / "migration_job" / "profiles" / "radcase"
PASSWORD = "for-this-test-alone"
ALIAS = "radcase"


def migrate(directory: Path, target: str, policy: str, *more: str) -> Result:
    source = directory / "radcase.db"
    if not source.exists():
        make_radcase(source, rows=3000, seed=7)
    (directory / "policy.yaml").write_text(policy)
    words = ["migrate", str(source), "--target", target, "--report", str(directory / "report")]
    words += ["--profile", "radcase", "--policy", str(directory / "policy.yaml")]
    return CliRunner().invoke(app, [*words, *more])


@pytest.fixture
def pooled(
    postgres_server: EmbeddedPostgres, postgres: str, pgbouncer: EmbeddedPgBouncer, tmp_path: Path
) -> Iterator[psycopg.Connection]:
    """The application's role, through the pool, on a target with row-level security."""
    done = migrate(tmp_path, postgres, "enable: [row-level-security]\n")
    assert done.exit_code == 0, done.output
    database = str(conninfo_to_dict(postgres)["dbname"])
    role = f"{database}_application"
    postgres_server.create_role(role, PASSWORD)
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        )
    pgbouncer.alias_path.write_text(pgbouncer.alias_line(ALIAS, database) + "\n")
    with psycopg.connect(pgbouncer.admin_dsn, autocommit=True) as console:
        console.execute("RELOAD")
    dsn = pgbouncer.dsn(ALIAS, user=role, password=PASSWORD)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"DROP OWNED BY {role}")


def institutions(postgres: str) -> list[str]:
    with psycopg.connect(postgres) as owner:
        rows = owner.execute(
            "SELECT institution_id::text FROM users WHERE institution_id IS NOT NULL "
            "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 2"
        ).fetchall()
    return [row[0] for row in rows]


def seen(connection: psycopg.Connection, institution: str, query: str) -> set[str]:
    with connection.transaction():
        connection.execute("SELECT set_config('radcase.institution_id', %s, true)", (institution,))
        return {str(row[0]) for row in connection.execute(query.encode()).fetchall()}


QUERIES = {
    "users": "SELECT id FROM users WHERE institution_id IS NOT NULL",
    "user_case_progress": "SELECT user_id::text || case_id FROM user_case_progress "
    "WHERE user_id::text <> '00000000-0000-4000-8000-000000000001'",
    "programs": "SELECT id FROM programs",
}


def test_two_institutions_do_not_see_each_other(pooled: psycopg.Connection, postgres: str) -> None:
    one, other = institutions(postgres)
    for table, query in QUERIES.items():
        of_one, of_other = seen(pooled, one, query), seen(pooled, other, query)
        assert of_one, table
        assert of_one.isdisjoint(of_other), table
        # What one transaction said is gone with it: the pool's next client starts from nothing.
        assert {str(row[0]) for row in pooled.execute(query.encode())} == set(), table


def test_neither_can_write_for_the_other(pooled: psycopg.Connection, postgres: str) -> None:
    one, other = institutions(postgres)
    query = f"UPDATE users SET institution_id = '{other}' RETURNING id"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen(pooled, one, query)
    with pooled.transaction():
        pooled.execute("SELECT set_config('radcase.institution_id', %s, true)", (one,))
        touched = pooled.execute(
            "UPDATE users SET display_name = 'taken' WHERE institution_id::text = %s", (other,)
        ).rowcount
    assert touched == 0


def test_a_feature_that_is_not_there_is_refused(postgres: str, tmp_path: Path) -> None:
    done = migrate(tmp_path, postgres, "enable: [row-levle-security]\n")
    assert done.exit_code != 0
    assert "row-level-security" in str(done.exception)


def test_citus_without_the_extension_shows_its_plan(postgres: str, tmp_path: Path) -> None:
    done = migrate(tmp_path, postgres, "enable: [citus]\n")
    assert done.exit_code == 0, done.output
    findings = json.loads((tmp_path / "report" / "report.json").read_text())["findings"]
    (plan,) = [one["message"] for one in findings if one["code"] == "feature-enabled"]
    assert "reference tables" in plan
    assert "distributed by user_id" in plan


STAND_IN = """
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (999999, 'citus', 10, 'public'::regnamespace, false, '0');
CREATE TABLE public.called (n serial, what text, which text, by text);
CREATE FUNCTION create_reference_table(which regclass) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO public.called (what, which) VALUES ('reference', which::text) $$;
CREATE FUNCTION create_distributed_table(which regclass, by text) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO public.called (what, which, by) VALUES ('distributed', which::text, by) $$;
"""
"""The two functions of Citus that the profile calls, which write down that they were."""


CATALOGUE = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
"""


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_citus_is_refused_by_name_before_anything(
    postgres: str, tmp_path: Path, live: list[str]
) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(STAND_IN.encode())
        connection.execute("DROP TABLE called CASCADE")
        for name in (
            "create_reference_table(regclass)",
            "create_distributed_table(regclass, text)",
        ):
            connection.execute(f"DROP FUNCTION {name}".encode())
    more = [*live, "--state", str(tmp_path / "state")] if live else []
    done = migrate(tmp_path, postgres, "enable: [citus]\n", *more)
    assert done.exit_code != 0
    assert "expected a target whose tables stay whole" in str(done.exception)
    with psycopg.connect(postgres, autocommit=True) as connection:
        assert connection.execute("SELECT to_regclass('migration.run')").fetchone() == (None,)
    # An extension that distributes nothing is in nobody's way.
    assert migrate(tmp_path, postgres, "").exit_code == 0


def test_tables_that_are_distributed_already_are_refused(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(STAND_IN.encode())
        connection.execute(CATALOGUE.encode())
        connection.execute("INSERT INTO pg_dist_partition VALUES ('public.called')")
    done = migrate(tmp_path, postgres, "")
    assert done.exit_code != 0
    assert "distributed: called" in str(done.exception)
    with connect(postgres) as session:
        checks = examine(session, source_bytes=1, connections=1, live=False)
    (check,) = [check for check in checks if check.name == "citus"]
    assert (check.verdict, "called" in check.found) == ("refused", True)


def test_where_citus_is_the_tables_are_made_what_the_plan_says(
    postgres: str, tmp_path: Path
) -> None:
    """Parents before children: Citus refuses a reference table that refers to a plain one."""
    assert migrate(tmp_path, postgres, "").exit_code == 0
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(STAND_IN.encode())
        connection.execute((PROFILE / "020_citus.sql").read_bytes())
        called = connection.execute("SELECT what, which, by FROM called ORDER BY n").fetchall()
        references = connection.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint "
            "WHERE contype = 'f' AND conrelid <> confrelid"
        ).fetchall()
    placed = [which for _, which, _ in called]
    assert {which for what, which, _ in called if what == "reference"} == {
        *("institutions", "programs", "users", "cases", "images", "tags"),
    }
    assert {(which, by) for what, which, by in called if what == "distributed"} == {
        (one, "user_id") for one in ("user_case_progress", "user_xp", "active_sessions")
    }
    wrong = [
        (child, parent)
        for child, parent in references
        if child in placed and (parent not in placed or placed.index(parent) > placed.index(child))
    ]
    assert wrong == []
