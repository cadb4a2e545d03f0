"""The switch after an offline ``migrate``, which has left no capture on the source.

It is allowed only where the source is what the snapshot was, and that is proved with the writers
held: the whole content is hashed again. So it takes time with the database's size; the application
is meant to stand still.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from urllib.parse import quote as url_quote

import apsw
import psycopg

from migration_job.errors import OperationError, VerificationError
from migration_job.plan.findings import some
from migration_job.protocol.certificate import certify
from migration_job.protocol.decision import Switched, commit_decision, take_decision
from migration_job.protocol.fault_points import step
from migration_job.protocol.run_context import Pair
from migration_job.protocol.sequences import raise_target_sequences
from migration_job.stores.postgres import pair_identity, records, untouched
from migration_job.stores.sqlite import capture, fence, integrity
from migration_job.stores.sqlite.distrust import distrust
from migration_job.stores.sqlite.snapshot import state_sha256
from migration_job.stores.sqlite.waiting import PatientConnection

VERIFIED = ("verified", "rolled back")
"""Phases of the target in which it holds all of the snapshot, proved equal."""


def decide(
    pair: Pair, folder: Path, base: str, *, one_way: tuple[str, ...], lock_limit: float = 5.0
) -> Switched:
    """Prove that nothing was written since the snapshot, and decide, in one transaction of the
    source that also installs the capture, closed.

    ``folder`` takes a copy of the source for as long as it is hashed. Raises OperationError where
    the source has changed, and VerificationError where the target has, since its certificate, with
    SQLite serving as before. The target's fence is closed by now.
    """
    run = require_verified(pair.target)
    if found := untouched.changes(pair.target, run.plan, new=False):
        raise VerificationError(
            f"expected the target as the verified run left it, found {some(found)}",
            advice="SQLite serves as before; find out what changes the target, then run "
            "`migration-job verify`, which says what differs, or `migrate` into a new database",
        )
    _require_sound(pair.path)
    token = secrets.token_hex(8)
    start = time.monotonic()
    try:
        with step("switch.fence"):
            fence.hold_writers(pair.source, limit=lock_limit)
        start = time.monotonic()
        with step("switch.drain"):
            _require_unchanged(pair, folder, run.snapshot_sha256)
            raise_target_sequences(pair)
            pair_identity.set_pair(pair.target, token, 1)
            digest = certify(pair, 1, base=base)
        with step("switch.decide"):
            tables = capture.captured_tables(pair.catalogue, pair.plan.keys)
            capture.install(pair.source, tables, run=pair.run_id, capture=token, offline=True)
            take_decision(pair.source, digest, one_way, token)
            commit_decision(pair, limit=lock_limit, certificate=digest)
    except BaseException:
        fence.give_up(pair.source)
        raise
    with contextlib.suppress(apsw.Error):  # the decision is taken, whatever this gives
        pair.reload()
    return Switched(round((time.monotonic() - start) * 1000, 1), 1, digest)


def require_verified(target: psycopg.Connection) -> records.RunRow:
    """The target's run. Raises VerificationError where it has not come to its end."""
    run = records.read_run(target)
    if run is None or run.phase not in VERIFIED:
        raise VerificationError(
            f"expected a verified target, found phase {run.phase if run else 'none'!r}",
            advice="SQLite serves as before; run `migration-job migrate` to its end",
        )
    return run


def _reader(path: Path) -> apsw.Connection:
    uri = f"file:{url_quote(os.fspath(path.absolute()))}?mode=ro"
    reader = PatientConnection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    distrust(reader)
    reader.wait_for_locks()
    return reader


def _require_sound(path: Path) -> None:
    """The way back writes to the source by its indexes. An offline ``migrate`` of a large one has
    not checked each index entry. It is done before writers are held, since it takes its time."""
    if path.stat().st_size <= integrity.FULL_BYTES:
        return
    reader = _reader(path)
    try:
        integrity.check(reader, full=True)
    finally:
        reader.close()


def _require_unchanged(pair: Pair, folder: Path, expected: str) -> None:
    """Look at the committed state by a connection of its own: SQLite copies none that writes."""
    reader = _reader(pair.path)
    try:
        found = state_sha256(reader, folder)
    finally:
        reader.close()
    if found != expected:
        raise OperationError(
            "the source has changed since the snapshot that was copied and verified",
            advice="SQLite serves as before; stop the application and run `migration-job migrate` "
            "and `switch` again, or use `migrate --live`, which lets it continue to write",
        )
