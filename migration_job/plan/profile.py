"""Profiles: what is wished of the target beyond what the source declares.

A profile is a directory with ``profile.yaml`` and numbered SQL files in PostgreSQL's dialect. The
SQL says the wished tables, columns, constraints and indexes; the plan grants what the values allow
and says what they do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from migration_job.errors import InputError
from migration_job.plan.assignment import Wish
from migration_job.plan.expression_parts import kind_of
from migration_job.plan.findings import Findings
from migration_job.plan.index_widths import MAX_INDEX_BYTES
from migration_job.plan.model import CheckPlan, ColumnPlan, IndexPlan, TablePlan, UniquePlan
from migration_job.plan.policy import DefaultAction
from migration_job.plan.rules import ConstantRule, Entry, Scalar
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.model import Catalogue, SourceForeignKey, SourceTable
from migration_job.values import fold

if TYPE_CHECKING:
    from migration_job.plan.profile_sql import WishedColumn, WishedTable

PROFILES = Path(__file__).resolve().parent.parent / "profiles"
"""The profiles that ship with the job."""


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class ColumnWish(_Part):
    """A wish for a column that the SQL does not name."""

    type: str
    optional: bool = False
    """Take the column's own type where the values do not allow it."""


class ValueMap(_Part):
    """Values that become others in several columns at once, so that references follow."""

    values: dict[str, Scalar]
    columns: tuple[str, ...]


class Settings(_Part):
    """``profile.yaml``."""

    name: str
    sql: tuple[str, ...] = ()
    default: DefaultAction = "block"
    columns: dict[str, ColumnWish] = Field(default_factory=dict)
    maps: tuple[ValueMap, ...] = ()
    features: dict[str, str] = Field(default_factory=dict)
    """What a policy may enable: a name, and the SQL file that is run after the load."""


@dataclass(slots=True)
class Profile:
    """What is wished; ``Profile("none")`` wishes nothing."""

    name: str
    default: DefaultAction = "widen"
    tables: dict[str, WishedTable] = field(default_factory=dict)
    """By lower-cased name."""
    wishes: dict[tuple[str, str], Wish] = field(default_factory=dict)
    """By lower-cased table and column."""
    extensions: tuple[str, ...] = ()
    after_load: tuple[str, ...] = ()
    features: dict[str, str] = field(default_factory=dict)
    """By name, the SQL of what a policy may enable."""

    def enabled(self, names: Iterable[str]) -> tuple[str, ...]:
        """The SQL of those features. Raises InputError for one that the profile has not."""
        wanted = list(names)
        for name in wanted:
            if name not in self.features:
                known = ", ".join(sorted(self.features)) or "none"
                raise InputError(
                    f"the policy's enable: expected a feature of the profile {self.name} "
                    f"({known}), found {name!r}",
                    advice="correct the name, or choose a profile that has it",
                )
        return tuple(self.features[name] for name in wanted)

    def wish(self, table: str, column: str) -> Wish | None:
        return self.wishes.get((fold(table), fold(column)))

    def column(self, table: str, column: str) -> WishedColumn | None:
        wished = self.tables.get(fold(table))
        if wished is None:
            return None
        return next((c for c in wished.columns if fold(c.name) == fold(column)), None)

    def foreign_keys(self) -> dict[str, tuple[SourceForeignKey, ...]]:
        """The wished foreign keys by lower-cased table."""
        return {name: t.foreign_keys for name, t in self.tables.items() if t.foreign_keys}

    def not_null(self, table: str, column: str) -> bool:
        """Whether the profile wishes the column NOT NULL."""
        found = self.column(table, column)
        return found is not None and found.not_null

    def merge(
        self,
        plan: TablePlan,
        source: SourceTable,
        broken: set[str],
        findings: Findings,
        widths: Callable[[SourceTable], Mapping[str, int]],
    ) -> TablePlan:
        """The table's plan with what the profile adds to it, without the constraints (by name)
        that the values break. ``widths`` tells the bytes that a column's largest value takes of an
        index, by the column's name in lower case."""
        wished = self.tables.get(fold(source.name))
        if wished is None:
            return plan
        columns = [self._merged(c, wished, findings, source) for c in plan.columns]
        bytes_of = widths(source)
        present = {fold(c.target) for c in columns}
        columns += [
            ColumnPlan(
                source=None,
                target=c.name,
                type=c.type,
                rule=ConstantRule(),
                not_null=c.not_null and c.default is not None,
                default=c.default,
                reason="the profile's, on the target alone",
            )
            for c in wished.columns
            if fold(c.name) not in present
        ]
        spelled = {fold(c.target): c.target for c in columns}
        return plan.model_copy(
            update={
                "columns": tuple(columns),
                "uniques": (
                    *plan.uniques,
                    *_uniques(plan, wished, spelled, broken, bytes_of, findings),
                ),
                "checks": (
                    *plan.checks,
                    *(
                        CheckPlan(name=name, expression=sql)
                        for name, sql in wished.checks
                        if name not in broken
                    ),
                ),
                "indexes": _indexes(plan, wished, columns, findings, bytes_of),
            }
        )

    @staticmethod
    def _merged(
        column: ColumnPlan, wished: WishedTable, findings: Findings, source: SourceTable
    ) -> ColumnPlan:
        own = next((c for c in wished.columns if fold(c.name) == fold(column.target)), None)
        if own is None or own.default is None or column.identity or column.generated:
            return column
        if column.type != own.type:
            findings.add(
                "default-not-carried",
                "warning",
                f"the profile's default {own.default} is for {own.type}; "
                f"the column became {column.type}",
                table=source.name,
                column=column.source,
            )
            return column
        return replace(column, default=own.default)

    def tables_alone(self, catalogue: Catalogue) -> list[TablePlan]:
        """Plans of the wished tables that the source does not have; they stay empty. Where the
        profile has indexes alone for a table of the application's, there is none to make."""
        present = {fold(t.name) for t in catalogue.tables}
        return [
            TablePlan(
                source=None,
                target=wished.name,
                columns=tuple(
                    ColumnPlan(
                        source=None,
                        target=c.name,
                        type=c.type,
                        rule=ConstantRule(),
                        not_null=c.not_null,
                        default=c.default,
                        reason="the profile's, on the target alone",
                    )
                    for c in wished.columns
                ),
                primary_key=wished.primary_key,
                uniques=tuple(
                    UniquePlan(name=f"{wished.name}_{'_'.join(u)}_key", columns=u)
                    for u in wished.uniques
                ),
                checks=tuple(CheckPlan(name=n, expression=s) for n, s in wished.checks),
                indexes=wished.indexes,
            )
            for name, wished in self.tables.items()
            if name not in present and wished.columns
        ]


def _uniques(
    plan: TablePlan,
    wished: WishedTable,
    spelled: dict[str, str],
    missing: set[str],
    widths: Mapping[str, int],
    findings: Findings,
) -> list[UniquePlan]:
    there = {frozenset(u.columns) for u in plan.uniques} | {frozenset(plan.primary_key)}
    found: list[UniquePlan] = []
    for columns in wished.uniques:
        named = tuple(spelled[fold(c)] for c in columns)
        name = unique_name(wished.name, columns)
        if frozenset(named) in there or name in missing:
            continue
        reason = _too_long([postgres_name(c) for c in named], "btree", widths)
        if reason:
            findings.add(
                "index-not-carried",
                "by-action",
                f"the profile's UNIQUE ({', '.join(named)}): {reason}",
                table=plan.source,
                item=name,
            )
        else:
            found.append(UniquePlan(name=name, columns=named))
    return found


def unique_name(table: str, columns: Iterable[str]) -> str:
    """The name that PostgreSQL itself would give."""
    return f"{table}_{'_'.join(columns)}_key"


def _indexes(
    plan: TablePlan,
    wished: WishedTable,
    columns: Sequence[ColumnPlan],
    findings: Findings,
    widths: Mapping[str, int],
) -> tuple[IndexPlan, ...]:
    """The wished indexes take the place of the source's of the same name, or of the same terms."""
    granted = []
    for index in wished.indexes:
        reason = _in_the_way(index, wished, columns) or _too_long(index.terms, index.method, widths)
        if reason:
            findings.add(
                "index-not-carried",
                "by-action",
                f"the profile's index {index.name}: {reason}",
                table=plan.source,
                item=index.name,
            )
        else:
            granted.append(index)
    names = {i.name for i in granted}
    terms = {(i.terms, i.where, i.method, i.unique) for i in granted}
    kept = [
        i
        for i in plan.indexes
        if i.name not in names and (i.terms, i.where, i.method, i.unique) not in terms
    ]
    return (*kept, *granted)


MAX_SEARCHED = 1_000_000
"""Bytes of text for which to_tsvector() surely has room."""


def _too_long(terms: Sequence[str], method: str, widths: Mapping[str, int]) -> str:
    """Why no index can be had over the terms' values, as long as they are; '' where it can."""
    searched = any("to_tsvector" in term for term in terms)
    size = sum(widths.get(name, 0) for term in terms for name in _columns_of(term))
    most = MAX_SEARCHED if searched else MAX_INDEX_BYTES
    if size <= most or not (searched or method == "btree"):
        return ""
    what = "a text search" if searched else "a B-tree"
    return f"values too long for {what} ({size:,} bytes, {most:,} at most)"


def _columns_of(term: str) -> list[str]:
    """The columns that an index's term names, folded."""
    from migration_job.plan.profile_sql import columns_in

    return [fold(name) for name in columns_in(term.removesuffix(" DESC"))]


def _in_the_way(index: IndexPlan, wished: WishedTable, columns: Sequence[ColumnPlan]) -> str:
    """Why an index cannot be had over the columns as they are; '' where it can."""
    from migration_job.plan.profile_sql import columns_in

    types = {fold(c.target): c.type for c in columns}
    wishes = {fold(c.name): c.type for c in wished.columns}
    for term in (*index.terms, *([index.where] if index.where else [])):
        for named in columns_in(term):
            name = fold(named)
            if name not in types:
                return f"there is no column {named}"
            wish = wishes.get(name)
            plain = term.startswith('"') or "IS NOT NULL" in term
            if wish is not None and not plain and kind_of(types[name]) != kind_of(wish):
                return f"it is over {named} as {wish}, which became {types[name]}"
    return ""


# ------------------------------------------------------------------------------- reading it


def load_profile(name: str | Path | None) -> Profile:
    """The profile of that name, or of a ``profile.yaml``; ``none`` wishes nothing. Raises
    InputError."""
    if name is None or str(name) == "none":
        return Profile("none")
    own = PROFILES / str(name) / "profile.yaml"
    file = own if own.is_file() else Path(name)
    if not file.is_file():
        known = sorted(p.parent.name for p in PROFILES.glob("*/profile.yaml"))
        raise InputError(
            f"expected a profile ({', '.join(['none', *known])}) or the path of a profile.yaml; "
            f"found {str(name)!r}",
            advice="Without a profile the plan comes from the declared types and the values.",
        )
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        settings = Settings.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the profile cannot be read: {file}: {error}") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc'])}: {e['msg'][:1].lower()}{e['msg'][1:]}"
            for e in error.errors()
        ]
        raise InputError(f"the profile {file}: " + "; ".join(lines)) from None
    profile = Profile(settings.name, settings.default)
    for script in settings.sql:
        _add_sql(profile, file.parent / script)
    profile.features = {
        name: _sql_text(file.parent / script) for name, script in settings.features.items()
    }
    _add_wishes(profile, settings)
    return profile


def summary(script: str) -> str:
    """The first paragraph of a script's leading comment, as one line."""
    lines = itertools.takewhile(lambda line: line.strip("- "), script.splitlines())
    return " ".join(line.lstrip("- ") for line in lines if line.startswith("--"))


def _add_sql(profile: Profile, path: Path) -> None:
    # Here: the parser behind it takes longer to import than a small file to plan.
    from migration_job.plan.profile_sql import read_sql

    said = read_sql(_sql_text(path), path, profile.tables)
    profile.tables = said.tables
    profile.extensions += said.extensions
    profile.after_load += said.after_load


def _sql_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the profile's SQL cannot be read: {path}: {error}") from error


def _add_wishes(profile: Profile, settings: Settings) -> None:
    for table in profile.tables.values():
        for column in table.columns:
            profile.wishes[fold(table.name), fold(column.name)] = Wish(type=column.type)
    for place, wish in settings.columns.items():
        profile.wishes[_place(place)] = Wish(type=wish.type, optional=wish.optional)
    for value_map in settings.maps:
        entries = tuple(Entry(source=k, target=v) for k, v in value_map.values.items())
        for place in value_map.columns:
            own = profile.wishes.get(_place(place), Wish(type="text"))
            profile.wishes[_place(place)] = Wish(
                type=own.type, entries=(*own.entries, *entries), optional=own.optional
            )


def _place(dotted: str) -> tuple[str, str]:
    table, dot, column = fold(dotted).rpartition(".")
    if not dot:
        raise InputError(f"expected table.column in the profile, found {dotted!r}")
    return table, column
