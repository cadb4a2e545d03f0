"""How the application's own step finds the new database, and what the job is told of its tables."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from infra import live, migration
from infra.application_schema import environment, step_of

PASSWORD = "p@ss/w:rd"
PROPS: dict[str, Any] = {
    # Numbers come back from the state as floats.
    "target": {"host": "postgres", "port": 5432.0, "database": "shop", "user": "shop_migration"},
    "password": PASSWORD,
    "authority": "",
    "step": {"image": "shop:4.2", "command": ["migrate"], "environment": {"KEY": "secret"}},
}


def test_libpq_and_a_url_lead_to_the_same_database() -> None:
    found = environment(PROPS)
    assert found == {
        "PGHOST": "postgres",
        "PGPORT": "5432",
        "PGDATABASE": "shop",
        "PGUSER": "shop_migration",
        "PGPASSWORD": PASSWORD,
        "DATABASE_URL": f"postgresql://shop_migration:{quote(PASSWORD, safe='')}"
        "@postgres:5432/shop",
    }


def test_with_tls_the_authority_is_a_file_of_the_container() -> None:
    props = {**PROPS, "authority": "-----BEGIN CERTIFICATE-----"}
    found = environment(props)
    assert (found["PGSSLMODE"], found["PGSSLROOTCERT"]) == ("verify-full", live.AUTHORITY_FILE)
    assert conninfo_to_dict(found["DATABASE_URL"])["sslrootcert"] == live.AUTHORITY_FILE
    assert step_of(props).files == {"ca.crt": props["authority"]}


def test_a_cluster_is_asked_for_its_leader() -> None:
    target = {**PROPS["target"], "host": "a,b", "port": "5432,5433", "sslmode": "require"}
    found = environment({**PROPS, "target": target})
    assert (found["PGHOST"], found["PGPORT"]) == ("a,b", "5432,5433")
    assert found["PGTARGETSESSIONATTRS"] == "read-write"
    assert found["PGSSLMODE"] == "require"


def test_no_form_of_the_password_is_shown() -> None:
    step = step_of(PROPS)
    assert set(step.hidden) == {PASSWORD, quote(PASSWORD, safe="")}
    assert step.environment["KEY"] == "secret"
    assert PASSWORD not in repr(step)
    assert "secret" not in repr(step)


def test_the_job_is_told_whose_tables_they_are() -> None:
    props = {
        "source": "/data/a.db",
        "report_directory": "/report",
        "profile_path": "none",
        "policy": "",
        "strategy": "offline",
        "target": PROPS["target"],
    }
    assert "--schema" not in migration.arguments(props)
    words = migration.arguments({**props, "schema": "existing"})
    assert words[words.index("--schema") + 1] == "existing"
