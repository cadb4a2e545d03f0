"""What the source derives from its rows: full-text indexes, and whatever triggers fill.

The way back writes rows without triggers. An index over another table is behind it afterwards:
``MATCH`` finds old words, and the next DELETE would meet "database disk image is malformed". So it
is looked at, and recreated where it is not in step, before SQLite opens. What cannot be recreated
is kept in step row by row (:mod:`migration_job.stores.sqlite.feeding`), and looked at here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import apsw

from migration_job.quoting import compose, sqlite_name, sqlite_table, sqlite_text
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.virtual import Derived, derived, rebuild, tell


@dataclass(frozen=True, slots=True)
class InStep:
    """What was done for one derived table."""

    words: str
    """What it is, and its name."""
    rebuilt: bool
    seconds: float
    problem: str = ""
    """Why it could be neither checked nor recreated: it may be behind its table."""
    checked: bool = True

    def __str__(self) -> str:
        if self.problem:
            return (
                f"warning: {self.words} could not be brought in step with its table "
                f"({self.problem}): have the application rebuild it before it searches"
            )
        if not self.checked:
            return f"{self.words} was kept in step by its triggers; it has nothing to check it by"
        done = "recreated" if self.rebuilt else "found in step"
        return f"{self.words} was {done} in {self.seconds:.2f} s"


def kept_by_sqlite(catalogue: Catalogue) -> list[str]:
    """For people: what SQLite keeps up and a target of this job's does not by itself."""
    said = [
        f"trigger {other.name} of {other.table}"
        for other in catalogue.others
        if other.kind == "trigger"
    ]
    return said + [each.words.removeprefix("the ") for each in derived(catalogue)]


def left_to_the_application(catalogue: Catalogue) -> list[str]:
    """For people: derived tables that the way back cannot keep in step, since nothing in the file
    says what fills them."""
    return [each.words for each in derived(catalogue) if not each.content and not each.fed]


def concerned(catalogue: Catalogue, changed: Collection[str] | None) -> list[Derived]:
    """The derived tables to look at after the tables ``changed`` (folded names; None: any may have
    been)."""
    if changed is not None and not changed:
        return []
    return [
        each
        for each in derived(catalogue)
        if changed is None or not each.bases or not each.bases.isdisjoint(changed)
    ]


def bring_in_step(
    connection: apsw.Connection, catalogue: Catalogue, changed: Collection[str] | None = None
) -> list[InStep]:
    """Check each derived table whose tables were ``changed`` (folded names; None: any may have
    been), and recreate it where it differs and can be, inside the caller's transaction. Takes time
    with the tables' sizes."""
    return [_bring(connection, each) for each in concerned(catalogue, changed)]


def _bring(connection: apsw.Connection, each: Derived) -> InStep:
    start = time.monotonic()
    rebuilt = False

    def done(problem: str = "") -> InStep:
        return InStep(each.words, rebuilt, time.monotonic() - start, problem)

    look = _look_of(each)
    if look is None:
        if each.fed:
            return InStep(each.words, rebuilt=False, seconds=0.0, checked=False)
        return done("nothing in the file says what fills it")
    try:
        if not look(connection, each):
            if not each.module.startswith("fts") or each.content == "":
                return done("it is damaged, and there is nothing to make it from")
            rebuild(connection, each.name)
            rebuilt = True
            if not look(connection, each):
                return done("recreated, it still differs")
    except (apsw.SQLError, apsw.CorruptError) as error:
        # A tokenizer or a module that only the application has, content that is gone, or damage
        # beyond what the module can say of itself.
        return done(str(error))
    return done()


def _look_of(each: Derived) -> Callable[[apsw.Connection, Derived], bool] | None:
    if each.module.startswith("fts"):
        # FTS3 and FTS4 without content have nothing to compare with.
        bare = each.content == "" and (each.module != "fts5" or not each.fed)
        return None if bare else _index_in_step
    return _r_tree_in_step if each.module.startswith("rtree") else None


def _index_in_step(connection: apsw.Connection, each: Derived) -> bool:
    try:
        if each.module == "fts5" and each.content:
            # 1: against the content too, and not only in itself.
            connection.execute(
                compose(
                    "INSERT INTO {table} ({column}, rank) VALUES ('integrity-check', 1)",
                    table=sqlite_table(each.name),
                    column=sqlite_name(each.name),
                )
            )
        else:
            tell(connection, each.name, "integrity-check")
    except apsw.CorruptError:
        return False
    return True


def _r_tree_in_step(connection: apsw.Connection, each: Derived) -> bool:
    return bool(connection.execute(f"SELECT rtreecheck({sqlite_text(each.name)}) = 'ok'").get)
