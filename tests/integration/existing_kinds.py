"""Columns as both sides declare them, with random values and what becomes of each."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

Value = Any
Pair = tuple[Value, str | None]
"""What the source holds, and the text that PostgreSQL has to show for it."""


JSON = "({})::jsonb::text"
LIST = "array_to_json(({})::text[])::jsonb::text"
SECONDS = "extract(epoch FROM {})::numeric(30,6)::text"
AS_LIST = "ARRAY(SELECT jsonb_array_elements_text({}::jsonb))"
AS_SECONDS = "({} || ' s')::interval"


@dataclass(frozen=True)
class Kind:
    """A column of both sides: how each declares it, and values with what becomes of them."""

    source: str
    target: str
    make: Callable[[random.Random], Pair]
    shown: str = "{}::text"
    comparable: bool = True
    """Whether a key or an index may be over it."""
    written: str = "{}"
    """How a statement writes the shown text, quoted, as a value."""
    given: bool = False
    """Whether the type itself allows no NULL."""
    epoch: bool = False
    """Whether the policy has to say what its numbers count."""

    def literal(self, text: str) -> str:
        """The value of a shown text, as an expression of PostgreSQL's."""
        return self.written.format(sql.Literal(text).as_string(None))

    def alike(self, here: str | None, there: str | None) -> bool:
        """Whether what PostgreSQL shows is what was expected."""
        if here is None or there is None:
            return here is there
        if self.shown in (JSON, LIST):
            return bool(json.loads(here) == json.loads(there))
        if self.epoch:
            return Decimal(here) == Decimal(there)
        return here == there


def _text(rng: random.Random, most: int = 12) -> str:
    return "".join(rng.choice("abcÄ ß,\"'\\{}\n\t€😀") for _ in range(rng.randint(0, most)))


def _same(make: Callable[[random.Random], str]) -> Callable[[random.Random], Pair]:
    def made(rng: random.Random) -> Pair:
        text = make(rng)
        return text, text

    return made


def _integer(low: int, high: int) -> Callable[[random.Random], Pair]:
    def made(rng: random.Random) -> Pair:
        number = rng.choice([low, high, 0, rng.randint(low, high)])
        return number, str(number)

    return made


def _interval(rng: random.Random) -> Pair:
    micros = rng.choice([0, -1, 86_400_000_000, rng.randint(-(10**15), 10**15)])
    return micros, str(Decimal(micros) / 1_000_000)


def _day(rng: random.Random) -> str:
    return f"{rng.randint(1, 9999):04d}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _moment(rng: random.Random) -> str:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    return f"{_day(rng)} {clock}.{rng.randint(1, 999_999):06d}".rstrip("0")


def _hex(rng: random.Random, digits: int = 32) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _hyphened(bare: str) -> str:
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def _of_hex(rng: random.Random) -> Pair:
    bare = _hex(rng)
    return bare, _hyphened(bare)


def _of_bytes(rng: random.Random) -> Pair:
    bare = _hex(rng)
    return bytes.fromhex(bare), _hyphened(bare)


def _decimal(rng: random.Random) -> Pair:
    cents = rng.randint(-(10**9), 10**9)
    sign, size = "-" if cents < 0 else "", abs(cents)
    return cents / 100, f"{sign}{size // 100}.{size % 100:02d}"


def _decimal_text(rng: random.Random) -> Pair:
    text = str(_decimal(rng)[1])
    return text, text


def _boolean(rng: random.Random) -> Pair:
    truth = rng.random() < 0.5
    return int(truth), "true" if truth else "false"


def _bytea(rng: random.Random) -> Pair:
    raw = rng.randbytes(rng.randint(0, 30))
    return raw, "\\x" + raw.hex()


def _list(rng: random.Random) -> Pair:
    parts = [_text(rng, 5) for _ in range(rng.randint(0, 4))]
    return json.dumps(parts, ensure_ascii=False), json.dumps(parts, ensure_ascii=False)


def _list_of(make: Callable[[random.Random], str]) -> Callable[[random.Random], Pair]:
    def made(rng: random.Random) -> Pair:
        parts = [rng.choice([make(rng), make(rng), None]) for _ in range(rng.randint(0, 4))]
        return json.dumps(parts), json.dumps(parts)

    return made


def _document(rng: random.Random) -> Pair:
    text = json.dumps({"a": _text(rng, 4), "b": [rng.randint(-9, 9)]}, ensure_ascii=False)
    return text, text


def _address(rng: random.Random) -> Pair:
    text = ".".join(str(rng.randint(0, 255)) for _ in range(4))
    return text, text


def _feeling(rng: random.Random) -> str:
    return rng.choice(["sad", "so so", "Happy"])


def _zoned(rng: random.Random) -> Pair:
    moment = _moment(rng)
    return moment, moment + "+00"


def _character(rng: random.Random) -> Pair:
    text = _text(rng, 6).rstrip(" ")
    return text, text


KINDS = (
    Kind("INTEGER", "bigint", _integer(-(2**63), 2**63 - 1)),
    Kind("INTEGER", "integer", _integer(-(2**31), 2**31 - 1)),
    Kind("SMALLINT", "smallint", _integer(-(2**15), 2**15 - 1)),
    Kind("TEXT", "text", _same(_text)),
    Kind("VARCHAR(40)", "character varying(12)", _same(_text)),
    Kind("CHAR(6)", "character(6)", _character),
    Kind("TEXT", "citext", _same(_text)),
    Kind("TEXT", '"Feeling"', _same(_feeling)),
    Kind("BOOLEAN", "boolean", _boolean),
    Kind("DECIMAL(12,2)", "numeric(12,2)", _decimal),
    Kind("TEXT", "numeric(12,2)", _decimal_text),
    Kind("REAL", "double precision", lambda rng: (0.5, "0.5")),
    Kind("REAL", "real", lambda rng: (0.25, "0.25")),
    Kind("BIGINT", "interval", _interval, SECONDS, written=AS_SECONDS, epoch=True),
    Kind("DATETIME", "timestamp without time zone", _same(_moment)),
    Kind("DATETIME", "timestamp with time zone", _zoned),
    Kind("DATE", "date", _same(_day)),
    Kind("CHAR(32)", "uuid", _of_hex),
    Kind("BLOB", "uuid", _of_bytes),
    Kind("BLOB", "bytea", _bytea),
    Kind("TEXT", "inet", _address, "host({})"),
    Kind("TEXT", "jsonb", _document, JSON, comparable=False),
    Kind("TEXT", "json", _document, JSON, comparable=False),
    Kind("TEXT", "text[]", _list, LIST, comparable=False, written=AS_LIST),
    Kind(
        *("TEXT", "date[]", _list_of(_day), LIST),
        comparable=False,
        written=AS_LIST + "::date[]",
    ),
    Kind(
        *("TEXT", '"Feeling"[]', _list_of(_feeling), LIST),
        comparable=False,
        written=AS_LIST + '::"Feeling"[]',
    ),
    # Domains: over each family of types, over another domain, and one that allows no NULL.
    Kind("TEXT", "short", _same(lambda rng: _text(rng, 5))),
    Kind("TEXT", "shorter", _same(lambda rng: _text(rng, 3))),
    Kind("VARCHAR(12)", "given", _same(_text), given=True),
    Kind("INTEGER", "small", _integer(-100, 100)),
    Kind("DECIMAL(12,2)", "amount", _decimal),
    Kind("BOOLEAN", "flag", _boolean),
    Kind("TEXT", "mood", _same(lambda rng: rng.choice(["sad", "so so"]))),
    Kind("DATE", '"Day"', _same(_day)),
    Kind("DATETIME", "moment", _zoned),
    Kind("BIGINT", "lasting", _interval, SECONDS, written=AS_SECONDS, epoch=True),
    Kind("BLOB", "ident", _of_bytes),
    Kind("BLOB", "raw", _bytea),
    Kind("TEXT", "document", _document, JSON, comparable=False),
    Kind("TEXT", "words", _list, LIST, comparable=False, written=AS_LIST),
)

TYPES = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE "Feeling" AS ENUM ('sad', 'so so', 'Happy');
CREATE DOMAIN short AS text CHECK (length(VALUE) <= 5);
CREATE DOMAIN shorter AS short CONSTRAINT "at most" CHECK (length(VALUE) <= 3);
CREATE DOMAIN given AS varchar(12) NOT NULL CHECK (VALUE <> 'never');
CREATE DOMAIN small AS integer CHECK (VALUE BETWEEN -100 AND 100) CHECK (VALUE <> 101);
CREATE DOMAIN amount AS numeric(12,2) CHECK (abs(VALUE) <= 10000000);
CREATE DOMAIN flag AS boolean CHECK (VALUE OR NOT VALUE);
CREATE DOMAIN mood AS "Feeling" CHECK (VALUE <> 'Happy');
CREATE DOMAIN "Day" AS date CHECK (VALUE >= '0001-01-01');
CREATE DOMAIN moment AS timestamptz CHECK (VALUE < 'infinity');
CREATE DOMAIN lasting AS interval CHECK (VALUE > '-100000 days');
CREATE DOMAIN ident AS uuid CHECK (VALUE IS NOT NULL OR VALUE IS NULL);
CREATE DOMAIN raw AS bytea CHECK (octet_length(VALUE) <= 30);
CREATE DOMAIN document AS jsonb CHECK (VALUE ? 'a');
CREATE DOMAIN words AS text[] CHECK (cardinality(VALUE) < 10);
CREATE SEQUENCE "Loose";
CREATE TABLE trace (what text);
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO trace VALUES (TG_TABLE_NAME); RETURN NEW; END $$;
"""
