"""A running stage is closed: TLS where the settings ask for it, passwords by SCRAM, secrets only in
files, and roles that may do no more than they are for."""

from __future__ import annotations

import json

import psycopg
import pytest

from infra import members
from infra.execution import execute
from tests.deployment import rights
from tests.deployment.engine import output
from tests.deployment.provisioned.conftest import Provisioned

pytestmark = [pytest.mark.pulumi, pytest.mark.xdist_group("docker")]


# ------------------------------------------------------------------------------------ TLS


def test_the_application_speaks_tls(stage: Provisioned) -> None:
    if stage.settings.tls == "off" and not (stage.settings.external and not stage.settings.pooler):
        pytest.skip("the stage file has tls: off")
    with stage.application() as connection:
        used = connection.pgconn.ssl_in_use
    external = stage.settings.external
    if external and not stage.settings.pooler and external.sslmode in ("disable", "prefer"):
        pytest.skip(f"the stage file has external.sslmode: {external.sslmode}")
    assert used


def test_the_pooler_refuses_plain_connections(stage: Provisioned) -> None:
    stage.needs(stage.names.pooler)
    _requires_tls(stage)
    stage.reachable(stage.settings.pooler_port)
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        psycopg.connect(
            stage.dsn(port=stage.settings.pooler_port, sslmode="disable", sslrootcert="")
        )


def test_postgres_refuses_plain_connections(stage: Provisioned) -> None:
    stage.postgres()
    _requires_tls(stage)
    stage.reachable(stage.settings.postgres_port)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(
            stage.dsn(port=stage.settings.postgres_port, sslmode="disable", sslrootcert="")
        )
    plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
    # The container's own socket needs none.
    assert stage.query(plain + "WHERE NOT ssl AND client_addr IS NOT NULL") == "0"


def _requires_tls(stage: Provisioned) -> None:
    if stage.settings.tls == "off":
        pytest.skip("the stage file has tls: off")


# -------------------------------------------------------------------------------- secrets


def test_every_way_in_asks_for_a_scram_password(stage: Provisioned) -> None:
    methods = stage.query("SELECT DISTINCT auth_method FROM pg_hba_file_rules").split()
    assert set(methods) == {"scram-sha-256", "reject"}
    others = stage.query(
        "SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    )
    assert others == ""


def test_the_configuration_is_readable_by_its_service_alone(stage: Provisioned) -> None:
    looked = 0
    for container in stage.services():
        configuration = {
            mount["Destination"]
            for mount in container.attrs["Mounts"]
            if mount.get("Name") == f"{container.name}-config"
        }
        for directory in configuration:
            listed = execute(
                container, ["find", directory, "-type", "f", "-printf", "%m %p\\n"], user="0"
            )
            lines = output(listed).splitlines()
            looked += len(lines)
            assert [line for line in lines if not line.startswith("400 ")] == [], container.name
    assert looked > 0


def test_no_secret_shows_in_the_engine_or_a_log(stage: Provisioned) -> None:
    secret = stage.outputs["password"]
    for container in stage.services():
        assert secret not in json.dumps(container.attrs), container.name
        assert secret.encode() not in container.logs(), container.name
        assert secret.encode() not in execute(container, ["cat", "/proc/1/environ"]).output
        assert secret.encode() not in execute(container, ["cat", "/proc/1/cmdline"]).output


# ---------------------------------------------------------------------------------- roles


def test_the_roles_may_do_what_they_are_for_and_no_more(stage: Provisioned) -> None:
    """Each statement as each role; rolled back, whatever comes of it."""
    version = stage.settings.postgres_version
    stage.postgres()
    fleet = bool(stage.settings.fleet)
    if fleet and not stage.switched:
        pytest.skip("a fleet's applications have no rights before they are admitted")
    table = stage.query(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
        f"WHERE schemaname IN ({stage.schemas}) ORDER BY 1 LIMIT 1",
        stage.names.database,
    )
    records = rights.FLEET_RECORDS if fleet else rights.RECORDS
    for role in rights.of(stage.names, version, table=table, records=records):
        tried = [*((one, True) for one in role.may), *((one, False) for one in role.may_not)]
        answers = _answers(stage, role, [statement for statement, _ in tried])
        wrong = [
            f"{statement}: {state}"
            for (statement, may), state in zip(tried, answers, strict=True)
            if state != ("00000" if may else rights.REFUSED)
        ]
        assert wrong == [], role.name
        for database in role.closed_to:
            asked = f"SELECT has_database_privilege('{role.name}', '{database}', 'CONNECT')"
            assert stage.query(asked) == "f", (role.name, database)


def _answers(stage: Provisioned, role: rights.Rights, statements: list[str]) -> list[str]:
    """The SQLSTATE of each statement as that role."""
    script = [
        "\\set VERBOSITY sqlstate",
        f'SET SESSION AUTHORIZATION "{role.name}";',
        "SET default_transaction_read_only = off;",
    ]
    if role.name == stage.names.migration_role:
        script.append(f'SET ROLE "{stage.names.owner_role}";')
    for statement in statements:
        alone = statement.startswith(rights.OUTSIDE_TRANSACTIONS)
        begin, end = ("", "") if alone else ("BEGIN;", "ROLLBACK;")
        script += [begin, f"{statement};", "\\echo @:SQLSTATE", end]
    words = [word for line in script if line for word in ("-c", line)]
    _, said = stage.psql(words, role.database)
    return [line[1:] for line in said.splitlines() if line.startswith("@")]


def test_no_role_has_an_attribute_beyond_logging_in(stage: Provisioned) -> None:
    risky = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    settings, names = stage.given
    upgrading = settings.upgrade_to and settings.upgrade_step != "settle"
    allowed = {"postgres", *([names.upgrade_role] if upgrading else ())}
    # By it the members follow, and it may do nothing else.
    allowed |= {names.replication_role} if members.of(settings, names) else set()
    assert set(stage.query(f"SELECT rolname FROM pg_roles WHERE {risky}").split()) == allowed


def test_the_application_may_change_rows_and_nothing_else(stage: Provisioned) -> None:
    """With its own login, through the pool where there is one."""
    records = rights.FLEET_RECORDS if stage.settings.fleet else rights.RECORDS
    attempts = ["COPY (SELECT 1) TO PROGRAM 'cat'", records[0]]
    if stage.settings.external is None:
        attempts += [*rights.NO_DDL, rights.NO_REPLICA, f"SET ROLE {stage.names.owner_role}"]
    with stage.application() as connection:
        for attempt in attempts:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attempt.encode())
