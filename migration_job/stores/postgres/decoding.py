"""Which rows were changed, read from a logical replication slot: PostgreSQL's own pgoutput.

What the protocol's messages hold: "Logical Replication Message Formats" in PostgreSQL's manual,
version 1 of the protocol, which 14 to 18 all speak.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from migration_job.errors import OperationError

Key = tuple[str | None, ...]
Touched = dict[tuple[str, str], set[Key]]
"""The keys of changed rows by (schema, table); an empty key stands for the whole table."""

WHOLE: Key = ()
UNCHANGED = object()
"""A value that was not written again and is not told."""

INSERT, UPDATE, DELETE = ord("I"), ord("U"), ord("D")
RELATION, TRUNCATE = ord("R"), ord("T")
FULL = ord("f")


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int = 1

    def number(self, form: str) -> int:
        (found,) = struct.unpack_from(f">{form}", self.data, self.at)
        self.at += struct.calcsize(f">{form}")
        return int(found)

    def text(self) -> str:
        end = self.data.index(b"\x00", self.at)
        found = self.data[self.at : end].decode()
        self.at = end + 1
        return found

    def values(self) -> list[object]:
        return [self._value() for _ in range(self.number("H"))]

    def _value(self) -> object:
        kind = chr(self.number("B"))
        if kind == "n":
            return None
        if kind == "u":
            return UNCHANGED
        length = self.number("I")
        found = self.data[self.at : self.at + length]
        self.at += length
        return found.decode()


@dataclass(frozen=True, slots=True)
class _Relation:
    name: tuple[str, str]
    key: tuple[int, ...]
    """The places of the key's columns; none where all columns name a row."""


@dataclass(slots=True)
class Changes:
    """What was changed, message by message."""

    touched: Touched = field(default_factory=dict)
    _relations: dict[int, _Relation] = field(default_factory=dict)

    def take(self, messages: Iterable[bytes]) -> None:
        """Note what the messages of whole transactions tell. Raises OperationError for one of an
        unknown kind: nothing may be overlooked."""
        for data in messages:
            kind, reader = data[0], _Reader(data)
            if kind == RELATION:
                self._learn(reader)
            elif kind in (INSERT, UPDATE, DELETE):
                self._note(reader)
            elif kind == TRUNCATE:
                count, _ = reader.number("I"), reader.number("B")
                for _ in range(count):
                    self._add(self._relations[reader.number("I")], WHOLE)
            elif chr(kind) not in "BCOYM":
                raise OperationError(
                    f"expected messages of logical replication, found one of kind {kind}",
                    advice="this release does not know that version of PostgreSQL",
                )

    def _learn(self, reader: _Reader) -> None:
        number, schema, name = reader.number("I"), reader.text(), reader.text()
        identity = reader.number("B")
        key = []
        for place in range(reader.number("H")):
            if reader.number("B") & 1:
                key.append(place)
            reader.text()
            reader.number("I")
            reader.number("i")
        plain = () if identity == FULL else tuple(key)
        self._relations[number] = _Relation((schema, name), plain)

    def _note(self, reader: _Reader) -> None:
        relation = self._relations[reader.number("I")]
        while reader.at < len(reader.data):
            reader.number("B")  # K or O: the row as it was; N: as it is
            values = reader.values()
            key = [values[place] for place in relation.key]
            known = bool(key) and UNCHANGED not in key
            text = tuple(None if v is None else str(v) for v in key) if known else WHOLE
            self._add(relation, text)

    def _add(self, relation: _Relation, key: Key) -> None:
        self.touched.setdefault(relation.name, set()).add(key)
