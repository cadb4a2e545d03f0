"""Until when the PostgreSQL project mends each major version, and what is said from then on.

The dates are the project's own: https://www.postgresql.org/support/versioning/
"""

from __future__ import annotations

from datetime import UTC, date, datetime

END_OF_SUPPORT = {
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""Major version to the day of its last release."""

NEWEST = max(END_OF_SUPPORT)
"""The newest that every part of a stage supports: what a new stage gets."""


def warning(major: int, today: date | None = None) -> str:
    """What an operator is told of that version, from its end of support on; '' before."""
    last = END_OF_SUPPORT.get(major)
    if last is None or (today or datetime.now(UTC).date()) < last:
        return ""
    return (
        f"PostgreSQL {major} has had no corrections, not of security either, since {last}; "
        f"the newest is {NEWEST}, and docs/how-to/upgrade.md says how to come to it"
    )
