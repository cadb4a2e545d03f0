"""Types that nothing on the source declares, by the policy: there, written to, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import BLOCKED, DONE, FAILED, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  state TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'paid', 'it''s gone')),
  other TEXT, seen TEXT, ratio REAL, took INTEGER, host TEXT, code TEXT, tags TEXT, sizes TEXT);
INSERT INTO account VALUES
  (1, 'Ada', 'paid', 'new', '2026-01-31 10:00:00', 0.5, 90000000, '192.0.2.7', 'AB', '["a","b"]',
   '[1,2]'),
  (2, 'grace', 'it''s gone', NULL, '2026-02-01 23:59:59', 1.5, 0, '2001:db8::1', NULL, '[]', NULL),
  (3, 'Émile', 'new', 'paid', NULL, NULL, NULL, NULL, 'ZZ', NULL, '[-5]');
"""
POLICY = """
tables:
  account:
    columns:
      name: {type: citext}
      state: {type: "account_state enum('new', 'paid', 'it''s gone')"}
      other: {type: "account_state enum('new', 'paid', 'it''s gone')"}
      seen: {type: timestamp without time zone}
      ratio: {type: real}
      took: {type: interval, epoch: us}
      host: {type: inet}
      code: {type: char(2)}
      tags: {type: 'text[]'}
      sizes: {type: 'integer[]'}
"""
TYPES = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'account'::regclass AND attnum > 1 AND attname !~ '^_migration' ORDER BY attnum
"""
EXPECTED = [
    ("name", "citext"),
    ("state", "account_state"),
    ("other", "account_state"),
    ("seen", "timestamp without time zone"),
    ("ratio", "real"),
    ("took", "interval"),
    ("host", "inet"),
    ("code", "character(2)"),
    ("tags", "text[]"),
    ("sizes", "integer[]"),
]


def _policy(folder: Path, text: str = POLICY) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text)
    return file


def test_there_and_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    policy = _policy(tmp_path)
    assert run("inspect", way.source, "--policy", policy).status == DONE
    before = way.on_sqlite("SELECT * FROM account ORDER BY id")
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    assert way.on_postgres(TYPES) == EXPECTED
    way.on_sqlite("INSERT INTO account(id, name, state) VALUES (4, 'Blaise', 'paid')")
    way.on_sqlite("UPDATE account SET name = 'GRACE' WHERE id = 2")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT id FROM account WHERE name = 'grace'") == [(2,)]
    way.on_postgres(
        "INSERT INTO account(name, other, seen, took, tags) VALUES "
        "('Kurt', 'it''s gone', '2026-03-01 00:00:00', '1 hour', ARRAY['x', NULL]); "
        "UPDATE account SET state = DEFAULT, ratio = 0.25, code = 'Q', sizes = '{7}' WHERE id = 1"
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM account ORDER BY id")
    assert after[0] == (*before[0][:2], "new", *before[0][3:5], 0.25, *before[0][6:8], "Q",
                        before[0][9], "[7]")  # fmt: skip
    assert after[1] == (2, "GRACE", *before[1][2:])
    assert after[2] == before[2]
    assert after[4][1:7] == ("Kurt", "new", "it's gone", "2026-03-01 00:00:00", None, 3_600_000_000)
    way.on_sqlite("UPDATE account SET name = name, state = state")
    assert way.command("sync", "--once").status == DONE


def test_a_run_from_the_start_makes_its_types_again(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)

    def migrate(policy: str) -> Ended:
        return run(
            *("migrate", way.source, "--target", postgres, "--report", tmp_path / "report"),
            *("--policy", _policy(tmp_path, policy)),
        )

    for labels in ("'new', 'paid', 'it''s gone'", "'it''s gone', 'paid', 'new', 'lost'"):
        ended = migrate(POLICY.replace("'new', 'paid', 'it''s gone'", labels))
        assert ended.status == DONE, ended.said
        assert way.on_postgres("SELECT enum_range(NULL::account_state)::text[]") == [
            ([label.strip(" '").replace("''", "'") for label in labels.split(",")],)
        ]


def test_in_a_schema_of_its_own(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    ended = run(
        *("migrate", way.source, "--target", postgres, "--report", tmp_path / "report"),
        *("--policy", _policy(tmp_path), "--schema-name", "shop"),
    )
    assert ended.status == DONE, ended.said
    asked = "SELECT id FROM shop.account WHERE name OPERATOR(shop.=) 'ADA' AND state = 'paid'"
    assert way.on_postgres(asked) == [(1,)]


def test_what_no_label_is_stops_the_plan(tmp_path: Path) -> None:
    source = tmp_path / "app.db"
    way = Way.of(tmp_path, "", SCRIPT.replace("'paid', 'new', '2026", "'lost', 'new', '2026")
                 .replace("CHECK (state IN", "CHECK (1 OR state IN"))  # fmt: skip
    ended = run("inspect", source, "--policy", _policy(way.folder, f"default: block{POLICY}"))
    assert ended.status == BLOCKED, ended.said
    assert "not-a-label" in ended.out


def test_keys_that_differ_in_case_alone_are_found_before_the_load(tmp_path: Path) -> None:
    way = Way.of(
        tmp_path,
        "",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT UNIQUE); "
        "INSERT INTO t VALUES (1, 'Éa'), (2, 'éA'), (3, 'b')",
    )
    policy = _policy(tmp_path, "default: block\ntables: {t: {columns: {n: {type: citext}}}}")
    ended = run("inspect", way.source, "--policy", policy)
    assert ended.status == BLOCKED, ended.said
    assert "key-collides" in ended.out


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("order enum('a')", "found 'order'"),
        ("text enum('a')", "found 'text'"),
        ("Mood enum('a')", "found 'Mood'"),
        ("mood enum('a', 'a')", "one of them twice"),
        (f"mood enum('{'x' * 64}')", "a longer one"),
        ("account enum('new', 'paid', 'it''s gone')", "a relation of that name"),
        ("mood enum()", "NAME enum('label', 'label')"),
    ],
)
def test_an_enum_that_postgresql_cannot_have_is_a_sentence(
    wanted: str, said: str, tmp_path: Path
) -> None:
    way = Way.of(tmp_path, "", SCRIPT)
    text = f'tables: {{account: {{columns: {{state: {{type: "{wanted}"}}}}}}}}'
    ended = run("inspect", way.source, "--policy", _policy(tmp_path, text))
    assert ended.status == USAGE, ended.said
    assert said in " ".join(ended.err.split())


def test_a_server_without_the_extension_is_a_sentence(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way.of(tmp_path, postgres, "CREATE TABLE t (n TEXT); INSERT INTO t VALUES ('a')")
    monkeypatch.setattr(
        "migration_job.stores.postgres.schema.create_extensions",
        lambda _connection, plan: dict.fromkeys(plan.extensions, "permission denied"),
    )
    policy = _policy(tmp_path, "tables: {t: {columns: {n: {type: citext}}}}")
    ended = run(
        *("migrate", way.source, "--target", postgres, "--report", tmp_path / "report"),
        *("--policy", policy),
    )
    assert ended.status == FAILED, ended.said
    assert "expected the extension citext" in ended.err
    assert "have a superuser create that extension" in ended.err


def test_an_array_of_dates_can_be_wished(tmp_path: Path, postgres: str) -> None:
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE plan (id INTEGER PRIMARY KEY, days TEXT, at TEXT);"
        """INSERT INTO plan VALUES (1, '["2024-02-29"]', '["2024-02-29 01:02:03", null]')""",
    )
    before = way.on_sqlite("SELECT * FROM plan")
    wished = "{days: {type: 'date[]'}, at: {type: 'timestamp(3)[]'}}"
    policy = _policy(tmp_path, f"tables: {{plan: {{columns: {wished}}}}}")
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT days[1] - 1 = '2024-02-28', at::text FROM plan") == [
        (True, '{"2024-02-29 01:02:03",NULL}')
    ]
    way.back()
    assert way.on_sqlite("SELECT * FROM plan") == before
