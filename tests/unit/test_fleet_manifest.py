"""The manifest of a fleet: what it says, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migration_job.errors import InputError
from migration_job.fleet.manifest import Fleet, read_fleet
from migration_job.fleet.places import folder_name

FILES = ("a/x.db", "a/x.db-wal", "b/y.sqlite3", "b/deep/z.db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def fleet(folder: Path, text: str) -> Fleet:
    (folder / "m.yaml").write_text(text, encoding="utf-8")
    return read_fleet(folder / "m.yaml")


def test_a_glob_gives_tenants_by_the_files_names(folder: Path) -> None:
    found = fleet(folder, "files: '**/*.db'\nlayout: schema-per-file\n")
    assert [(m.tenant, m.place) for m in found.members] == [("x", "x"), ("z", "z")]
    assert found.members[0].path == folder / "a" / "x.db"
    assert found.members[0].bytes == len("a/x.db") + len("a/x.db-wal")


def test_a_pattern_takes_the_tenant_from_the_path(folder: Path) -> None:
    found = fleet(
        folder,
        "files: ['a/*', 'b/*']\ntenant: '(?P<tenant>[ab])/.*'\nlayout: database-per-file\n"
        "name: 'c_{tenant}'\n",
    )
    assert {m.tenant: m.place for m in found.members} == {"a": "c_a", "b": "c_b"}


def test_a_list_names_files_that_are_not_there(folder: Path) -> None:
    found = fleet(folder, "files: [a/x.db, gone.db]\nlayout: schema-per-file\n")
    assert {m.tenant: m.bytes > 0 for m in found.members} == {"x": True, "gone": False}
    assert next(m for m in found.members if m.tenant == "gone").mark == ""


def test_the_mark_changes_with_the_file_and_with_its_log(folder: Path) -> None:
    (member,) = fleet(folder, "files: a/x.db\nlayout: schema-per-file\n").members
    assert member.mark_now() == member.mark
    os.utime(folder / "a" / "x.db-wal", (5, 5))
    with_log = member.mark_now()
    assert with_log != member.mark
    (folder / "a" / "x.db").write_bytes(b"longer than it was")
    assert member.mark_now() != with_log


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("files: '*.db'\n", "layout: field required"),
        ("files: []\nlayout: schema-per-file", "files: list should have at least 1 item"),
        ("files: x\nlayout: schemas", "layout: input should be 'schema-per-file'"),
        ("files: x\nlayout: schema-per-file\ncolour: red", "colour: there is no such field"),
        ("files: x\nlayout: schema-per-file\ntenant: '(.*)'", "expected a group (?P<tenant>...)"),
        ("files: x\nlayout: schema-per-file\ntenant: '(?P<tenant>'", "no regular expression"),
        ("files: x\nlayout: schema-per-file\nname: one", "expected {tenant} once"),
        ("files: x\nlayout: schema-per-file\nname: '{tenant}{x}'", "no other braces"),
        ("files: x\nlayout: tenant-column\nlive: true", "while their applications stand still"),
        ("files: x\nlayout: schema-per-file\nlive: {connection: c}", "expected {tenant} once"),
        ("files: x\nlayout: schema-per-file\nlive: {of: c}", "live.of: there is no such field"),
        ("files: none/*\nlayout: schema-per-file", "expected files that match none/*, found none"),
        ("files: x\nlayout: tenant-column\noutliers: own", "expected `stop`"),
        ("files: x\nlayout: schema-per-file\ncolumn: {}", "with layout: tenant-column alone"),
        ("files: x\nlayout: tenant-column\ncolumn: {type: date}", "column.type: input should be"),
        (
            "files: a/x.db\nlayout: tenant-column\ncolumn: {type: integer}",
            "expected a value of type integer",
        ),
        ("- files", "expected a mapping, found list"),
        ("files: [", "line 1: no valid YAML"),
        ('files: ["a/x\\0.db"]\nlayout: schema-per-file', "a NUL character"),
        ('files: x\nlayout: schema-per-file\npolicy: "a\\0"', "a NUL character"),
        (
            "files: x\nlayout: tenant-column\ncolumn: {name: ctid}",
            "found 'ctid', which PostgreSQL has in every table",
        ),
        (
            "files: 'b/**/*'\nlayout: schema-per-file\ntenant: '(?P<tenant>b).*'",
            "one file a tenant",
        ),
        (
            "files: ['a/x.db']\nlayout: schema-per-file\ntenant: 'b/(?P<tenant>.)'",
            "match every path, found 'a/x.db'",
        ),
        ("files: a/x.db\nlayout: schema-per-file\nname: 'pg_{tenant}'", "gives no name"),
        ("files: a/x.db\nlayout: schema-per-file\nname: '_migration_{tenant}'", "gives no name"),
        (
            f"files: a/x.db\nlayout: database-per-file\nname: '{'n' * 63}{{tenant}}'",
            "1 to 63 bytes",
        ),
    ],
)
def test_what_is_no_manifest_is_said(folder: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        fleet(folder, text)
    assert said in str(caught.value)
    assert caught.value.advice


def test_two_paths_to_one_file_are_refused(folder: Path) -> None:
    (folder / "a" / "again.db").symlink_to(folder / "a" / "x.db")
    with pytest.raises(InputError, match="are one file"):
        fleet(folder, "files: 'a/*.db'\nlayout: schema-per-file\n")


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "x" * 60, "ü %"])
def test_a_tenants_folder_is_one_and_its_own(tenant: str) -> None:
    name = folder_name(tenant)
    assert "/" not in name
    assert name not in (".", "..")
    assert len(name) < 255
    assert name != folder_name(tenant + "1")


def test_the_log_of_a_link_is_beside_what_it_leads_to(folder: Path) -> None:
    """SQLite resolves the link, and writes there."""
    (folder / "real").mkdir()
    (folder / "real" / "z.db").write_bytes(b"one")
    (folder / "real" / "z.db-wal").write_bytes(b"log")
    (folder / "link.db").symlink_to(folder / "real" / "z.db")
    (member,) = fleet(folder, "files: link.db\nlayout: schema-per-file\n").members
    assert member.bytes == len("one") + len("log")
    os.utime(folder / "real" / "z.db-wal", (5, 5))
    assert member.mark_now() != member.mark


def test_what_is_no_regular_file_is_that_files_trouble(folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe.db")
    (folder / "a" / "null.db").symlink_to("/dev/null")
    (folder / "a" / "sub.db").mkdir()
    found = fleet(folder, "files: ['a/*.db', a/sub.db]\nlayout: schema-per-file\n")
    told = {m.tenant: m.trouble.splitlines()[:1] for m in found.members}
    assert told == {
        "x": [],
        "pipe": ["expected a regular file, found a FIFO"],
        "null": ["expected a regular file, found a device"],
        "sub": ["expected a regular file, found a directory"],
    }


@pytest.mark.parametrize("layout", ["schema-per-file", "database-per-file", "tenant-column"])
def test_a_name_that_is_not_utf_8_is_that_files_trouble(folder: Path, layout: str) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/a/caf\xe9.db")).write_bytes(b"x")
    found = fleet(folder, f"files: 'a/*.db'\nlayout: {layout}\n")
    assert {m.tenant: bool(m.trouble) for m in found.members} == {"x": False, "caf\\udce9": True}
