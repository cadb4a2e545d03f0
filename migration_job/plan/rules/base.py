"""What a rule is, whatever its family: the promises, and what the rest of the plan asks of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny

from migration_job.plan.facts import ColumnFacts
from migration_job.values import BrokenText, SourceValue, display, same, storage_class

Affinity = Literal["integer", "text", "blob", "real", "numeric"]

EpochUnit = Literal["s", "ms", "us", "ns", "julian", "apple", "filetime", "ticks", "excel"]
"""What a number of a time counts, and from when."""

StorageClass = Literal["integer", "real", "text", "blob"]

Kind = Literal[
    "integer",
    "real",
    "numeric",
    "text",
    "boolean",
    "bytea",
    "time",
    "date",
    "uuid",
    "json",
    "opaque",
    "null",
]
"""How an expression meets the values of a type; no expression over an ``opaque`` one is
translated."""

INT64_LOW, INT64_HIGH = -(2**63), 2**63 - 1

NUMBER_AFFINITIES = frozenset({"integer", "real", "numeric"})
"""Under these SQLite makes a number of text that looks like one."""


class CannotCarry(Exception):
    """The rule has no target value for this source value; the message says why, in lower case."""


@dataclass(frozen=True, slots=True)
class TargetType:
    """A PostgreSQL type that a rule leads to."""

    name: str
    """As a plan spells it, without length, precision or scale."""
    kind: Kind
    declared: str
    """The type that SQLite declares for a column which PostgreSQL got first."""
    natural: tuple[str, ...]
    """What a new row may have there, as PostgreSQL's text output: a value or two for a trial."""
    size: tuple[int, int] | None = None
    """Bytes and alignment of a value in a row; None where the value decides."""
    words: tuple[str, ...] = ()
    """Other names that PostgreSQL, a policy or a profile has for it."""
    extension: str = ""
    """The extension that has the type; '' where PostgreSQL has it itself."""
    forms: tuple[str, ...] = ()
    """How a policy may ask for it, e.g. ``numeric(p,s)``; its name alone where nothing is said."""


@dataclass(frozen=True, slots=True)
class Request:
    """A column that shall have a type, and what is known of it."""

    facts: ColumnFacts
    affinity: Affinity
    type: str = ""
    """The name of the PostgreSQL type (:attr:`TargetType.name`)."""
    numbers: tuple[int, ...] = ()
    """Length, precision or scale, as the type names them."""
    zone: str = "UTC"
    epoch: EpochUnit | None = None
    declared: str = ""
    """The type that the source declares, as it is written there."""


class RuleBase(BaseModel):
    """How the values of a column are carried to one type and back.

    A new rule is a subclass in a module of this package with a ``kind`` of its own; whatever the
    rest of the plan and the copier have to know of it stands here as a class variable or a method.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    kind: str
    bijective: bool = True
    """Whether distinct source values always get distinct target values."""

    types: ClassVar[tuple[TargetType, ...]] = ()
    """The types that this rule alone answers for: a wish for one of them is its to grant."""

    doc: ClassVar[str] = ""
    """What it carries and what comes back, in a sentence (docs/types.md)."""

    canonical: ClassVar[bool] = True
    """Whether ``fast_sql`` gives PostgreSQL's own output text, not only the same value."""

    no_escapes: ClassVar[bool] = True
    """Whether the forward text never holds a backslash, tab, line feed or carriage return, so that
    COPY text needs no escaping."""

    bytea: ClassVar[bool] = False
    """Whether the forward text is ``\\x`` and hexadecimal digits."""

    unbounded: ClassVar[bool] = False
    """Whether a value may be of any size; others are a few dozen bytes."""

    streamed: ClassVar[StorageClass | None] = None
    """The class whose large values are copied piece by piece, since the text is the value's own."""

    widened: ClassVar[bool] = False
    """Whether it carries classes that the type is not of, each such value with a ledger row."""

    classes: ClassVar[frozenset[StorageClass]] = frozenset({"text"})
    """The storage classes of the values that it is meant for."""

    own_class: ClassVar[bool] = False
    """Whether every source value is of the class that SQLite's typeof() names for the type."""

    spelling: ClassVar[bool] = False
    """Whether the source value is a text that only spells the value, so that two columns with other
    rules can still be compared as text."""

    without_case: ClassVar[bool] = False
    """Whether the target finds two of its values equal that differ in case alone."""

    misfit: ClassVar[str] = "does-not-fit"
    """The code of the finding for a value of the right class that is not carried."""

    word: ClassVar[str] = ""
    """How codes of findings name the rule; ``kind`` where it is empty."""

    spelled: ClassVar[tuple[str, ...]] = ()
    """The fields that say no more than how the source writes the values."""

    declared: ClassVar[frozenset[str]] = frozenset()
    """Declared types that ask for this rule, in upper case, without their numbers."""

    declared_first: ClassVar[frozenset[str]] = frozenset()
    """First words of declared types that ask for this rule."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        kind = cls.model_fields["kind"].default
        if (
            isinstance(kind, str)
            and _BY_KIND.setdefault(kind, cls).__qualname__ != cls.__qualname__
        ):
            raise TypeError(f"two rules of the kind {kind!r}: {_BY_KIND[kind]} and {cls}")

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        """The rule for a column whose declared type asks for it; ``numbers`` are that type's."""
        return cls.asked(request)

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        """The rule for a column that shall have one of :attr:`types`, by the policy, a profile or
        because the table has it."""
        del request
        return cls()  # type: ignore[call-arg]  # a subclass gives `kind` its value

    @property
    @abstractmethod
    def target_type(self) -> str:
        """The PostgreSQL type that the rule leads to by itself, with length or precision."""

    @abstractmethod
    def forward(self, value: SourceValue) -> str | None:
        """The target value as PostgreSQL input text. Raises CannotCarry."""

    @abstractmethod
    def inverse(self, text: str | None) -> SourceValue:
        """The source value for a target value's text output. A target value that no source value
        can have led to (a NaN, a year 12000) comes back as its text: nothing is lost on the way."""

    def changes(self, value: SourceValue) -> bool:
        """Whether ``value`` needs a ledger row. Raises CannotCarry as ``forward`` does."""
        return not same(self.inverse(self.forward(value)), value)

    def cuts(self, value: SourceValue) -> bool:
        """Whether the target holds less of a value that is carried than it says, as with a time
        that is finer than its type."""
        del value
        return False

    def returned(self, value: SourceValue) -> str | None:
        """The target's text of a value that only a rollback can have written, since ``inverse``
        gives it for what no value of the source's own stands for (an infinite time, a NaN); None
        for all others. ``forward`` does not carry such a value: it says nothing of a column's
        type."""
        del value
        return None

    def sized(self, natural: str) -> str:
        """A value that a new row may have in a column of the rule's type, as it is with the type's
        own length or dimensions."""
        return natural

    def fast_sql(self, column: str) -> str | None:
        """A SQLite expression (``column`` is a quoted column reference) that gives the forward
        text of every value that meets :meth:`fast_condition`; None where there is none."""
        del column
        return None

    def fast_condition(self, column: str) -> str | None:
        """A SQLite predicate, true only for values that ``fast_sql`` converts and that need no
        ledger row (NULL included); None where there is none. Never NULL itself. It cannot see NUL
        or undecodable bytes inside text: preflight looks for those separately."""
        del column
        return None

    def implied_by(self, facts: ColumnFacts) -> bool:
        """Whether the facts alone say that every value meets :meth:`fast_condition`."""
        return not facts.classes

    def spelled_as(self, other: RuleBase) -> RuleBase:
        """The rule that leads to the same type and has the source write values as ``other`` does;
        itself where ``other`` is of another kind."""
        if type(other) is not type(self) or not self.spelled:
            return self
        return self.model_copy(update={name: getattr(other, name) for name in self.spelled})

    def under(self, affinity: Affinity) -> Self:
        """The rule that knows the affinity of its column, where that makes a difference to what
        comes back."""
        del affinity
        return self


_BY_KIND: dict[str, type[RuleBase]] = {}


def known_kinds() -> Mapping[str, type[RuleBase]]:
    """Every kind of rule and its class, as far as their modules are imported."""
    return _BY_KIND


def _by_kind(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    kind = _BY_KIND.get(str(value.get("kind")))
    if kind is None:
        known = ", ".join(sorted(_BY_KIND))
        raise ValueError(f"expected a rule of a kind among {known}; found {value.get('kind')!r}")
    return kind.model_validate(value)


Rule = Annotated[RuleBase, SerializeAsAny(), BeforeValidator(_by_kind)]
"""A rule in a plan: written with its kind, and read by it."""


def expected(what: str, value: SourceValue) -> CannotCarry:
    """The error of a rule that takes ``what`` alone."""
    return CannotCarry(f"expected {what}, found {storage_class(value)} {display(value, 60)}")


def text_for(value: SourceValue, what: str) -> str:
    """The value as storable text. Raises CannotCarry for another class, NUL, undecodable bytes."""
    if isinstance(value, BrokenText):
        raise CannotCarry(f"text with undecodable bytes: {display(value, 60)}")
    if not isinstance(value, str):
        raise expected(what, value)
    if "\x00" in value:
        raise CannotCarry(f"text with a NUL character: {display(value, 60)}")
    return value
