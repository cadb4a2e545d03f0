"""Application checks: the same queries on both sides, and what a difference looks like."""

from __future__ import annotations

from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.errors import InputError
from migration_job.verify.checks import SHOWN_DIFFERENCES, CheckResult, load_checks, run_checks

RADCASE_CHECKS = (
    Path(__file__).resolve().parents[2] / "migration_job" / "profiles" / "radcase" / "checks"
)


def replay(
    tmp_path: Path, dsn: str, files: dict[str, str], source: str, target: str, **options: object
) -> CheckResult:
    """The first check's result, with both sides made by the given statements."""
    directory = tmp_path / "checks"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    left = apsw.Connection(":memory:")
    left.execute(source)
    with psycopg.connect(dsn, autocommit=True) as right:
        right.execute(target.encode())
        return run_checks(load_checks(directory), left, right, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("CREATE TABLE t(v); INSERT INTO t VALUES (1), (0), (NULL)", "boolean:true,false,NULL"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES (3.5)", "numeric:3.5000"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES (0.1), (1e300)", "double precision:0.1,1e300"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES (9e999)", "double precision:'Infinity'"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES (x'00ff')", "bytea:'\\x00ff'"),
        (
            "CREATE TABLE t(v); INSERT INTO t VALUES ('2024-03-01 10:00:00')",
            "timestamptz:'2024-03-01 11:00:00+01'",
        ),
        (
            "CREATE TABLE t(v); INSERT INTO t VALUES ('2024-03-01T10:00:00.250Z')",
            "timestamptz:'2024-03-01 10:00:00.25+00'",
        ),
        ("CREATE TABLE t(v); INSERT INTO t VALUES ('2024-03-01')", "date:'2024-03-01'"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES ('10:00')", "time:'10:00'"),
        (
            'CREATE TABLE t(v); INSERT INTO t VALUES (\'{"b":1,"a":2.0}\')',
            'jsonb:\'{"a":2.0,"b":1}\'',
        ),
        (
            "CREATE TABLE t(v); INSERT INTO t VALUES ('0D5A7B64-1111-4222-8333-000000000000')",
            "uuid:'0d5a7b64-1111-4222-8333-000000000000'",
        ),
        ("CREATE TABLE t(v); INSERT INTO t VALUES ('not a date')", "text:'not a date'"),
        ("CREATE TABLE t(v); INSERT INTO t VALUES (1e22), (5)", "json:'1e+22','5'"),
        *(
            (
                "CREATE TABLE t(v); INSERT INTO t VALUES "
                f"(NULL), ({1700000000 * per}), ({5 * per})",
                "timestamptz:NULL,'1970-01-01 00:00:05Z','2023-11-14 22:13:20Z'",
            )
            for per in (1, 1000, 1_000_000)
        ),
        (
            "CREATE TABLE t(v); INSERT INTO t VALUES (2460263.75)",
            "timestamptz:'2023-11-15 06:00:00Z'",
        ),
        (
            "CREATE TABLE t(v); INSERT INTO t VALUES ('0D5A7B64111142228333000000000000')",
            "uuid:'0d5a7b64-1111-4222-8333-000000000000'",
        ),
    ],
)
def test_the_same_value_in_another_type_passes(
    tmp_path: Path, postgres: str, source: str, target: str
) -> None:
    kind, _, values = target.partition(":")
    rows = ", ".join(f"({v})" for v in values.split(",")) if "{" not in values else f"({values})"
    made = f"CREATE TABLE t(v {kind}); INSERT INTO t VALUES {rows}"
    result = replay(tmp_path, postgres, {"all.sql": "SELECT v FROM t"}, source, made)
    assert result.differences == ()
    assert result.source_rows == result.target_rows > 0


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("1", "true), (true", "expected 1 row, found 2"),
        ("2", "true", "expected 2, found 't'"),
        ("'2024-03-01 10:00:00'", "timestamptz '2024-03-01 10:00:00-01'", "11:00:00+00"),
        ("1.5", "1.5000001::numeric", "expected 1.5, found '1.5000001'"),
        ("'a'", "'A'", "expected 'a', found 'A'"),
        ("''", "NULL", "expected '', found NULL"),
        ("NULL", "''", "expected NULL, found ''"),
        ("'x' || char(0)", "'x'", "expected 'x\\x00', found 'x'"),
        ("5", "'5'", "expected 5, found '5'"),
        ("x'61'", "'a'", "expected x'61', found 'a'"),
        ("1700000000", "timestamptz '2023-11-14 22:13:21Z'", "expected 1700000000, found"),
    ],
)
def test_a_difference_names_row_column_and_values(
    tmp_path: Path, postgres: str, source: str, target: str, says: str
) -> None:
    result = replay(
        tmp_path,
        postgres,
        {"all.sql": "SELECT v FROM t"},
        f"CREATE TABLE t(v); INSERT INTO t VALUES ({source})",
        f"CREATE TABLE t AS SELECT * FROM (VALUES ({target})) AS x(v)",
    )
    assert not result.passed
    assert says in " ".join(result.differences)
    if "row" not in says:
        assert result.differences[0].startswith("row 1, column v: ")


def test_nulls_that_sort_the_other_way_are_a_difference(tmp_path: Path, postgres: str) -> None:
    values = "VALUES (1), (NULL), (2)"
    made = (f"CREATE TABLE t(v INT); INSERT INTO t {values}",) * 2
    ordered = {"all.sql": "SELECT v FROM t ORDER BY v"}
    result = replay(tmp_path, postgres, ordered, *made)
    assert result.differences[0] == "row 1, column v: expected NULL, found '1'"


def test_a_pair_of_dialects_resolves_it(tmp_path: Path, postgres: str) -> None:
    made = ("CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (NULL), (2)",) * 2
    files = {
        "all.sqlite.sql": 'SELECT v, "a" AS kind FROM t ORDER BY v;\n',
        "all.postgresql.sql": "SELECT v, 'a' AS kind FROM t ORDER BY v NULLS FIRST;\n",
    }
    assert replay(tmp_path, postgres, files, *made).passed


def test_double_quoted_literals_are_refused_by_the_target(tmp_path: Path, postgres: str) -> None:
    made = ("CREATE TABLE t(v TEXT); INSERT INTO t VALUES ('a')",) * 2
    files = {"all.sql": 'SELECT count(*) FROM t WHERE v = "a"'}
    result = replay(tmp_path, postgres, files, *made)
    assert result.differences == ('the target refuses the query: column "a" does not exist',)


def test_without_order_by_the_order_does_not_matter(tmp_path: Path, postgres: str) -> None:
    result = replay(
        tmp_path,
        postgres,
        {"all.sql": "SELECT v FROM t"},
        "CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (2), (3)",
        "CREATE TABLE t(v INT); INSERT INTO t VALUES (2), (3), (1), (2)",
    )
    assert result.passed
    result = replay(
        tmp_path,
        postgres,
        {"all.sql": "SELECT v FROM t"},
        "CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (2), (3)",
        "DROP TABLE t; CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (3), (3)",
    )
    assert result.differences == ("row 1, column v: expected 2, found '3'",)


def test_computed_numbers_may_differ_in_the_last_digit(tmp_path: Path, postgres: str) -> None:
    made = ("CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (2)",) * 2
    assert replay(tmp_path, postgres, {"all.sql": "SELECT avg(v) FROM t"}, *made).passed


def test_what_a_rule_changed_on_purpose_is_accepted(tmp_path: Path, postgres: str) -> None:
    fixed = "00000000-0000-4000-8000-000000000001"
    made = (
        "CREATE TABLE t(v); INSERT INTO t VALUES ('system')",
        f"CREATE TABLE t(v uuid); INSERT INTO t VALUES ('{fixed}')",
    )
    files = {"all.sql": "SELECT v FROM t"}
    assert not replay(tmp_path, postgres, files, *made).passed
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("DROP TABLE t")
    assert replay(tmp_path, postgres, files, *made, mapped=[("system", fixed)]).passed


def test_digits_in_a_view_are_a_number_where_a_rule_chose_so(tmp_path: Path, postgres: str) -> None:
    made = (
        "CREATE TABLE t(v, w); INSERT INTO t VALUES ('0', 5)",
        "CREATE TABLE t(v integer, w text); INSERT INTO t VALUES (0, '5')",
    )
    files = {"all.sql": "SELECT v, w FROM t"}
    assert len(replay(tmp_path, postgres, files, *made).differences) == 2
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("DROP TABLE t")
    assert replay(tmp_path, postgres, files, *made, spelled=True).passed
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("DROP TABLE t")
    other = made[1].replace("'5'", "'05'")
    assert not replay(tmp_path, postgres, files, made[0], other, spelled=True).passed


def test_many_differences_are_counted(tmp_path: Path, postgres: str) -> None:
    result = replay(
        tmp_path,
        postgres,
        {"all.sql": "SELECT v FROM t ORDER BY v"},
        "CREATE TABLE t(v INT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
        "FROM n WHERE i < 50) INSERT INTO t SELECT i FROM n",
        "CREATE TABLE t AS SELECT i + 1 AS v FROM generate_series(1, 50) AS g(i)",
    )
    assert len(result.differences) == SHOWN_DIFFERENCES
    assert result.unshown == 50 - SHOWN_DIFFERENCES


def test_a_check_cannot_write(tmp_path: Path, postgres: str) -> None:
    made = ("CREATE TABLE t(v INT)",) * 2
    files = {
        "all.sqlite.sql": "SELECT 1",
        "all.postgresql.sql": "SELECT setval('s', 5)",
    }
    result = replay(tmp_path, postgres, files, made[0], made[1] + "; CREATE SEQUENCE s")
    assert "read-only transaction" in result.differences[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "expected *.sql files"),
        ({"a.sqlite.sql": "SELECT 1"}, "expected a.postgresql.sql beside a.sqlite.sql"),
        ({"a.postgresql.sql": "SELECT 1"}, "expected a.sqlite.sql beside a.postgresql.sql"),
        ({"a.mysql.sql": "SELECT 1"}, "found a.mysql.sql"),
        ({"a.sql": "SELECT 1", "a.sqlite.sql": "SELECT 1"}, "found two"),
        ({"a.sql": "SELECT 1; SELECT 2"}, "expected one SELECT in check a (sqlite)"),
        ({"a.sql": "DELETE FROM t"}, "expected one SELECT"),
        ({"a.sql": ""}, "expected one SELECT"),
        ({"a.sql": "SELECT ((1"}, "expected SQL that can be read"),
        (
            {"a.sqlite.sql": "SELECT 1 ORDER BY 1", "a.postgresql.sql": "SELECT 1"},
            "ordered alike",
        ),
    ],
)
def test_a_wrong_directory_is_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_checks(tmp_path)
    assert says in caught.value.message
    assert caught.value.advice


def test_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a directory"):
        load_checks(tmp_path / "none")


def test_radcases_checks_run_on_its_own_database(radcase_db: Path) -> None:
    checks = load_checks(RADCASE_CHECKS)
    assert len(checks) >= 20
    source = apsw.Connection(str(radcase_db), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        answers = {check.name: len(list(source.execute(check.sqlite))) for check in checks}
    finally:
        source.close()
    # Each reads something: a check of an empty table would pass whatever happened.
    assert [name for name, rows in answers.items() if not rows] == []
