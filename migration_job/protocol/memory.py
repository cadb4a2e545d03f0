"""Whether the target still holds all that the source relies on, and which rows differ where not.

A store that has forgotten something is never taken for the one that was certified. A target
forgets by a failover to a standby that was behind, or by being restored from a backup.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from migration_job.durable import write_durably
from migration_job.plan.model import TablePlan
from migration_job.plural import counted, either
from migration_job.protocol import identity
from migration_job.protocol.catchup import touched_keys
from migration_job.protocol.run_context import Pair
from migration_job.protocol.tokens import Forgotten, forgot, what
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.postgres import records
from migration_job.stores.postgres.apply import Key, key_plans
from migration_job.stores.postgres.capture import installed, numbered
from migration_job.stores.postgres.pair_identity import read_identity
from migration_job.stores.sqlite.capture import LOG
from migration_job.stores.sqlite.fence import SourceState, last_position
from migration_job.stores.sqlite.reader import stored_under
from migration_job.values import key_text
from migration_job.verify.connections import Differences
from migration_job.verify.typed import compare_table
from migration_job.verify.typed_keys import compare_keys

FILE = "forgotten.json"
"""In the state directory: which rows only one side has, while that is so."""

SHOWN = 5
PIECE = 500

ONLY = {"missing-row": "sqlite", "extra-row": "postgresql"}


@dataclass(frozen=True, slots=True)
class OneSided:
    """A row that is not the same on both sides."""

    table: str
    key: object
    only: str
    """``sqlite`` or ``postgresql`` where the other side has no such row, else ``differs``."""
    message: str


def holds(pair: Pair, state: SourceState) -> bool:
    """Whether the target holds what the source relies on: its token and, where PostgreSQL serves,
    the certificate of the decision."""
    known = read_identity(pair.target)
    if known is None:
        return not state.closed
    if not state.closed:
        return not forgot(known, state)
    return state.token in (known.token, known.next_token) and _certified(pair, state)


def _certified(pair: Pair, state: SourceState) -> bool:
    return bool(
        pair.target.execute(
            "SELECT FROM migration.certificate WHERE digest = %s", (state.certificate,)
        ).fetchall()
    )


def tell(pair: Pair, state: SourceState, folder: Path, advice: str) -> Forgotten:
    """What to raise: with the rows that only one side has, all of them in ``folder``/FILE."""
    rows = list(one_sided(pair))
    count = {side: sum(row.only == side for row in rows) for side in ("sqlite", "postgresql")}
    server = identity.change(pair.target, folder)
    told = {
        "server": server,
        "token": state.token,
        "certificate": state.certificate,
        "current_to": state.back_at or state.switched_at,
        "rows": [asdict(row) for row in rows],
    }
    content = json.dumps(told, indent=1, ensure_ascii=False, default=str).encode()
    write_durably(folder / FILE, content, mode=0o600)
    first = "; ".join(f"{row.table} {json.dumps(row.key)} ({row.only})" for row in rows[:SHOWN])
    more = f", {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return Forgotten(
        f"{what(state)}; {counted(count['sqlite'], 'row')} "
        f"{either(count['sqlite'], 'is', 'are')} on SQLite alone, {count['postgresql']} on "
        f"PostgreSQL alone, {len(rows) - sum(count.values())} differ"
        + (f": {first}{more}" if rows else "")
        + (f"; {server}" if server else ""),
        advice=f"all of them are in {folder / FILE}; {advice}",
    )


def one_sided(pair: Pair) -> Iterator[OneSided]:
    """Every row that differs between the sides among those that either side says have changed: the
    source's log after the target's position, and the target's queue. All rows where the log does
    not reach back so far."""
    own = not pair.source.in_transaction
    if own:
        pair.source.execute("BEGIN")
    try:
        position = _followed_to(pair)
        touched = _queued(pair)
        if position is None:
            yield from _everywhere(pair)
            return
        for number, keys in _logged(pair, position):
            touched.setdefault(number, {}).update(keys)
        for number, keys in touched.items():
            if number in pair.captured and pair.captured[number][1].key:
                plan = pair.captured[number][1]
                for start in range(0, len(keys), PIECE):
                    yield from _differing(pair, plan, list(keys.values())[start : start + PIECE])
    finally:
        if own:
            pair.source.execute("COMMIT")


def _followed_to(pair: Pair) -> int | None:
    """The target's position, where the source's log goes on from it; None where it does not."""
    position = records.applied(pair.target)
    first = pair.source.execute(compose("SELECT min(seq) FROM {log}", log=sqlite_name(LOG))).get
    whole = position is not None and first is not None and int(first) <= position + 1
    return position if whole and (position or 0) <= last_position(pair.source) else None


def _logged(pair: Pair, position: int) -> Iterator[tuple[int, dict[str, Key]]]:
    for number, keys in touched_keys(pair, position, last_position(pair.source)).items():
        yield number, {key_text(key): key for key in keys}


def _queued(pair: Pair) -> dict[int, dict[str, Key]]:
    """The keys in the target's queue, by the number of their table in the source's log."""
    found: dict[int, dict[str, Key]] = {}
    if not installed(pair.target):
        return found
    plans = dict(numbered(pair.plan))
    numbers = {plan.source: number for number, (_, plan) in pair.captured.items()}
    affinities = {(t.name, c.name): c.affinity for t in pair.catalogue.tables for c in t.columns}
    for tab, key in pair.target.execute(
        "SELECT DISTINCT tab, key FROM migration.reverse_log WHERE key IS NOT NULL"
    ):
        plan = plans[int(tab)]
        values = tuple(
            stored_under(affinities.get((plan.source or "", c.source or "")), c.rule.inverse(t))
            for c, t in zip(key_plans(plan), key, strict=True)
        )
        if plan.source in numbers:
            found.setdefault(numbers[plan.source], {})[key_text(values)] = values
    return found


def _everywhere(pair: Pair) -> Iterator[OneSided]:
    for _, plan in pair.captured.values():
        yield from _named(compare_table(pair.sides, plan).differences)


def _differing(pair: Pair, plan: TablePlan, keys: Sequence[Key]) -> Iterator[OneSided]:
    found = compare_keys(pair.sides, plan, keys)
    if found.count > len(found.shown) and len(keys) > 1:
        half = len(keys) // 2
        yield from _differing(pair, plan, keys[:half])
        yield from _differing(pair, plan, keys[half:])
        return
    yield from _named(found)


def _named(found: Differences) -> Iterator[OneSided]:
    rows = {json.dumps(d.key, default=str): d for d in reversed(found.shown)}
    for difference in rows.values():
        only = ONLY.get(difference.kind, "differs")
        yield OneSided(found.table, difference.key, only, difference.message)
    if found.count > len(found.shown):
        rest = (
            f"{found.count - len(found.shown):,} more differences: `migration-job verify` has them"
        )
        yield OneSided(found.table, None, "differs", rest)
