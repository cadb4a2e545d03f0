"""How a verified file's rows come among those of the other tenants.

A file is loaded into a schema of its own and verified there, as any file is. Then its rows are put
into the common tables, compared with those that were verified, and entered in the book, in one
transaction; so the common tables never hold half a tenant.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg

from migration_job.errors import InputError, VerificationError
from migration_job.plan.findings import some
from migration_job.stores.postgres import shared_tables
from migration_job.stores.postgres.database import durably
from migration_job.stores.postgres.shared_tables import Tenant
from migration_job.verify import tenants
from migration_job.verify.tenants import Content


def put(
    connection: psycopg.Connection,
    tenant: Tenant,
    before: Content | None,
    note: Callable[[Content], None],
) -> None:
    """Put a tenant's rows into the common tables, in one durable transaction in which ``note``
    enters their content in the book. ``before`` is what an earlier run has left there; None:
    nothing. ``connection`` is a session whose schema is that of the common tables. Raises
    InputError where the tenant has other rows there, VerificationError where what arrived is not
    what was verified."""
    plan, where = tenant.plan, tenant.column.in_schema
    with durably(connection):
        shared_tables.act_for(connection, tenant)
        _require_as_left(connection, tenant, before)
        if before is not None:
            shared_tables.clear(connection, tenant)
        shared_tables.fill(connection, tenant)
        verified = tenants.alone(connection, plan, plan.schema_name)
        arrived = tenants.among_others(connection, plan, where, tenant.whose)
        if different := tenants.unlike(arrived, verified):
            raise VerificationError(
                f"expected the rows of tenant {tenant.value} as they were verified, found in the "
                f"common tables: {some(different)}",
                advice="nothing of this tenant was kept there; its file is untouched",
            )
        shared_tables.raise_sequences(connection, tenant)
        note(arrived)


def _require_as_left(
    connection: psycopg.Connection, tenant: Tenant, before: Content | None
) -> None:
    """Raises InputError where there are rows that no run of this fleet has put there so."""
    plan = tenant.plan
    there = tenants.among_others(connection, plan, tenant.column.in_schema, tenant.whose)
    if not any(rows for rows, _, _ in there.values()):
        return
    expected = before or {table.target: (0, "0", "0") for table in plan.tables}
    if different := tenants.unlike(there, expected):
        raise InputError(
            f"expected the rows of tenant {tenant.value} as this fleet left them, found "
            f"{some(different)}: somebody works with them",
            advice="they are kept as they are. If nothing of them is to be kept, delete the "
            "tenant's rows, and run the fleet again",
        )


def as_json(content: Content) -> str:
    """For the book."""
    return json.dumps(content)


def of_json(text: str | None) -> Content | None:
    """From the book."""
    if not text:
        return None
    return {name: (int(n), str(a), str(b)) for name, (n, a, b) in json.loads(text).items()}
