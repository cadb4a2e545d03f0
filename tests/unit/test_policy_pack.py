"""What the policy pack refuses, and that it lets a closed stage pass."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from infra import rendering
from infra.names import Names
from infra.settings import read_file
from policy import guards

ROOT = Path(__file__).resolve().parents[2]
HBA = (
    "local all all scram-sha-256\nhostssl all all samenet scram-sha-256\nhost all all all reject\n"
)
INI = (
    "[pgbouncer]\nauth_type = scram-sha-256\nclient_tls_sslmode = require\n"
    "server_tls_sslmode = verify-full\n"
)
CLOSED: dict[str, Any] = {
    "image": "postgres@sha256:" + "0" * 64,
    "memory": 512,
    "logOpts": {"max-size": "10m"},
    "restart": "unless-stopped",
    "healthcheck": {"tests": ["CMD", "true"]},
    "ports": [{"internal": 5432, "external": 15432, "ip": "127.0.0.1"}],
    "volumes": [{"volumeName": "data", "containerPath": "/data"}],
    "mounts": [{"type": "bind", "source": "/srv/radcase", "target": "/srv/radcase"}],
}
FILES: dict[str, Any] = {
    "files": {"pg_hba.conf": HBA, "pgbouncer.ini": INI, "postgresql.conf": "ssl = 'on'\n"}
}


def check(properties: dict[str, Any], stage: str = "production") -> list[str]:
    return guards.violations(guards.CONTAINER, "db", properties, stage=stage)


def check_file(file: str, content: str, stage: str = "production") -> list[str]:
    changed = {"files": {**FILES["files"], file: content}}
    return guards.violations(guards.DYNAMIC, "db", changed, stage=stage)


def test_a_closed_container_passes() -> None:
    assert check(CLOSED) == []
    assert guards.violations(guards.DYNAMIC, "db", FILES, stage="production") == []


@pytest.mark.parametrize(
    "image", ["sha256:" + "0" * 64, "sqlite-to-postgresql/postgres-14:0123456789abcdef"]
)
def test_an_image_of_fixed_content_passes(image: str) -> None:
    assert check({**CLOSED, "image": image}) == []


def _with(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(CLOSED)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return changed  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("ports", 0, "ip"), "0.0.0.0", "bindAddress"),  # noqa: S104
        (("ports", 0, "ip"), "::", "bindAddress"),
        (("ports", 0, "ip"), None, "bindAddress"),
        (("memory",), None, "memory limit"),
        (("logOpts",), {}, "rotate its log"),
        (("privileged",), True, "privileges"),
        (("networkMode",), "host", "host's"),
        (("volumes", 0), {"hostPath": "/var/run/docker.sock"}, "socket"),
        (("mounts", 0), {"type": "bind", "source": "/run/user/1000/docker.sock"}, "gate.command"),
        (("healthcheck",), None, "health check"),
        (("image",), "postgres:14", "by digest"),
        (("image",), "sqlite-to-postgresql/pooler:latest", "by digest"),
        (("image",), None, "by digest"),
    ],
)
def test_an_opened_container_is_refused(path: tuple[Any, ...], value: Any, says: str) -> None:
    (sentence,) = check(_with(path, value))
    assert says in sentence


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("pg_hba.conf", "hostssl all all samenet trust\n", "scram-sha-256"),
        ("pg_hba.conf", "hostssl all all samenet md5\n", "scram-sha-256"),
        ("pg_hba.conf", "host all all samenet scram-sha-256\n", "hostssl"),
        ("pgbouncer.ini", INI.replace("scram-sha-256", "md5"), "auth_type"),
        ("pgbouncer.ini", INI.replace("require", "prefer"), "client_tls_sslmode"),
        ("pgbouncer.ini", INI.replace("verify-full", "disable"), "server_tls_sslmode"),
        ("postgresql.conf", "#ssl = on\n", "ssl = on"),
    ],
)
def test_an_open_configuration_is_refused(file: str, content: str, says: str) -> None:
    (sentence,) = check_file(file, content)
    assert says in sentence


def test_dev_may_speak_plainly_but_not_without_scram() -> None:
    plain = "host all all samenet scram-sha-256\n"
    assert check_file("pg_hba.conf", plain, stage="dev") == []
    assert len(check_file("pg_hba.conf", "host all all samenet trust\n", stage="dev")) == 1


@pytest.mark.parametrize(
    ("stage", "protected", "refused"),
    [("production", False, True), ("production", True, False), ("staging", False, False)],
)
def test_production_data_is_protected(stage: str, protected: bool, refused: bool) -> None:
    said = guards.unprotected(guards.VOLUME, "postgres-data", protected=protected, stage=stage)
    assert bool(said) is refused


@pytest.mark.parametrize("stage", ["dev", "staging", "production"])
def test_the_stages_as_they_ship_pass(stage: str) -> None:
    settings = read_file(ROOT / f"Pulumi.{stage}.yaml")
    names = Names(settings.application, stage)
    files = {
        "pg_hba.conf": rendering.pg_hba_conf(settings, stage),
        "pgbouncer.ini": rendering.pgbouncer_ini(settings, names, stage),
        "postgresql.conf": rendering.postgresql_conf(settings, stage),
    }
    assert guards.violations(guards.DYNAMIC, "db", {"files": files}, stage=stage) == []
    said = guards.unprotected(guards.VOLUME, "data", protected=settings.protect_data, stage=stage)
    assert said == []


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, True),
        ({"imageSource": "auto", "postgresImage": ""}, True),
        ({"postgresImage": "postgres@sha256:" + "0" * 64}, False),
        ({"imageSource": "build"}, False),
        ({"external": '{"host": "db.example.org"}'}, False),
    ],
)
def test_an_image_of_postgresql_that_may_change_is_warned_of(
    settings: dict[str, str], warned: bool
) -> None:
    assert bool(guards.unpinned(settings)) is warned
