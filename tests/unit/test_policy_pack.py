"""What the policy pack refuses, and that it lets a closed stage pass."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "policy"))

import guards

HBA = (
    "local all all scram-sha-256\nhostssl all all samenet scram-sha-256\nhost all all all reject\n"
)
INI = (
    "[pgbouncer]\nauth_type = scram-sha-256\nclient_tls_sslmode = require\n"
    "server_tls_sslmode = verify-full\n"
)
CLOSED: dict[str, Any] = {
    "memory": 512,
    "logOpts": {"max-size": "10m"},
    "restart": "unless-stopped",
    "healthcheck": {"tests": ["CMD", "true"]},
    "ports": [{"internal": 5432, "external": 15432, "ip": "127.0.0.1"}],
    "volumes": [{"volumeName": "data", "containerPath": "/data"}],
    "uploads": [
        {"file": "/etc/postgresql/pg_hba.conf", "content": HBA},
        {"file": "/etc/pgbouncer/pgbouncer.ini", "content": INI},
        {"file": "/etc/postgresql/postgresql.conf", "content": "ssl = on\n"},
    ],
}


def check(properties: dict[str, Any], stage: str = "production") -> list[str]:
    return guards.violations(guards.CONTAINER, "db", properties, stage=stage)


def test_a_closed_container_passes() -> None:
    assert check(CLOSED) == []


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
        (("healthcheck",), None, "health check"),
        (("uploads", 0, "content"), "hostssl all all samenet trust\n", "scram-sha-256"),
        (("uploads", 0, "content"), "hostssl all all samenet md5\n", "scram-sha-256"),
        (("uploads", 0, "content"), "host all all samenet scram-sha-256\n", "hostssl"),
        (("uploads", 1, "content"), INI.replace("scram-sha-256", "md5"), "auth_type"),
        (("uploads", 1, "content"), INI.replace("require", "prefer"), "client_tls_sslmode"),
        (("uploads", 1, "content"), INI.replace("verify-full", "disable"), "server_tls_sslmode"),
        (("uploads", 2, "content"), "#ssl = on\n", "ssl = on"),
    ],
)
def test_an_opened_container_is_refused(path: tuple[Any, ...], value: Any, says: str) -> None:
    (sentence,) = check(_with(path, value))
    assert says in sentence


def test_dev_may_speak_plainly_but_not_without_scram() -> None:
    plain = _with(("uploads", 0, "content"), "host all all samenet scram-sha-256\n")
    assert check(plain, stage="dev") == []
    trusting = _with(("uploads", 0, "content"), "host all all samenet trust\n")
    assert len(check(trusting, stage="dev")) == 1


@pytest.mark.parametrize(
    ("stage", "protected", "refused"),
    [("production", False, True), ("production", True, False), ("staging", False, False)],
)
def test_production_data_is_protected(stage: str, protected: bool, refused: bool) -> None:
    said = guards.unprotected(guards.VOLUME, "postgres-data", protected=protected, stage=stage)
    assert bool(said) is refused
