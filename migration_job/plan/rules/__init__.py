"""Rules: how a source value becomes a target value, and how it comes back.

A rule meets every value of its column in one of three ways:

* it carries it **exactly**: ``inverse(forward(v))`` is ``v`` again, storage class and bytes;
* it **changes** it: the forward value exists, but does not come back by itself, or is another
  value by intent (a map) - such a value gets a ledger row;
* it **cannot carry** it: :class:`CannotCarry`, and the policy decides.

Forward values are ``str`` in the type's PostgreSQL input syntax (``None`` for NULL), before any
COPY escaping. ``inverse`` takes PostgreSQL's text output under the session settings
``DateStyle=ISO, TimeZone=UTC, bytea_output=hex, extra_float_digits=1, IntervalStyle=postgres``.
``forward`` gives PostgreSQL's own output text, so that what was written can be compared with what
is read; so does ``fast_sql`` where :attr:`RuleBase.canonical` says so.

One module is one family. A new rule is a class in one of them, or in a new one: the registry finds
it, and what other parts of the job have to know of it are its class variables
(:class:`~migration_job.plan.rules.base.RuleBase`).
"""

from migration_job.plan.rules.base import (
    INT64_HIGH,
    INT64_LOW,
    NUMBER_AFFINITIES,
    Affinity,
    CannotCarry,
    EpochUnit,
    Kind,
    Request,
    Rule,
    RuleBase,
    StorageClass,
    TargetType,
)
from migration_job.plan.rules.binary import ByteaRule, BytesTextRule, WidenedByteaRule
from migration_job.plan.rules.generated import ConstantRule
from migration_job.plan.rules.json import JsonbBlobRule, JsonBlobRule, JsonbRule, JsonRule
from migration_job.plan.rules.maps import Entry, MapRule, Pattern, Scalar, again, inside
from migration_job.plan.rules.numbers import (
    INT2,
    INT4,
    INT8,
    BooleanRule,
    DecimalTextRule,
    IntegerRule,
    IntegerTextRule,
    NumericRule,
    RealRule,
    number_text,
    postgres_float,
)
from migration_job.plan.rules.registry import (
    ALLOWED,
    OWNERS,
    RULES,
    TARGETS,
    base_of,
    declared_as,
    target_named,
)
from migration_job.plan.rules.text import TextIntegerRule, TextRule, WidenedTextRule
from migration_job.plan.rules.times import (
    FINEST,
    MIDNIGHT_AFTER,
    DateRule,
    TimeRule,
    TimestampRule,
    clock,
    timestamp,
)
from migration_job.plan.rules.uuid import ByteOrder, UuidBytesRule, UuidRule

__all__ = [
    "ALLOWED",
    "FINEST",
    "INT2",
    "INT4",
    "INT8",
    "INT64_HIGH",
    "INT64_LOW",
    "MIDNIGHT_AFTER",
    "NUMBER_AFFINITIES",
    "OWNERS",
    "RULES",
    "TARGETS",
    "Affinity",
    "BooleanRule",
    "ByteOrder",
    "ByteaRule",
    "BytesTextRule",
    "CannotCarry",
    "ConstantRule",
    "DateRule",
    "DecimalTextRule",
    "Entry",
    "EpochUnit",
    "IntegerRule",
    "IntegerTextRule",
    "JsonBlobRule",
    "JsonRule",
    "JsonbBlobRule",
    "JsonbRule",
    "Kind",
    "MapRule",
    "NumericRule",
    "Pattern",
    "RealRule",
    "Request",
    "Rule",
    "RuleBase",
    "Scalar",
    "StorageClass",
    "TargetType",
    "TextIntegerRule",
    "TextRule",
    "TimeRule",
    "TimestampRule",
    "UuidBytesRule",
    "UuidRule",
    "WidenedByteaRule",
    "WidenedTextRule",
    "again",
    "base_of",
    "clock",
    "declared_as",
    "inside",
    "number_text",
    "postgres_float",
    "target_named",
    "timestamp",
]
