"""Rendered files say what the settings say, and no value can become a line of its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import credentials, rendering, roles
from infra.names import Names
from infra.scram import verifier
from infra.settings import Settings, read

NAMES = Names("radcase", "test")


def settings(**raw: object) -> Settings:
    return read({"source": "a.db", **raw}, "test")


def lines(text: str, mark: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith(mark))
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def test_postgresql_conf_shows_what_an_override_replaced() -> None:
    text = rendering.postgresql_conf(settings(postgresqlSettings={"work_mem": "8MB"}), "test")
    assert "# computed: 4MB; set in the stage file\nwork_mem = '8MB'" in text
    assert "# a quarter of the container's memory\nshared_buffers = '256MB'" in text


def test_a_quote_in_a_setting_stays_in_its_string() -> None:
    hostile = "a' \\' listen"
    text = rendering.postgresql_conf(
        settings(postgresqlSettings={"log_line_prefix": hostile}), "test"
    )
    assert "log_line_prefix = 'a'' \\\\'' listen'" in text


def test_braces_in_a_setting_are_text() -> None:
    text = rendering.postgresql_conf(
        settings(postgresqlSettings={"log_line_prefix": "{{ 7 * 7 }}{% raw %}"}), "test"
    )
    assert "log_line_prefix = '{{ 7 * 7 }}{% raw %}'" in text


@given(st.text())
def test_no_value_leaves_its_line(value: str) -> None:
    try:
        quoted = rendering._quoted(value)
    except ValueError:
        assert any(ord(c) < 32 or ord(c) == 127 for c in value)
    else:
        assert not re.search(r"[\x00-\x1f\x7f]", quoted)
        assert re.fullmatch(r"'(?:[^'\\]|''|\\\\)*'", quoted)


def test_pg_hba_admits_by_scram_alone() -> None:
    text = rendering.pg_hba_conf(settings(allowedNetworks=["10.1.0.0/16"]), "test")
    rules = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert {rule[-1] for rule in rules} == {"scram-sha-256", "reject"}
    assert ["host", "all", "postgres", "all", "reject"] in rules
    assert ["host", "all", "all", "10.1.0.0/16", "scram-sha-256"] in rules
    assert rules[-1] == ["host", "all", "all", "all", "reject"]


def test_pgbouncer_ini_has_the_strategys_pool_and_no_alias() -> None:
    text = rendering.pgbouncer_ini(settings(), NAMES, "test")
    values = lines(text, ";")
    assert (
        values.items()
        >= {
            "pool_mode": "transaction",
            "default_pool_size": "20",
            "min_pool_size": "5",
            "server_idle_timeout": "30",
            "server_connect_timeout": "2",
            "server_login_retry": "0.2",
            "max_prepared_statements": "200",
            "auth_type": "scram-sha-256",
        }.items()
    )
    assert "radcase" not in values
    databases = text[text.index("[databases]") : text.index("[pgbouncer]")]
    assert "%include /var/lib/pgbouncer/alias.ini" in databases


def test_userlist_doubles_quotes() -> None:
    assert rendering.userlist([('a"b', "secret")]) == '"a""b" "secret"\n'


def test_a_verifier_is_postgresqls() -> None:
    # RFC 5802's construction over a fixed salt, as PostgreSQL 14 itself made it for this password.
    assert verifier("pencil", bytes(range(16))).startswith(
        "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$"
    )
    with pytest.raises(ValueError, match="ASCII letters and digits"):
        verifier("pass word", b"salt")


def test_the_roles_script_holds_no_password_and_quotes_everything() -> None:
    verifiers = {
        role: verifier("secret" + role, b"0123456789abcdef")
        for role in ("application", "migration", "reader", "monitor", "pooler", "backup")
    }
    script = roles.statements(NAMES, verifiers, 14)
    assert "secret" not in script.replace("secrets", "")
    assert "{" not in script
    assert "GRANT SET ON PARAMETER" not in script
    assert "GRANT SET ON PARAMETER" in roles.statements(NAMES, verifiers, 15)


def test_only_a_proof_has_the_job_make_databases() -> None:
    none = dict.fromkeys(credentials.EVERY, "")
    plain, proven = (roles.statements(NAMES, none, 18, copies=copies) for copies in (False, True))
    owner, job = roles.identifier(NAMES.owner_role), roles.identifier(NAMES.migration_role)
    assert f"ALTER ROLE {owner} NOLOGIN NOCREATEDB;" in plain
    assert f"REVOKE CONNECT ON DATABASE postgres FROM {job};" in plain
    assert f"ALTER ROLE {owner} NOLOGIN CREATEDB;" in proven
    assert f"GRANT CONNECT ON DATABASE postgres TO {job};" in proven
    servers = [roles.Server("c", "1", "", 18, copies=copies) for copies in (False, True)]
    assert len({roles.digest(NAMES, server) for server in servers}) == 2


def test_the_roles_script_closes_public_also_for_another_schema() -> None:
    none = dict.fromkeys(credentials.EVERY, "")
    plain = roles.statements(NAMES, none, 15)
    named = roles.statements(NAMES, none, 15, "sales")
    assert "IN DATABASE" not in plain
    assert 'SET search_path = "sales"' in named
    assert 'REVOKE ALL ON SCHEMA "public" FROM PUBLIC' in plain
    assert named.count('REVOKE ALL ON SCHEMA "public" FROM PUBLIC') == 1
    assert 'ALTER SCHEMA "sales" OWNER TO' in named


@pytest.mark.parametrize("name", ["a; DROP ROLE x", 'a"b', "A", "", "a" * 64])
def test_a_name_that_is_no_plain_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="plain identifier"):
        roles.identifier(name)
