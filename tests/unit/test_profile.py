"""RadCase's profile: what it wishes, and what the values grant."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.demo.radcase import make_radcase
from migration_job.errors import InputError
from migration_job.plan.profile import load_profile
from tests.unit.planning import column_of, findings_of, plan_of

SYSTEM = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("radcase") / "radcase.db"
    make_radcase(path, rows=1500)
    return path


def test_the_strategy_s_types(made: Path) -> None:
    plan = plan_of(made, profile="radcase")
    assert not plan.blocked
    types = {
        ("cases", "id"): "uuid",
        ("cases", "title"): "varchar(500)",
        ("images", "annotations"): "jsonb",
        ("images", "case_id"): "uuid",
        ("dicom_series", "window_center"): "numeric(10,2)",
        ("users", "created_at"): "timestamp with time zone",
        ("users", "institution_id"): "uuid",
        ("collections", "created_by"): "uuid",
        ("quiz_sessions", "user_id"): "text",
        ("case_tags", "case_id"): "uuid",
    }
    assert {place: column_of(plan, *place).type for place in types} == types
    alone = {c.target for c in plan.table("dicom_series").columns if c.source is None}
    assert alone == {"file_size_bytes", "pixel_spacing_x", "pixel_spacing_y", "slice_thickness"}
    assert all(not t.quarantine for t in plan.tables)


def test_its_constraints_and_indexes(made: Path) -> None:
    plan = plan_of(made, profile="radcase")
    assert {c.name for c in plan.table("cases").checks} == {"cases_difficulty_check"}
    assert ("series_uid",) in [u.columns for u in plan.table("dicom_series").uniques]
    indexes = {i.name: i for t in plan.tables for i in t.indexes}
    assert indexes["idx_cases_search"].method == "gin"
    assert indexes["idx_cases_modality"].where == "modality IS NOT NULL"
    assert "idx_user_progress_review" in indexes
    assert plan.extensions == ("uuid-ossp", "pgcrypto")


def test_the_system_user_and_every_reference_to_it(made: Path) -> None:
    plan = plan_of(made, profile="radcase")
    for place in (("users", "id"), ("collections", "created_by"), ("quiz_sessions", "user_id")):
        rule = column_of(plan, *place).rule
        assert rule.forward("system") == SYSTEM
        assert not rule.changes("system"), "it comes back by itself"
        assert rule.inverse(SYSTEM) == "system"
    assert plan.table("users").key == ("id",)
    assert column_of(plan, "quiz_sessions", "user_id").rule.forward("guest") == "guest"


def test_what_its_own_api_lets_in_stops_with_a_policy_that_resolves_it(tmp_path: Path) -> None:
    path = tmp_path / "hostile.db"
    make_radcase(path, rows=1500, hostile=True)
    plan = plan_of(path, profile="radcase")
    assert {f.code for f in plan.blocked} >= {
        "nul-in-text",
        "undecodable-text",
        "too-long",
        "not-json",
        "does-not-fit",
        "check-violated",
        "unique-violated",
        "orphans",
    }
    aside = plan_of(path, "default: quarantine", profile="radcase")
    assert not aside.blocked
    assert "cases_difficulty_check" in {c.name for c in aside.table("cases").checks}


def test_a_wish_the_values_do_not_grant_takes_its_index_along(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make_radcase(path, rows=1500)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE cases SET title = x'00' WHERE rowid = 1")
    connection.close()
    plan = plan_of(path, "default: widen", profile="radcase")
    assert column_of(plan, "cases", "title").type == "bytea"
    assert "idx_cases_search" not in {i.name for i in plan.table("cases").indexes}
    assert any("idx_cases_search" in f.message for f in findings_of(plan, "index-not-carried"))


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "001.sql").write_text(
        "CREATE TABLE t (a VARCHAR(2) NOT NULL, extra INTEGER DEFAULT 5);"
    )
    (folder / "profile.yaml").write_text("name: own\nsql: [001.sql]\n")
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a TEXT, b INTEGER); INSERT INTO t VALUES ('abc', 1)")
    connection.close()
    plan = plan_of(path, profile=str(folder / "profile.yaml"))
    assert [f.code for f in plan.blocked] == ["too-long"]
    assert {c.target: c.type for c in plan.table("t").columns}["extra"] == "integer"
    assert not plan_of(path, plan.blocked[0].resolution, str(folder / "profile.yaml")).blocked


def test_unknown_and_broken_profiles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="radcase"):
        load_profile("nope")
    broken = tmp_path / "profile.yaml"
    broken.write_text("name: x\nwishes: {}\n")
    with pytest.raises(InputError, match="wishes"):
        load_profile(broken)
    assert load_profile("none").default == "widen"
