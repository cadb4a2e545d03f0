"""What RadCase's own API lets in and its PostgreSQL schema refuses, one row for each.

The list is an observation of the running application, not of its code's intent: it checks none of
this. Each function leaves rows that a migration has to find, and say what it did with them.
"""

from __future__ import annotations

import apsw

LONE_SURROGATE = "X'4C6F6E6520EDA080'"
"""``Lone `` and the three bytes of U+D800, which is not valid UTF-8."""


def add_hostile_rows(connection: apsw.Connection) -> None:
    """Add the rows to a database made by :func:`migration_job.demo.radcase.make_radcase`."""
    _cases(connection)
    _users(connection)
    _annotations(connection)
    _series(connection)
    _orphans(connection)


def _cases(connection: apsw.Connection) -> None:
    add = (
        "INSERT INTO cases (id, title, modality, difficulty) VALUES "
        "('00000000-0000-4000-8000-' || printf('%012x', ?), {title}, ?, ?)"
    )
    plain = add.format(title="?")
    rows: list[tuple[int, str, str, object]] = [
        (1, "A title of more than five hundred characters. " * 12, "CT", 2),
        (2, "Modality too long", "Computed Tomography with a name that goes on and on and on", 2),
        (3, "Difficulty 0", "CT", 0),
        (4, "Difficulty 9", "CT", 9),
        (5, "Difficulty 2.5", "CT", 2.5),
        (6, "Difficulty in words", "CT", "hard"),
        (7, "NUL\x00 in the title", "CT", 2),
    ]
    connection.executemany(plain, rows)
    connection.execute(add.format(title=f"CAST({LONE_SURROGATE} AS TEXT)"), (8, "CT", 2))


def _users(connection: apsw.Connection) -> None:
    connection.execute(
        "INSERT INTO users (id, username, password_hash) VALUES (?, ?, '$2b$10$x')",
        ("00000000-0000-4000-8000-00000000000b", "u" * 80),
    )


def _annotations(connection: apsw.Connection) -> None:
    connection.executemany(
        "INSERT INTO images (id, case_id, filename, annotations) "
        "VALUES (?, (SELECT min(id) FROM cases), 'x.jpg', ?)",
        [
            ("00000000-0000-4000-8000-0000000000a1", "not json at all"),
            ("00000000-0000-4000-8000-0000000000a2", '[{"label":"zero \\u0000 byte"}]'),
            ("00000000-0000-4000-8000-0000000000a3", '[{"label":"half \\ud800 pair"}]'),
            ("00000000-0000-4000-8000-0000000000a4", '{"a":1,"a":2,"n":1e400}'),
        ],
    )


def _series(connection: apsw.Connection) -> None:
    uid = "1.2.840.113619.2.55.3.604688119"
    connection.executemany(
        "INSERT INTO dicom_series (id, case_id, series_uid, series_description, modality, "
        "folder_name, window_center) VALUES (?, (SELECT min(id) FROM cases), ?, ?, 'CT', 'f', ?)",
        [
            ("00000000-0000-4000-8000-0000000000d1", uid, "Uploaded to one case", 40.0),
            ("00000000-0000-4000-8000-0000000000d2", None, "D" * 300, 40.0),
            ("00000000-0000-4000-8000-0000000000d3", None, "Huge window", 1234567890.0),
            ("00000000-0000-4000-8000-0000000000d4", None, "Fine window", 40.12345),
        ],
    )
    connection.execute(
        "INSERT INTO dicom_series (id, case_id, series_uid, series_description, modality, "
        "folder_name) VALUES (?, (SELECT max(id) FROM cases), ?, 'And to another', 'CT', 'g')",
        ("00000000-0000-4000-8000-0000000000d5", uid),
    )


def _orphans(connection: apsw.Connection) -> None:
    """Left by a clean-up in the sqlite3 shell, where foreign keys are off."""
    connection.execute(
        "INSERT INTO bookmarks (user_id, case_id) "
        "VALUES ('00000000-0000-4000-8000-0000000000ff', (SELECT min(id) FROM cases))"
    )
