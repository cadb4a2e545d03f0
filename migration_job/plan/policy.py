"""The policy: what happens to a value that does not fit, by stage, table and column.

A YAML file. Everything is optional::

    default: block              # widen | quarantine | block; map is said per column
    zone: Europe/Berlin         # of times that name no zone; UTC otherwise
    orphans: keep               # keep | quarantine | block: rows whose parent is missing
    types: declared             # declared | generous: types that every value has are taken
    except: ["tmp_*"]           # tables left out; only: those that are carried, and no others
    rename: snake_case          # names of tables and columns on the target
    acknowledge:                # findings accepted, as code or code:object
      - trigger-not-carried:audit_insert
    tables:
      cases:
        action: quarantine
        columns:
          difficulty:
            action: map
            map: {hard: 4, "": null}
          seen_at: {epoch: ms}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from migration_job.errors import InputError
from migration_job.plan import moments, naming
from migration_job.plan.model import Action
from migration_job.plan.rules import ByteOrder, Entry, EpochUnit, Pattern, Scalar
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.values import fold

if TYPE_CHECKING:
    import yaml

DefaultAction = Literal["widen", "quarantine", "block"]
Orphans = Literal["keep", "quarantine", "block"]
Types = Literal["declared", "generous"]
"""``generous``: types that every value has and the declared one does not ask for are taken."""
TargetRows = Literal["replace", "keep", "merge"]
"""``replace``: the source's take their place, and the target's are kept in ``migration.replaced``;
``merge``: so do those of a key that the source has, and the others stay beside the source's;
``keep``: the table is the target's own, and the source's rows stay where they are."""


class Part(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


_Part = TypeVar("_Part", bound=Part)


class ColumnPolicy(Part):
    action: Action | None = None
    type: str | None = None
    """The PostgreSQL type to use, whatever the values suggest."""
    map: dict[Scalar, Scalar] = Field(default_factory=dict)
    """Source value to the value that takes its place, before the column's own rule."""
    pattern: tuple[Pattern, ...] = ()
    empty: Scalar = ""
    """What takes the place of the empty string; ``null`` for NULL."""
    epoch: EpochUnit | None = None
    guid: ByteOrder | None = None
    """The order of the bytes of UUIDs in blobs; the column becomes ``uuid``."""
    separator: str | None = Field(default=None, min_length=1)
    """What stands between the elements of lists that are no JSON, in a column that is an array."""
    zone: str | None = None
    booleans: dict[bool, list[Scalar]] = Field(default_factory=dict)
    """The values that mean true and false."""
    acknowledge: tuple[str, ...] = ()
    skip: bool = False
    """With ``--schema existing``: the target has no place for the column, and its values stay."""
    rename: str | None = None
    """What the target calls the column."""

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            moments.zone_of(zone)
        return zone

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every value-for-value rule of the column."""
        found = [Entry(source=k, target=v) for k, v in self.map.items()]
        found += [
            Entry(source=value, target=int(truth))
            for truth, values in self.booleans.items()
            for value in values
        ]
        if "empty" in self.model_fields_set:
            found.append(Entry(source="", target=self.empty))
        return tuple(found)

    @property
    def explicit(self) -> bool:
        """Whether the operator spoke of this very column's values."""
        return self.action is not None or self.type is not None or self.guid is not None


class TablePolicy(Part):
    action: DefaultAction | None = None
    orphans: Orphans | None = None
    columns: dict[str, ColumnPolicy] = Field(default_factory=dict)
    acknowledge: tuple[str, ...] = ()
    skip: bool = False
    """The table is left out, and its rows stay on the source."""
    rename: str | None = None
    """What the target calls the table."""
    where: str | None = None
    """A SQLite predicate over the table: the other rows stay on the source."""
    rows: TargetRows = "replace"
    """With ``--schema existing``: what becomes of the rows that the target's table has."""


class Policy(Part):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", populate_by_name=True)

    default: DefaultAction | None = None
    zone: str | None = None
    orphans: Orphans | None = None
    types: Types = "declared"
    only: tuple[str, ...] = ()
    """Patterns of the tables that are carried; () for all."""
    except_: tuple[str, ...] = Field(default=(), alias="except")
    """Patterns of tables that are not."""
    rename: Literal["snake_case"] | None = None
    """How the target calls what has no name of its own here."""
    tables: dict[str, TablePolicy] = Field(default_factory=dict)
    acknowledge: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    """Features of the profile, such as ``row-level-security``."""
    bookkeeping: tuple[str, ...] = ()
    """With ``--schema existing``: further tables in which migrations keep book of themselves."""

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            moments.zone_of(zone)
        return zone

    def table(self, name: str) -> TablePolicy:
        """The table's own part; an empty one where there is none. Names ignore ASCII case."""
        return (_find(self.tables, name) if self.tables else None) or _NO_TABLE

    def column(self, table: str, column: str) -> ColumnPolicy:
        """The column's own part; an empty one where there is none."""
        columns = self.table(table).columns
        return (_find(columns, column) if columns else None) or _NO_COLUMN

    def name_of(self, table: str, column: str | None = None) -> str:
        """What the target is to call the table or column: the policy's word, else the source's."""
        part = self.table(table) if column is None else self.column(table, column)
        if part.rename is not None:
            return part.rename
        name = table if column is None else column
        return naming.cut(naming.snake_case(name)) if self.rename == "snake_case" else name

    def accepts(self, code: str, table: str | None, column: str | None, item: str | None) -> bool:
        """Whether a finding is acknowledged: everywhere, for its table, column or object."""
        lists = [self.acknowledge]
        if table is not None:
            lists.append(self.table(table).acknowledge)
            if column is not None:
                lists.append(self.column(table, column).acknowledge)
        places = [p for p in (item, table, f"{table}.{column}" if column else None) if p]
        wanted = {code} | {fold(f"{code}:{place}") for place in places}
        return any(fold(entry) in wanted for part in lists for entry in part)

    def check(self, catalogue: Catalogue) -> None:
        """Raises InputError where the policy names a table or column that is not there."""
        tables = {fold(t.name): t for t in catalogue.tables}
        for name, part in self.tables.items():
            table = tables.get(fold(name))
            if table is None:
                raise _unknown(f"tables.{name}", "table", name, [t.name for t in catalogue.tables])
            self._check_columns(name, part, table)

    def _check_columns(self, name: str, part: TablePolicy, table: SourceTable) -> None:
        columns = {fold(c.name) for c in table.columns}
        for column in part.columns:
            if fold(column) not in columns:
                raise _unknown(
                    f"tables.{name}.columns.{column}",
                    f"column of {table.name}",
                    column,
                    [c.name for c in table.columns],
                )


_NO_TABLE, _NO_COLUMN = TablePolicy(), ColumnPolicy()


def _find(parts: Mapping[str, _Part], name: str) -> _Part | None:
    found = parts.get(name)
    if found is not None:
        return found
    return next((part for key, part in parts.items() if fold(key) == fold(name)), None)


def _unknown(place: str, what: str, name: str, known: list[str]) -> InputError:
    close = difflib.get_close_matches(name, known, 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return InputError(
        f"the policy's {place}: expected a {what} of the source, found {name!r}{hint}",
        advice="Correct the name, or take the entry out.",
    )


# ----------------------------------------------------------------------------- reading YAML


def load_policy(path: str | Path) -> Policy:
    """The policy of a YAML file. Raises InputError with the line, what is allowed and what was
    found."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the policy cannot be read: {file}: {error}",
            advice="Give the path of a YAML file in UTF-8.",
        ) from error
    return parse_policy(text, name=str(file))


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line says in the place of the policy's fields; None or () where nothing."""

    types: Types | None = None
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()


def chosen_policy(path: Path | None, said: Said) -> Policy | None:
    """The policy of a file, with what the command line says in place of its own; None where there
    is neither. Raises InputError."""
    return with_said(load_policy(path) if path is not None else None, said)


def with_said(policy: Policy | None, said: Said) -> Policy | None:
    """The policy with what is said elsewhere in place of its own; None where there is neither."""
    fields = {"types": said.types, "only": said.only, "except_": said.except_}
    update = {name: value for name, value in fields.items() if value}
    return (policy or Policy()).model_copy(update=update) if update else policy


def parse_policy(text: str, *, name: str = "policy") -> Policy:
    """The policy of a YAML text. Raises InputError as :func:`load_policy` does."""
    import yaml  # here, since a run without a policy reads none

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        raise InputError(
            f"{name}{line}: no valid YAML: {getattr(error, 'problem', None) or error}",
            advice="Check the indentation and the quotes there.",
        ) from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
        # PyYAML's constructors let through what a tag or a date's digits make of a scalar.
        raise InputError(
            f"{name}: a value is not what it looks like: {error}",
            advice="Put dates, numbers and words with a `!!` tag in quotes.",
        ) from error
    except RecursionError as error:
        raise InputError(
            f"{name}: expected a policy, found lists or mappings nested too deeply to read",
            advice="Take the nesting out; a policy needs five levels.",
        ) from error
    if data is None:
        return Policy()
    if not isinstance(data, dict):
        raise InputError(
            f"{name} line 1: expected a mapping, found {type(data).__name__}",
            advice="A policy begins with lines such as `default: widen` and `tables:`.",
        )
    for doubled, at in _twice(node):
        raise InputError(f"{name} line {at}: {doubled} is given twice", advice="Keep one of them.")
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise InputError(
            "\n".join(dict.fromkeys(_sentence(name, node, e) for e in error.errors())),
            advice="The reference of the policy lists every field.",
        ) from None


def _sentence(name: str, node: yaml.Node | None, error: Any) -> str:
    place = [p for p in error["loc"] if p != "[key]" and not _is_branch(p)]
    branched = len(place) < len(error["loc"])
    found = error.get("input")
    context = error.get("ctx") or {}
    match error["type"]:
        case "extra_forbidden":
            return f"{name} line {_line(node, place)}: {_dotted(place)}: there is no such field"
        case "literal_error":
            expected = f"expected one of {context['expected']}"
        case "value_error":
            expected = str(context.get("error", error["msg"]))
            return f"{name} line {_line(node, place)}: {_dotted(place)}: {expected}"
        case _ if branched:
            expected = "expected text, a number or null"
        case _:
            expected = error["msg"][:1].lower() + error["msg"][1:]
    return f"{name} line {_line(node, place)}: {_dotted(place)}: {expected}, found {found!r}"


def _is_branch(part: object) -> bool:
    """Pydantic names the branches of a union in the place of an error."""
    return isinstance(part, str) and part in ("str", "int", "float", "none")


def _dotted(place: list[Any]) -> str:
    return ".".join(str(p) for p in place)


def _line(node: yaml.Node | None, place: list[Any]) -> int:
    import yaml

    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if str(p[0].value) == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _twice(
    node: yaml.Node | None, place: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, int]]:
    import yaml

    if node is None or id(node) in above:
        return  # an alias of what it is in: refused where the fields are looked at
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            dotted = f"{place}.{key.value}".lstrip(".")
            mark = f"{key.tag} {key.value}"
            if mark in seen:
                yield dotted, key.start_mark.line + 1
            seen.add(mark)
            yield from _twice(value, dotted, above)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _twice(item, place, above)
