"""The certificate of a switch: what it rests on, and the position in the log that it covers."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import psycopg

from migration_job.errors import VerificationError
from migration_job.protocol.run_context import Pair
from migration_job.protocol.tokens import forgotten, fresh
from migration_job.stores.postgres import records
from migration_job.stores.postgres.pair_identity import announce_decision
from migration_job.stores.sqlite.fence import SourceState


def base_certificate(target: psycopg.Connection) -> str:
    """The digest of the last certificate of this run. Raises VerificationError where there is none:
    no certificate, no switch."""
    row = target.execute(
        "SELECT digest FROM migration.certificate ORDER BY issued_at DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise VerificationError(
            "expected a certificate of verification on the target, found none",
            advice="SQLite serves as before; run `migration-job verify`, or `migrate` again",
        )
    return str(row[0])


def certify(pair: Pair, position: int, *, base: str) -> str:
    """Write a certificate for everything up to ``position`` to the target, durably; returns its
    digest. ``base`` is the certificate of the whole content that it goes on from."""
    digest, body = _made(pair, position, base)
    records.store_certificate(pair.target, digest, body, "verified")
    return digest


def certify_decision(
    pair: Pair, state: SourceState, position: int, *, base: str
) -> tuple[str, str]:
    """The same, and in the same commit the token that the decision gives the source's state; gives
    the digest and the token. Raises Forgotten where the target does not hold the one before."""
    digest, body = _made(pair, position, base)
    token = fresh(state.token)
    if not announce_decision(pair.target, state.token, token, (digest, body)):
        raise forgotten(state)
    return digest, token


def _made(pair: Pair, position: int, base: str) -> tuple[str, str]:
    body = json.dumps(
        {
            "kind": "switch",
            "run": pair.run_id,
            "plan": pair.plan.digest(),
            "base": base,
            "position": position,
            "issued_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
        sort_keys=True,
    )
    return hashlib.sha256(body.encode()).hexdigest(), body


def position_of_the_switch(pair: Pair) -> int | None:
    """The position in the source's log that the switch's certificate covers: what is logged after
    it, PostgreSQL wrote. None where the certificate tells none, or stands on another switch's."""
    query = "SELECT body FROM migration.certificate WHERE digest = %s"
    row = pair.target.execute(query, (pair.state().certificate,)).fetchone()
    body = {} if row is None else json.loads(row[0])
    base = pair.target.execute(query, (body.get("base"),)).fetchone()
    if body.get("kind") != "switch" or (base and json.loads(base[0]).get("kind") == "switch"):
        return None
    return int(body["position"])
