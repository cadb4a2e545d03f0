"""``moves.json``: when the application was held, beside ``report.json``; and how the page shows it.

``report.json`` is written by ``migrate`` and ``verify`` and says what was proven. What a later
``switch`` or ``rollback`` did to the application is kept beside it, each command once, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from migration_job.durable import write_durably
from migration_job.report.model import Move, Step

NAME = "moves.json"
KEPT = 20
"""Commands of which the times are kept."""

HOLDS = frozenset({"switch.fence", "rollback.pause"})
"""At the end of such a step the application is held."""
DECISIONS = frozenset({"switch.decide", "rollback.decide"})

WORDS = {
    "switch.prepare": ("prepared", "caught up, compared, references proved; nobody is held"),
    "switch.fence": ("held", "SQLite's writers wait from here on"),
    "switch.drain": ("drained", "the last changes are on PostgreSQL, proven and certified"),
    "switch.decide": ("decided", "one commit on SQLite: PostgreSQL serves"),
    "follow.open": ("opened", "PostgreSQL takes writes"),
    "follow.alias": ("let in", "PgBouncer leads the application there"),
    "follow.connect": ("named", "the application's connection names PostgreSQL"),
    "rollback.prepare": ("prepared", "PostgreSQL's changes are back; nobody is held"),
    "rollback.pause": ("held", "PgBouncer holds the application's queries from here on"),
    "rollback.fence": ("closed", "PostgreSQL refuses writes"),
    "rollback.drain": ("drained", "the last changes are on SQLite, proven"),
    "rollback.decide": ("decided", "one commit on SQLite: SQLite serves"),
    "return.connect": ("named", "the application's connection names SQLite"),
    "return.alias": ("let go", "PgBouncer sends nobody to PostgreSQL any more"),
}
"""What has happened at a step's end, in a word and in a clause."""

_MOVES = TypeAdapter(list[Move])


def read(folder: Path) -> list[Move]:
    """The moves noted in ``folder``, the oldest first; none where there is no such file. Raises
    OSError or pydantic's ValidationError for one that cannot be read."""
    try:
        return _MOVES.validate_json((folder / NAME).read_bytes())
    except FileNotFoundError:
        return []


def held(steps: Sequence[Step]) -> bool:
    """Whether the application was held by these, or was to be."""
    return any(step.name in HOLDS for step in steps)


def append(folder: Path, move: Move) -> None:
    """Add ``move``, durably. Raises as :func:`read`, and OSError where it cannot be written."""
    moves = [*read(folder), move][-KEPT:]
    # A message may quote the key of a row.
    write_durably(folder / NAME, _MOVES.dump_json(moves, indent=2) + b"\n", mode=0o600)


# --------------------------------------------------------------------------------------- the page


def shown(moves: Sequence[Move], run_id: str) -> list[dict[str, Any]]:
    """What the page says of the moves of that run. A row's ``x`` and ``width`` are in thousandths
    of the time from the last request to hold the application to the end, None before it."""
    return [_shown(move) for move in moves if move.run_id == run_id and held(move.steps)]


def _shown(move: Move) -> dict[str, Any]:
    asked = _asked(move.steps)
    last = max(step.at_ms + step.took_ms for step in move.steps)
    span = max(last - asked, 1e-6)
    rows = [_row(move, step, asked, span) for step in move.steps]
    to = "PostgreSQL" if move.command == "switch" else "SQLite"
    done = move.outcome == "done"
    return {
        "title": f"{'Switch' if move.command == 'switch' else 'Way back'} to {to}",
        "tone": "good" if done else "bad",
        "at": _clock(move, 0.0, "%Y-%m-%d %H:%M:%S"),
        "sentences": [*_sentences(move, last), *([move.message] if not done else [])],
        "rows": rows,
        "bars": [row for row in rows if row["x"] is not None],
        "picture": "; ".join(
            f"{row['word']} after {row['after_ms']:,.0f} ms" for row in rows if row["x"] is not None
        ),
    }


def _asked(steps: Sequence[Step]) -> float:
    """When the application was last asked to wait."""
    return [step.at_ms for step in steps if step.name in HOLDS][-1]


def _row(move: Move, step: Step, asked: float, span: float) -> dict[str, Any]:
    word, clause = WORDS.get(step.name, (step.name, ""))
    end = step.at_ms + step.took_ms
    seen = step.at_ms >= asked
    return {
        "word": f"given up before it was {word}" if step.failed else word,
        "clause": "" if step.failed else clause,
        "tone": "bad" if step.failed else _tone(step.name),
        "at": _clock(move, end, "%H:%M:%S"),
        "after_ms": end - asked if seen else None,
        "took_ms": step.took_ms,
        "x": round(1000 * (step.at_ms - asked) / span, 1) if seen else None,
        # A step of a few microseconds is to be seen all the same.
        "width": round(max(1000 * step.took_ms / span, 3.0), 1),
    }


def _tone(name: str) -> str:
    if name in HOLDS:
        return "wait"
    return "open" if name.startswith(("follow.", "return.")) else "held"


def _clock(move: Move, after_ms: float, form: str) -> str:
    at = datetime.fromisoformat(move.began_at).astimezone(UTC) + timedelta(milliseconds=after_ms)
    return f"{at:{form}}.{at.microsecond // 1000:03d} UTC"


def _sentences(move: Move, last: float) -> list[str]:
    who = "SQLite's writers were" if move.command == "switch" else "The application's queries were"
    tries = [step for step in move.steps if step.name in HOLDS]
    sentences = []
    if move.held_ms is not None:
        sentences.append(f"{who} held for {move.held_ms:,.0f} ms.")
    if move.outcome == "done" and move.command == "switch":
        until = last - tries[-1].at_ms - tries[-1].took_ms
        sentences.append(
            f"The connection named PostgreSQL {until:,.0f} ms after they began to wait."
        )
    if len(tries) > 1:
        sentences.append(
            f"{len(tries)} times the application was to wait; the picture shows the last."
        )
    return [*sentences, *_decision(move)]


def _decision(move: Move) -> list[str]:
    """Whether a move that failed was decided all the same; nothing where its message alone says."""
    if move.outcome == "done":
        return []
    decisions = [step for step in move.steps if step.name in DECISIONS]
    if not decisions:
        stays = "SQLite" if move.command == "switch" else "PostgreSQL"
        return [f"The decision was not taken: {stays} serves as before."]
    if decisions[-1].failed:
        return []
    return ["The decision was taken, and what follows from it was not done at once."]
