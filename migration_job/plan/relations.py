"""Foreign keys between tables: which can be carried over, and the type both of their ends get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from migration_job.plan.assignment import Wish
from migration_job.plan.rules import (
    IntegerRule,
    IntegerTextRule,
    NumericRule,
    RealRule,
    Rule,
    RuleBase,
    TextIntegerRule,
    TextRule,
    TimestampRule,
    WidenedTextRule,
    again,
    inside,
)
from migration_job.stores.sqlite.model import (
    Affinity,
    Catalogue,
    SourceForeignKey,
    SourceIndex,
    SourceTable,
)
from migration_job.values import fold

Place = tuple[str, str]
"""A table and a column, spelled as in the catalogue."""

TEXTS = TextRule | WidenedTextRule | TextIntegerRule
NUMBERS = IntegerRule | NumericRule | RealRule


@dataclass(frozen=True, slots=True)
class Relation:
    """A declared foreign key, its names spelled as in the catalogue."""

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    key: SourceForeignKey

    @property
    def pairs(self) -> tuple[tuple[Place, Place], ...]:
        return tuple(
            ((self.child, c), (self.parent, p))
            for c, p in zip(self.columns, self.parent_columns, strict=True)
        )

    @property
    def text(self) -> str:
        return (
            f"foreign key ({', '.join(self.columns)}) to "
            f"{self.parent} ({', '.join(self.parent_columns)})"
        )


class Relations:
    """The foreign keys of a catalogue that have both their ends, and those that do not."""

    def __init__(
        self,
        catalogue: Catalogue,
        wished: Mapping[str, Sequence[SourceForeignKey]] | None = None,
    ) -> None:
        """``wished`` are further keys by lower-cased table, left out where declared already."""
        self._tables = {fold(t.name): t for t in catalogue.tables}
        self.all: list[Relation] = []
        self.broken: list[tuple[str, SourceForeignKey, str]] = []
        """Table, key and why there is nothing it could refer to."""
        for table in catalogue.tables:
            declared = {tuple(fold(c) for c in k.columns) for k in table.foreign_keys}
            further = [
                key
                for key in (wished or {}).get(fold(table.name), ())
                if tuple(fold(c) for c in key.columns) not in declared
            ]
            for key in (*table.foreign_keys, *further):
                self._take(table, key)

    def _take(self, table: SourceTable, key: SourceForeignKey) -> None:
        parent = self._tables.get(fold(key.parent))
        if parent is None:
            self.broken.append((table.name, key, f"there is no table {key.parent}"))
            return
        parent_columns = [_spelled(parent, c) for c in key.parent_columns]
        columns = [_spelled(table, c) for c in key.columns]
        if None in parent_columns or len(parent_columns) != len(columns) or None in columns:
            self.broken.append(
                (table.name, key, f"{parent.name} has no such columns or no primary key")
            )
            return
        named = tuple(str(c) for c in parent_columns)
        if not _is_key(parent, named):
            self.broken.append(
                (
                    table.name,
                    key,
                    f"{parent.name} ({', '.join(named)}) is no primary key and not unique",
                )
            )
            return
        self.all.append(
            Relation(table.name, tuple(str(c) for c in columns), parent.name, named, key)
        )

    def of(self, table: str) -> list[Relation]:
        """The foreign keys of a table, in their order."""
        return [r for r in self.all if r.child == table]

    def from_parent(self, table: str, column: str) -> bool:
        """Whether the column's values are another table's keys, so that nothing generates them."""
        return any(r.columns == (column,) and r.parent != table for r in self.of(table))

    def refers_to(self, table: str, columns: Sequence[str]) -> bool:
        """Whether a foreign key refers to the very columns."""
        return any(r.parent == table and set(r.parent_columns) == set(columns) for r in self.all)

    def needs_equality(self, table: SourceTable, column: str) -> bool:
        """Whether a key, an index or a foreign key compares the column's values."""
        name = fold(column)
        if any(name == fold(c) for c in table.primary_key):
            return True
        for index in table.indexes:
            if any(term.column is not None and fold(term.column) == name for term in index.columns):
                return True
        return any((table.name, column) in pair for r in self.all for pair in r.pairs)

    def spread_wishes(self, wishes: Mapping[Place, Wish]) -> dict[Place, Wish]:
        """What is wished of a parent's key is wished of every column that refers to it."""
        found = dict(wishes)
        changed = True
        while changed:
            changed = False
            for relation in self.all:
                for child, parent in relation.pairs:
                    wish = found.get(parent)
                    own = found.get(child)
                    if wish is None or (own is not None and own.type != wish.type):
                        continue
                    # A generator of the parent's is not wished of its children.
                    merged = Wish(
                        type=wish.type,
                        entries=tuple(
                            dict.fromkeys((*wish.entries, *(own.entries if own else ())))
                        ),
                        patterns=wish.patterns,
                    )
                    if merged != own:
                        found[child] = merged
                        changed = True
        return found


End = Literal["child", "parent"]


def common(left: Rule, right: Rule, child_classes: set[str]) -> list[tuple[End, Rule]]:
    """The changes (which end, its new rule) that give a child's and its parent's column one type;
    none where nothing is known to."""
    a, b = inside(left), inside(right)
    for way in (_same_family, _child_of_integer, _as_numbers):
        found = way(a, b, child_classes)
        if found:
            break
    else:
        found = _as_text(a, b, child_classes)
    return [(end, again(left if end == "child" else right, rule)) for end, rule in found]


def _same_family(a: RuleBase, b: RuleBase, _: set[str]) -> list[tuple[End, RuleBase]]:
    """Two types that differ in size alone: the wider one."""
    match a, b:
        case IntegerRule(), IntegerRule():
            wide = IntegerRule(low=min(a.low, b.low), high=max(a.high, b.high))
            return [("child", wide), ("parent", wide)]
        case TextRule(), TextRule():
            lengths = (a.max_length, b.max_length)
            longest = None if None in lengths else max(n for n in lengths if n is not None)
            text = TextRule(max_length=longest, varying=longest is None and a.varying and b.varying)
            return [("child", text), ("parent", text)]
        case TimestampRule(), TimestampRule():
            fine = {"precision": max(a.precision, b.precision)}
            return [("child", a.model_copy(update=fine)), ("parent", b.model_copy(update=fine))]
    return []


def _child_of_integer(
    a: RuleBase, b: RuleBase, child_classes: set[str]
) -> list[tuple[End, RuleBase]]:
    """A child whose values are its parent's, whatever it is declared; an integer that refers to a
    text."""
    match a, b:
        case TextRule() | IntegerTextRule(), IntegerRule():
            return [("child", IntegerTextRule(low=b.low, high=b.high))]
        case NumericRule() | RealRule(), IntegerRule() if child_classes <= {"integer"}:
            return [("child", IntegerRule(low=b.low, high=b.high))]
        case IntegerRule(), _ if isinstance(b, TEXTS):
            return [("child", TextIntegerRule())]
    return []


def _as_numbers(a: RuleBase, b: RuleBase, _: set[str]) -> list[tuple[End, RuleBase]]:
    if not isinstance(a, NUMBERS) or not isinstance(b, NUMBERS):
        return []
    return [
        ("child", NumericRule(affinity=_affinity(a))),
        ("parent", NumericRule(affinity=_affinity(b))),
    ]


def _as_text(a: RuleBase, b: RuleBase, child_classes: set[str]) -> list[tuple[End, RuleBase]]:
    """What is spelled in text on the source can be text on the target."""
    changes: list[tuple[End, RuleBase]] = []
    columns: tuple[tuple[End, RuleBase], ...] = (("child", a), ("parent", b))
    for end, rule in columns:
        if rule.spelling or (isinstance(rule, TextRule) and rule.max_length is not None):
            changes.append((end, TextRule()))
        elif not isinstance(rule, TEXTS):
            return []
    return changes if child_classes <= {"text"} else []


def _affinity(rule: IntegerRule | NumericRule | RealRule) -> Affinity:
    return "numeric" if isinstance(rule, IntegerRule) else rule.affinity


def _spelled(table: SourceTable, name: str) -> str | None:
    return next((c.name for c in table.columns if fold(c.name) == fold(name)), None)


def _is_key(table: SourceTable, columns: Sequence[str]) -> bool:
    """Whether no two rows agree in the columns. What is unique under any collation is so byte by
    byte, which is how the target compares."""
    wanted = {fold(c) for c in columns}
    if {fold(c) for c in table.primary_key} == wanted:
        return True
    return any(
        index.unique and index.where is None and _columns(index) == wanted
        for index in table.indexes
    )


def _columns(index: SourceIndex) -> set[str] | None:
    """The columns of an index, None where it is over an expression."""
    names = [fold(t.column) for t in index.columns if t.column is not None]
    return set(names) if len(names) == len(index.columns) else None
