"""Keys that are distinct on the source and equal on the target: 1 and '1' as text, one moment in
two spellings, a word in small and in capital letters. Found before the load would fail on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import apsw

from migration_job.plan.facts import Rows
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import CannotCarry, RuleBase
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import read_rows


def find_collisions(
    connection: apsw.Connection,
    table: SourceTable,
    columns: Sequence[str],
    rules: Sequence[RuleBase],
    *,
    encoding: str,
) -> Rows:
    """The rows whose target key another row has had before them. A key with a NULL equals none.

    Costs 16 bytes of memory a row; asked only of keys whose values change on their way.
    """
    identity, shown = identity_columns(table), shown_columns(table)
    seen: set[bytes] = set()
    found = Rows()
    for row in read_rows(connection, table, [*identity, *shown, *columns], encoding=encoding):
        values = row[len(identity) + len(shown) :]
        try:
            texts = [rule.forward(v) for rule, v in zip(rules, values, strict=True)]
        except CannotCarry:
            continue
        if None in texts:
            continue
        digest = hashlib.blake2b(digest_size=16)
        for rule, text in zip(rules, texts, strict=True):
            raw = (str(text).lower() if rule.without_case else str(text)).encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
        if digest.digest() in seen:
            key = show_key(shown, row[len(identity) : len(identity) + len(shown)])
            found.add(row[: len(identity)], key)
        seen.add(digest.digest())
    return found
