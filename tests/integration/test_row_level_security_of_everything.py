"""Row-level security of the RadCase profile, of all that the catalogue has: two institutions, each
statement, each table and each view."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migration_job.demo.radcase import make_radcase
from migration_job.embedded import EmbeddedPostgres
from migration_job.errors import JobError
from tests.integration.running import run

pytestmark = pytest.mark.postgres

PASSWORD = "for-this-test-alone"

VIEWS = """
CREATE VIEW user_list AS SELECT id, username, email, institution_id FROM users;
CREATE VIEW user_names AS SELECT username FROM user_list;
CREATE VIEW standings AS SELECT u.username, x.total_xp FROM users u JOIN user_xp x
    ON x.user_id = u.id;
CREATE VIEW case_titles AS SELECT id, title FROM cases;
"""

INSTITUTION = "SELECT set_config('radcase.institution_id', %s, true)"


@dataclass
class Library:
    """A migrated RadCase, as its owner and as its application see it."""

    superuser: str
    job: str
    application: str
    institutions: tuple[str, str]
    relations: dict[str, str]
    """Name -> pg_class.relkind, of all that schema public has rows in."""
    shared: set[str]
    """Tables with the policy shared_by_all, and views of nothing else."""


@pytest.fixture(scope="module", params=[14, 18])
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("library")
    source = folder / "radcase.db"
    make_radcase(source, rows=3000, seed=7)
    with sqlite3.connect(source) as connection:
        connection.executescript(VIEWS)
        fill(connection)
    connection.close()
    try:
        server = EmbeddedPostgres(major=request.param, fast=True)
        server.start()
    except JobError as error:
        pytest.skip(f"no PostgreSQL {request.param}: {error.message}")
    try:
        yield migrated(server, source, folder)
    finally:
        server.close()


def fill(connection: sqlite3.Connection) -> None:
    """Rows of two institutions that belong to them by no foreign key."""
    people = institutions_people(connection)
    case = connection.execute("SELECT id FROM cases").fetchone()[0]
    plans = [f"plan-of-{person}" for person in people]
    for person, plan in zip(people, plans, strict=True):
        connection.execute(
            "INSERT INTO user_study_plans (id, user_id, name, milestones) VALUES (?, ?, 'p', '[]')",
            (plan, person),
        )
        connection.execute(
            "INSERT INTO study_plan_progress (plan_id, case_id, milestone_index) VALUES (?, ?, 1)",
            (plan, case),
        )


def institutions_people(connection: sqlite3.Connection) -> list[str]:
    """A user of each of the two largest institutions."""
    return [
        row[0]
        for row in connection.execute(
            "SELECT min(id) FROM users WHERE institution_id IS NOT NULL "
            "GROUP BY institution_id ORDER BY count(*) DESC, institution_id LIMIT 2"
        )
    ]


def migrated(server: EmbeddedPostgres, source: Path, folder: Path) -> Library:
    for role in ("radcase_job", "radcase_app"):
        server.create_role(role, PASSWORD)
    server.create_database("radcase", owner="radcase_job")
    superuser = server.dsn_for("radcase")
    with psycopg.connect(superuser, autocommit=True) as admin:
        admin.execute("GRANT ALL ON SCHEMA public TO radcase_job")
        admin.execute("GRANT USAGE ON SCHEMA public TO radcase_app")
        admin.execute("CREATE ROLE radcase_views NOLOGIN; GRANT radcase_views TO radcase_job")
        admin.execute(
            "ALTER DEFAULT PRIVILEGES FOR ROLE radcase_job IN SCHEMA public "
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO radcase_app"
        )
    job = server.dsn_for("radcase", user="radcase_job", password=PASSWORD)
    (folder / "policy.yaml").write_text("enable: [row-level-security]\n")
    ended = run(
        *("migrate", source, "--target", job, "--report", folder / "report"),
        *("--profile", "radcase", "--policy", folder / "policy.yaml"),
    )
    assert ended.status == 0, ended.said
    with psycopg.connect(superuser, autocommit=True) as admin:
        relations: dict[str, str] = dict(
            admin.execute(
                "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = "
                "'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
            ).fetchall()
        )
        shared = {
            row[0]
            for row in admin.execute(
                "SELECT tablename FROM pg_policies WHERE policyname = 'shared_by_all' "
                "AND schemaname = 'public' AND qual = 'true'"
            ).fetchall()
        }
        while (
            more := {
                row[0]
                for row in admin.execute(
                    "SELECT view_name "
                    "FROM information_schema.view_table_usage "
                    "WHERE view_schema = 'public' GROUP BY 1 "
                    "HAVING bool_and(table_name = ANY (%s))",
                    (list(shared),),
                ).fetchall()
            }
            - shared
        ):
            shared |= more
        rows = admin.execute(
            "SELECT institution_id::text FROM users WHERE institution_id IS NOT NULL "
            "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 2"
        ).fetchall()
        # What one statement removes, another table may refer to: not what is asked here.
        for table, name in admin.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f'"
        ).fetchall():
            admin.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    return Library(
        superuser=superuser,
        job=job,
        application=server.dsn_for("radcase", user="radcase_app", password=PASSWORD),
        institutions=(rows[0][0], rows[1][0]),
        relations=relations,
        shared=shared,
    )


def ask(dsn: str, institution: str | None, statement: str, relation: str) -> list[tuple[Any, ...]]:
    """What a statement returns in a transaction that names the institution, and is undone."""
    with psycopg.connect(dsn) as session:
        if institution is not None:
            session.execute(INSTITUTION, (institution,))
        cursor = session.execute(sql.SQL(statement).format(sql.Identifier(relation)))
        rows = cursor.fetchall() if cursor.description else []
        session.rollback()
    return rows


def seen(library: Library, institution: str | None, relation: str) -> set[str]:
    query = "SELECT row_to_json(t)::text FROM {} AS t"
    return {row[0] for row in ask(library.application, institution, query, relation)}


def everything(library: Library, relation: str) -> set[str]:
    query = "SELECT row_to_json(t)::text FROM {} AS t"
    return {row[0] for row in ask(library.superuser, None, query, relation)}


def separated(library: Library) -> list[str]:
    return sorted(set(library.relations) - library.shared)


def columns(library: Library, relation: str) -> list[str]:
    with psycopg.connect(library.superuser) as admin:
        rows = admin.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
            "AND NOT attisdropped AND attgenerated = '' AND attidentity = ''",
            (f'public."{relation}"',),
        ).fetchall()
    return [row[0] for row in rows]


def test_every_table_is_protected_shared_or_closed(library: Library) -> None:
    tables = {name for name, kind in library.relations.items() if kind in "rp"}
    with psycopg.connect(library.superuser) as admin:
        secured = {
            row[0]
            for row in admin.execute(
                "SELECT relname FROM pg_class WHERE relrowsecurity "
                "AND relnamespace = 'public'::regnamespace"
            ).fetchall()
        }
        with_policy = {
            row[0]
            for row in admin.execute(
                "SELECT tablename FROM pg_policies WHERE schemaname = 'public'"
            ).fetchall()
        }
    assert secured == tables
    assert with_policy == tables, "RadCase has no table that nobody has thought of"
    # A shared table holds no column that says whose a row is.
    for table in library.shared & tables:
        assert not {"user_id", "created_by", "institution_id"} & set(columns(library, table)), table


def test_a_transaction_that_names_nothing_sees_nothing(library: Library) -> None:
    for relation in separated(library):
        for nothing in (None, "", "not an id", "%", "' OR true --"):
            assert seen(library, nothing, relation) == set(), (relation, nothing)


def test_what_is_shared_is_seen_by_all(library: Library) -> None:
    for relation in sorted(library.shared):
        assert seen(library, None, relation) == everything(library, relation), relation


def test_select_and_copy_show_each_its_own(library: Library) -> None:
    one, other = library.institutions
    shown = set()
    for relation in separated(library):
        of_one, of_other = seen(library, one, relation), seen(library, other, relation)
        whole = everything(library, relation)
        if of_one and of_other:
            shown.add(relation)
        both = of_one & of_other
        # What both read is the application's own; none of it can be written (below).
        for row in both:
            assert row in whole
        with psycopg.connect(library.application) as session:
            session.execute(INSTITUTION, (one,))
            statement = (
                "COPY (SELECT row_to_json(t)::text FROM {} AS t) TO STDOUT"
                if library.relations[relation] == "v"
                else "COPY {} TO STDOUT"
            )
            with session.cursor().copy(sql.SQL(statement).format(sql.Identifier(relation))) as copy:
                copied = sum(1 for _ in copy)
            session.rollback()
        assert copied == len(of_one), relation
        print(relation, len(whole), len(of_one), len(of_other), len(both))
    print("with rows of both:", len(shown), "of", len(separated(library)))
    # Most, or this would say little.
    assert len(shown) > len(separated(library)) / 2


def test_update_and_delete_reach_no_row_that_the_other_sees(library: Library) -> None:
    one, other = library.institutions
    reached = 0
    for relation in separated(library):
        of_other = seen(library, other, relation)
        for statement in (
            "UPDATE {} AS t SET {column} = {column} RETURNING row_to_json(t)::text",
            "DELETE FROM {} AS t RETURNING row_to_json(t)::text",
        ):
            text = statement.replace("{column}", f'"{columns(library, relation)[-1]}"')
            try:
                rows = {row[0] for row in ask(library.application, one, text, relation)}
            except psycopg.errors.ObjectNotInPrerequisiteState:
                assert relation == "standings"  # a view of two tables
                continue
            assert rows.isdisjoint(of_other), (relation, statement)
            reached += len(rows)
            assert rows == seen(library, one, relation) - of_other, (relation, statement)
    assert reached


def test_insert_makes_nothing_of_the_others(library: Library) -> None:
    one, other = library.institutions
    tried = set()
    for relation in separated(library):
        if relation == "standings":
            continue
        of_one, of_other = seen(library, one, relation), seen(library, other, relation)
        for row in sorted(of_other - of_one)[:1]:
            with psycopg.connect(library.application) as session:
                session.execute(INSTITUTION, (one,))
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    insert(session, relation, row)
            tried.add(relation)
        for row in sorted(of_one - of_other)[: library.relations[relation] != "v"]:
            with psycopg.connect(library.application) as session:
                session.execute(INSTITUTION, (one,))
                # It is there already; where nothing of it is unique, it is there twice then.
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    insert(session, relation, row)
    print("tried:", len(tried), "of", len(separated(library)))


def insert(session: psycopg.Connection, relation: str, row: str) -> None:
    session.execute(
        sql.SQL(
            "INSERT INTO {0} OVERRIDING SYSTEM VALUE "
            "SELECT (json_populate_record(NULL::{0}, %s::json)).*"
        ).format(sql.Identifier(relation)),
        (row,),
    )


def test_copy_into_a_table_is_refused(library: Library) -> None:
    for relation, kind in library.relations.items():
        if kind not in "rp":
            continue
        with psycopg.connect(library.application) as session:
            session.execute(INSTITUTION, (library.institutions[0],))
            with pytest.raises(psycopg.Error, match="row-level security"):
                copy_into(session, relation)


def copy_into(session: psycopg.Connection, relation: str) -> None:
    with session.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(relation))):
        pass


def test_the_owner_and_its_migration_see_everything(library: Library) -> None:
    for relation in library.relations:
        query = "SELECT row_to_json(t)::text FROM {} AS t"
        rows = {row[0] for row in ask(library.job, None, query, relation)}
        assert rows == everything(library, relation), relation


def test_a_new_table_that_nobody_has_listed_is_closed(library: Library) -> None:
    script = (
        Path(__file__).resolve().parents[2]
        / "migration_job/profiles/radcase/010_row_level_security.sql"
    ).read_text()
    with psycopg.connect(library.superuser) as admin:
        for policy, table in admin.execute(
            "SELECT policyname, tablename FROM pg_policies WHERE schemaname = 'public'"
        ).fetchall():
            admin.execute(
                sql.SQL("DROP POLICY {} ON {}").format(
                    sql.Identifier(policy), sql.Identifier(table)
                )
            )
        admin.execute("CREATE TABLE diary (id int, entry text); INSERT INTO diary VALUES (1, 'x')")
        admin.execute("GRANT SELECT ON diary TO radcase_app")
        admin.execute(script)
        admin.execute("SET LOCAL ROLE radcase_app")
        admin.execute(INSTITUTION, (library.institutions[0],))
        assert admin.execute("SELECT count(*) FROM diary").fetchone() == (0,)
        admin.execute("RESET ROLE")
        admin.rollback()
