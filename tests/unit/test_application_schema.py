"""How the application's own step finds the new database, and what the job is told of its tables."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from infra import application_schema, cutover, migration
from infra.application_schema import environment, step_of
from infra.errors import StageError
from infra.inputs import AUTHORITY_FILE, CutoverInputs, MigrationInputs, SchemaInputs, TargetInputs
from migration_job.place import schema_of

PASSWORD = "p@ss/w:rd"
PLACE = {
    "docker_host": "",
    "image": "job",
    "network": "shop-dev",
    "user": "1000:1000",
    "memory": 536870912.0,
    "log_size": 10485760.0,
    "log_files": 5.0,
    "binds": ["/srv"],
    "stage": "dev",
}
PROPS: dict[str, Any] = {
    # Numbers come back from the state as floats.
    "target": {"host": "postgres", "port": 5432.0, "database": "shop", "user": "shop_migration"},
    "password": PASSWORD,
    "authority": "",
    "step": {"image": "shop:4.2", "command": ["migrate"], "environment": {"KEY": "secret"}},
    "place": PLACE,
    "container": "shop-dev-migration",
    "connection_directory": "/srv/connection",
}


JOBS_PROPS: dict[str, Any] = {
    **PROPS,
    "source": "/data/a.db",
    "strategy": "offline",
    "report_directory": "/report",
    "state_directory": "/state",
    "application_password": "one",
    "console_password": "another",
    "console": {},
    "connection": {"port": 6432.0},
    "job_digest": "",
    "profile": "none",
    "profile_path": "none",
    "policy": "",
    "target_version": "18",
}
"""What the job itself is given."""


def inputs(**changed: object) -> SchemaInputs:
    return SchemaInputs.of({**PROPS, **changed})


def test_libpq_and_a_url_lead_to_the_same_database() -> None:
    found = environment(inputs())
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
    closed = inputs(authority="-----BEGIN CERTIFICATE-----")
    found = environment(closed)
    assert (found["PGSSLMODE"], found["PGSSLROOTCERT"]) == ("verify-full", AUTHORITY_FILE)
    assert conninfo_to_dict(found["DATABASE_URL"])["sslrootcert"] == AUTHORITY_FILE
    assert step_of(closed, closed.step).files == {"ca.crt": closed.authority}


def test_a_cluster_is_asked_for_its_leader() -> None:
    target = {**PROPS["target"], "host": "a,b", "port": "5432,5433", "sslmode": "require"}
    found = environment(inputs(target=target))
    assert (found["PGHOST"], found["PGPORT"]) == ("a,b", "5432,5433")
    assert found["PGTARGETSESSIONATTRS"] == "read-write"
    assert found["PGSSLMODE"] == "require"


def test_no_form_of_the_password_is_shown() -> None:
    step = step_of(inputs(), inputs().step)
    assert set(step.hidden) == {PASSWORD, quote(PASSWORD, safe="")}
    assert step.environment["KEY"] == "secret"
    assert PASSWORD not in repr(step)
    assert "secret" not in repr(step)


def test_the_job_is_told_whose_tables_they_are() -> None:
    assert "--schema" not in migration.arguments(MigrationInputs.of(JOBS_PROPS))
    words = migration.arguments(MigrationInputs.of({**JOBS_PROPS, "schema": "existing"}))
    assert words[words.index("--schema") + 1] == "existing"


def test_a_state_gives_whole_numbers_and_says_what_it_lacks() -> None:
    assert inputs().place.memory == 536870912
    assert inputs().target.port == 5432
    assert isinstance(inputs().place.memory, int)
    lacking = {key: value for key, value in PROPS.items() if key != "target"}
    with pytest.raises(StageError, match="target: Field required") as raised:
        SchemaInputs.of(lacking)
    assert PASSWORD not in str(raised.value)


def test_what_is_secret_is_marked_on_its_field() -> None:
    of_the_job = ["password", "application_password", "console_password"]
    assert MigrationInputs.secrets() == [*of_the_job, "proof"]
    assert CutoverInputs.secrets() == of_the_job
    assert TargetInputs.secrets() == ["password"]
    assert SchemaInputs.secrets() == ["password", "step"]
    assert PASSWORD not in repr(inputs())


def test_a_resource_is_refused_inputs_that_no_provider_reads() -> None:
    assert SchemaInputs.declared(PROPS) == PROPS
    with pytest.raises(TypeError, match="clster"):
        SchemaInputs.declared({**PROPS, "clster": "7"})
    with pytest.raises(TypeError, match="password"):
        SchemaInputs.declared({key: value for key, value in PROPS.items() if key != "password"})
    for names, model in (
        (migration.DECISIVE, MigrationInputs),
        (cutover.DECISIVE, CutoverInputs),
        (application_schema.DECISIVE, SchemaInputs),
    ):
        assert names <= {field.alias or name for name, field in model.model_fields.items()}


def test_another_schema_is_where_everybody_looks_first() -> None:
    named = inputs(target={**PROPS["target"], "schema_name": "sales"}, authority="-----BEGIN")
    assert schema_of(named.dsn) == "sales"
    assert conninfo_to_dict(named.dsn)["sslmode"] == "verify-full"
    assert environment(named)["PGOPTIONS"] == conninfo_to_dict(named.dsn)["options"]
    assert schema_of(inputs().dsn) == "public"
