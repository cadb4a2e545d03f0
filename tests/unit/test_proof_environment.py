"""The application's proof finds the copy as this job finds it, by variables and by a URL."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.stores.postgres.proof import environment

CLOSED = {
    "host": "db.example.org",
    "port": "5433",
    "dbname": "rad case",
    "user": "mover",
    "password": "p@ss/w:rd",
    "sslmode": "verify-full",
    "sslrootcert": "/run/job/ca.crt",
}
CLUSTER = {
    "host": "a.example.org,b.example.org",
    "port": "5432,5433",
    "dbname": "shop",
    "user": "mover",
    "target_session_attrs": "read-write",
}
SOCKET = {"host": "/var/run/postgresql", "dbname": "shop", "user": "mover"}
ADDRESS = {"host": "::1", "port": "5432", "dbname": "shop", "user": "mover"}


@pytest.mark.parametrize("parts", [CLOSED, CLUSTER, SOCKET, ADDRESS])
def test_the_url_says_what_the_connection_string_says(parts: dict[str, str]) -> None:
    url = environment(make_conninfo(**parts))["DATABASE_URL"]
    assert conninfo_to_dict(url) == parts


def test_libpq_is_given_the_authority_and_the_leader() -> None:
    assert environment(make_conninfo(**CLOSED))["PGSSLROOTCERT"] == "/run/job/ca.crt"
    assert environment(make_conninfo(**CLUSTER))["PGTARGETSESSIONATTRS"] == "read-write"
