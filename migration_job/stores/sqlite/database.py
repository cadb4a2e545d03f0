"""Opening a SQLite file without touching it, and saying plainly why one cannot be opened.

The job uses one SQLite library throughout (apsw's). Two libraries on one file in one process would
drop each other's POSIX locks (https://sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote as url_quote

import apsw

from migration_job.errors import InputError, OperationError
from migration_job.plural import counted_doing, either
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.sqlite.beside import beside, is_journal, size
from migration_job.stores.sqlite.distrust import distrust
from migration_job.stores.sqlite.index_entries import miscounted
from migration_job.stores.sqlite.virtual import SEARCH_INDEX
from migration_job.stores.sqlite.waiting import PatientConnection
from migration_job.values import positional

HEADER = b"SQLite format 3\x00"
"""The first 16 bytes of every unencrypted database (https://sqlite.org/fileformat2.html)."""

CHAINED = 100
"""Terms that are joined one after another; more are nested."""

BENIGN_PREFIXES = ("NULL value in ", "CHECK constraint failed in ")
BENIGN_WORDS = (" value in ", "non-unique entry in index ")
"""What ``integrity_check`` reports about values rather than about the file; preflight has its own,
better words for those."""

COLLATIONS = frozenset({"BINARY", "NOCASE", "RTRIM"})
"""Those that every SQLite has; others are an application's own."""


def chain(operator: str, terms: Sequence[str]) -> str:
    """The terms joined by an associative operator, nested by halves: SQLite's expressions may be
    1,000 deep, and a plain chain over the columns of a wide table is deeper. '' for no term."""
    if len(terms) <= CHAINED:
        return f" {operator} ".join(terms)
    half = len(terms) // 2
    return f"({chain(operator, terms[:half])}) {operator} ({chain(operator, terms[half:])})"


def require_database(path: Path) -> None:
    """Raises InputError where the file does not begin as a SQLite database does."""
    _look_at(path)


def open_readonly(path: str | Path, *, patience: float | None = None) -> apsw.Connection:
    """A read-only connection whose schema has been read once, so that the file is a database.

    The schema of the file is not trusted (views and triggers may call no function with side
    effects). Double-quoted string literals stay allowed, since the file's views may need them.
    A file of 0 bytes is refused: it is what SQLite leaves where an application opened a path that
    does not exist, and more often a wrong path than a database. It waits for locks up to
    ``patience`` seconds, or as long as the process may. Raises InputError, or OperationError where
    the file is locked all the while, or a crashed writer's journal has to be rolled back first.
    """
    file = Path(path)
    _look_at(file)
    try:
        return _opened(file, "mode=ro", patience)
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        if is_journal(beside(file, "-journal")):
            # The file alone may hold half a transaction.
            raise OperationError(
                f"a program died while it wrote to {file}, and its journal is not rolled back yet",
                advice="SQLite does that when the file is next opened for writing: start the "
                "application, or `sync`, and run the command again",
            ) from error
        # A database in WAL mode needs its -wal and -shm beside it; where they are absent and the
        # directory cannot be written, nobody has it open and the file alone is all there is.
        wal = beside(file, "-wal")
        if size(wal):
            raise explained(file, error) from error
        try:
            return _opened(file, "mode=ro&immutable=1", patience)
        except apsw.Error as second:
            raise explained(file, second) from second
    except apsw.Error as error:
        raise explained(file, error) from error


@contextmanager
def looking(path: str | Path) -> Iterator[apsw.Connection]:
    """:func:`open_readonly` for one look: nothing is left beside the file that was not there
    before. Raises InputError."""
    file = Path(path)
    sidecars = [beside(file, suffix) for suffix in ("-wal", "-shm")]
    alone = not any(s.exists() for s in sidecars)
    connection = open_readonly(file)
    try:
        yield connection
    finally:
        connection.close()
        if alone and any(s.exists() for s in sidecars):
            _tidy(file)


@contextmanager
def looking_as_a_writer(path: str | Path) -> Iterator[apsw.Connection]:
    """:func:`looking` by a connection that knows what the job's writing one does, and no more: what
    it cannot prepare, that one cannot write. It writes nothing."""
    file = Path(path)
    with looking(file) as reader:
        connection = _as_a_writer(file) or reader
        connection.collation_needed(None)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
        try:
            yield connection
        finally:
            if connection is not reader:
                connection.close()


def _as_a_writer(file: Path) -> apsw.Connection | None:
    """None where this user may only read. SQLite leaves the CHECKs out of the schema of a file that
    it may only read; the reader beside this one has seen that no journal is to be rolled back."""
    uri = f"file:{url_quote(os.fspath(file.absolute()))}?mode=rw"
    connection = None
    try:
        connection = PatientConnection(uri, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI)
        connection.wait_for_locks()
        distrust(connection)
        add_functions(connection)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("query_only", 1)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error:
        if connection is not None:
            connection.close()
        return None
    return connection


@contextmanager
def reading(path: str | Path) -> Iterator[apsw.Connection]:
    """:func:`looking` in one read transaction, so at one consistent state of the file."""
    with looking(path) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        yield connection


def check_integrity(connection: apsw.Connection, *, limit: int = 20, quick: bool = False) -> bool:
    """Raises InputError where the file is damaged (``PRAGMA integrity_check``; ``quick`` leaves out
    what it looks up in the indexes). Returns whether SQLite says something of a search index.

    Values that break the file's own constraints are not damage: preflight reports those. Nor is a
    full-text index that fell behind its content: it damages no table, and is not carried over.
    """
    try:
        rows, doubtful = _told(connection, limit, quick=quick)
    except UnicodeDecodeError as error:
        raise unreadable_schema(error) from error
    damage = [
        row
        for row in rows
        if row != "ok" and not _about_values(row) and _index_of(row) not in doubtful
    ]
    if damage:
        shown = "\n  ".join(damage[:limit])
        raise InputError(
            f"the source is damaged; integrity_check says:\n  {shown}",
            advice="Restore a backup, or recover what can be read with "
            "`sqlite3 source.db .recover | sqlite3 recovered.db`, and run on that.",
        )
    return any(row.startswith(SEARCH_INDEX) for row in rows)


def unreadable_schema(error: Exception) -> InputError:
    """What to say where the names or the SQL of a file's schema cannot be read."""
    return InputError(
        f"the source's schema cannot be read: {error}",
        advice="Run `sqlite3 source.db .schema` and `PRAGMA integrity_check` on it.",
    )


def _told(connection: apsw.Connection, limit: int, *, quick: bool) -> tuple[list[str], set[str]]:
    """All that SQLite's check and ours say, and the indexes of which it proves nothing. Raises
    UnicodeDecodeError where a name or a statement of the schema is no text."""
    with _guessed_collations(connection):
        rows = _checked(connection, "quick_check" if quick else "integrity_check", limit * 50)
        doubtful = _doubtful_indexes(connection)
        rows += _unreached(connection)
        rows += _misplaced_sequences(connection)
        rows += miscounted(connection, doubtful)
    return rows, doubtful


PENDING_BYTE = 1 << 30
"""The page that holds this byte belongs to locking, and to no table (SQLite's file format, 1.3)."""


def _unreached(connection: apsw.Connection) -> Iterator[str]:
    """What SQLite's check says of pages that nothing refers to, and leaves out in some schemas with
    views: their root page is 0, and where that is the first of its list, the check is a partial
    one. Pages that are not reached may be most of a table."""
    views = "SELECT 1 FROM sqlite_schema WHERE type = 'view' OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1"
    if not connection.execute(views).fetchall():
        return
    try:
        size = int(connection.pragma("page_size"))
        pages = int(connection.pragma("page_count"))
        others = int(connection.pragma("freelist_count")) + (pages * size > PENDING_BYTE)
        if connection.pragma("auto_vacuum"):
            # A page of pointers for each so many pages, from the second on.
            others += (pages - 2) // (size // 5 + 1) + 1
        row = connection.execute("SELECT sum(pageno) FROM dbstat WHERE aggregate = TRUE").fetchone()
    except (apsw.CorruptError, apsw.SQLError) as error:
        yield f"pages that are in use cannot be counted: {error}"
        return
    lost = pages - others - int(row[0] if row and row[0] is not None else 0)
    if lost > 0:
        yield f"{lost} pages are in no table, in no index and not free"


def _misplaced_sequences(connection: apsw.Connection) -> Iterator[str]:
    """What SQLite's check says nothing of: a page of another table's in place of the one of
    sqlite_sequence. Each of its rows names a table, whatever an application deletes or changes
    there; the rows of the other table are gone from that one."""
    there = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"
    if not connection.execute(there).fetchall():
        return
    try:
        row = connection.execute(
            "SELECT count(*) FROM sqlite_sequence WHERE typeof(name) <> 'text'"
        ).fetchone()
    except (apsw.CorruptError, apsw.SQLError) as error:
        yield f"sqlite_sequence cannot be read: {error}"
        return
    if row is not None and row[0]:
        yield (
            f"{counted_doing(row[0], 'row', 'name')} no table in sqlite_sequence: "
            f"{either(row[0], 'it is', 'they are')} another table's"
        )


def _checked(connection: apsw.Connection, pragma: str, limit: int) -> list[str]:
    found: list[str] = []
    try:
        found += (
            str(row[0])
            for row in connection.execute(
                compose("PRAGMA {pragma}({limit})", pragma=pragma, limit=limit)
            )
        )
        return found
    except apsw.CorruptError as error:
        if str(error).startswith(SEARCH_INDEX):
            # SQLite cannot so much as open the index, and has looked at nothing else.
            return [*found, str(error), *_checked_by_table(connection, pragma)]
        return [*found, str(error)]
    except apsw.ConstraintError:
        # A generated column of a STRICT table computes what it must not hold, and the check ends
        # there. Every page has been looked through by then; the rows are, table by table.
        return [*found, *_checked_by_table(connection, pragma)]
    except apsw.SQLError as error:
        # The schema calls a function that only the application has, or a search index is of a
        # format that SQLite does not know; the pages can still be checked.
        index = [str(error)] if str(error).startswith(SEARCH_INDEX) else []
        return [*index, *_pages_checked(connection, limit)]


def _pages_checked(connection: apsw.Connection, limit: int) -> list[str]:
    try:
        return [
            str(r[0])
            for r in connection.execute(compose("PRAGMA quick_check({limit})", limit=limit))
        ]
    except apsw.CorruptError as error:
        return [str(error)]
    except apsw.SQLError:
        # A virtual generated column calls it: that table's b-tree alone cannot be looked through
        # here, and reading its rows is what finds damage in it.
        return list(_checked_by_table(connection, "quick_check"))


def _checked_by_table(connection: apsw.Connection, pragma: str) -> Iterator[str]:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (name,) in names:
        # The rows of the table at fault are what preflight looks at.
        with suppress(apsw.ConstraintError, apsw.SQLError):
            try:
                for row in connection.execute(
                    compose("PRAGMA {pragma}({name})", pragma=pragma, name=sqlite_name(str(name)))
                ):
                    yield str(row[0])
            except apsw.CorruptError as error:
                of_index = str(error).startswith(SEARCH_INDEX)
                yield str(error) if of_index else f"table {name}: {error}"


POSITIONAL = "migration_positional"
"""The SQL function that gives a real's shortest digits (:func:`migration_job.values.positional`),
which SQLite's own ``printf`` does not know."""


def equip(connection: apsw.Connection) -> None:
    """Give a reading connection what the file's schema and the job's queries need."""
    stand_in_collations(connection)
    add_functions(connection)


def add_functions(connection: apsw.Connection) -> None:
    """Give a connection the functions that the rules' SQL calls
    (:meth:`migration_job.plan.rules.base.RuleBase.fast_sql`)."""
    connection.create_scalar_function(
        POSITIONAL, _positional, 1, deterministic=True, flags=apsw.SQLITE_DIRECTONLY
    )


def _positional(*values: apsw.SQLiteValue) -> str | None:
    (value,) = values
    return positional(value) if isinstance(value, float) else None


def stand_in_collations(connection: apsw.Connection) -> None:
    """Let the connection read tables and indexes under collations that only the application has.
    What they say of two values stays unknown: whatever would ask them ends with apsw.SQLError,
    as it would without this."""

    def needed(_: apsw.Connection, name: str) -> None:
        # SQLite asks for its own too, in a file in UTF-16, before it makes do with what it has.
        if name.upper() not in COLLATIONS:
            _stand_in(connection, name)

    connection.collation_needed(needed)


def _stand_in(connection: apsw.Connection, name: str) -> None:
    def unknown(left: str, right: str) -> int:
        del left, right
        raise apsw.SQLError(f"no such collation sequence: {name}")

    connection.create_collation(name, unknown)


@contextmanager
def _guessed_collations(connection: apsw.Connection) -> Iterator[None]:
    """The application's own collations taken for byte order, for a check that cannot go on without;
    what it then says of their order is nothing to go by."""
    own = {name for _, name in _collated(connection) if name.upper() not in COLLATIONS}
    for name in own:
        connection.create_collation(name, lambda left, right: (left > right) - (left < right))
    try:
        yield
    finally:
        for name in own:
            _stand_in(connection, name)


_MISSING = re.compile(
    r"row \d+ missing from index (.*)|row not in PRIMARY KEY order for (.*)", re.DOTALL
)


def _index_of(row: str) -> str | None:
    """The index (the table, where it is its own index) in which ``integrity_check`` does not find
    a row in its place."""
    match = _MISSING.fullmatch(row)
    return None if match is None else next(name for name in match.groups() if name is not None)


def _doubtful_indexes(connection: apsw.Connection) -> set[str]:
    """Indexes of expressions, partial ones, and those under an application's own collation, with
    the tables that are in the order of one. What an expression gives may differ between
    releases of SQLite (the digits of a real as text do), so that the release that wrote an entry
    and the one that checks it look in different places. No row is lost by it: the number of entries
    is checked (:mod:`~migration_job.stores.sqlite.index_entries`), and rows are read from the
    table."""
    found = {
        name
        for names, collation in _collated(connection)
        if collation.upper() not in COLLATIONS
        for name in names
    }
    try:
        for _, index, partial in _indexes(connection):
            terms = connection.execute(
                compose("PRAGMA main.index_xinfo({index})", index=sqlite_name(index))
            )
            if partial or any(term[1] == -2 for term in terms):
                found.add(index)
    except (apsw.Error, UnicodeDecodeError):
        return set()  # a schema that cannot be read excuses nothing
    return found


def _indexes(connection: apsw.Connection) -> Iterator[tuple[str, str, bool]]:
    """Table, name and whether it is partial, for every index."""
    tables = list(connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'"))
    for (table,) in tables:
        for index in list(
            connection.execute(
                compose("PRAGMA main.index_list({table})", table=sqlite_name(str(table)))
            )
        ):
            yield str(table), str(index[1]), bool(index[4])


def _collated(connection: apsw.Connection) -> list[tuple[tuple[str, str], str]]:
    """Every index and its table, with each collation that it is ordered by."""
    try:
        return [
            ((index, table), str(term[4]))
            for table, index, _ in _indexes(connection)
            for term in list(
                connection.execute(
                    compose("PRAGMA main.index_xinfo({index})", index=sqlite_name(index))
                )
            )
            if term[5]
        ]
    except (apsw.Error, UnicodeDecodeError):  # what a name is written in may be damaged too
        return []


def _about_values(row: str) -> bool:
    benign = row.startswith((*BENIGN_PREFIXES, *SEARCH_INDEX))
    return benign or any(word in row for word in BENIGN_WORDS)


def _look_at(file: Path) -> None:
    try:
        if file.is_dir():
            raise InputError(
                f"expected a SQLite file, found a directory: {file}",
                advice="Give the path of the database file itself.",
            )
        if not file.exists():
            raise InputError(
                f"no such file: {file}", advice="Give the path of an existing SQLite database."
            )
        with file.open("rb") as stream:
            start = stream.read(len(HEADER))
    except OSError as error:
        raise InputError(
            f"the source cannot be read: {file}: {error.strerror}",
            advice="Check the file's permissions and those of its directories.",
        ) from error
    if not start:
        raise InputError(
            f"the source is empty (0 bytes): {file}",
            advice="SQLite leaves such a file where an application opened a path that does not "
            "exist: check the path.",
        )
    if start != HEADER:
        raise _no_database(file, start)


def _no_database(file: Path, start: bytes) -> InputError:
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    if printable:
        advice = "It begins like a text file; a dump is loaded with `sqlite3 new.db < dump.sql`."
    else:
        advice = (
            "An encrypted database (SQLCipher, SEE) looks like this: decrypt it first, "
            "for instance with SQLCipher's sqlcipher_export()."
        )
    return InputError(
        f"not a SQLite database: {file}: expected the header 'SQLite format 3', found {start!r}",
        advice=advice,
    )


def _opened(file: Path, options: str, patience: float | None) -> apsw.Connection:
    uri = f"file:{url_quote(os.fspath(file.absolute()))}?{options}"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = PatientConnection(uri, flags=flags)
    try:
        equip(connection)
        connection.wait_for_locks(patience)
        distrust(connection)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def explained(file: Path, error: apsw.Error) -> InputError | OperationError:
    """What SQLite said when the file was opened, as an operator understands it."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return OperationError(
            f"the source is locked by another process: {file}: {error}",
            advice="Another program holds an exclusive lock; end its transaction "
            "(or `PRAGMA locking_mode=EXCLUSIVE`) and run again.",
        )
    if isinstance(error, apsw.NotADBError):
        return InputError(
            f"not a SQLite database, or an encrypted one: {file}: {error}",
            advice="Decrypt an encrypted database first, or restore the file from a backup.",
        )
    if isinstance(error, apsw.CorruptError):
        return InputError(
            f"the source is damaged: {file}: {error}",
            advice="Restore a backup, or recover what can be read with "
            "`sqlite3 source.db .recover | sqlite3 recovered.db`, and run on that.",
        )
    if isinstance(error, apsw.SQLError):
        return InputError(
            f"the source's schema cannot be read: {file}: {error}",
            advice="Run `sqlite3 source.db .schema` and repair the statement it names.",
        )
    return InputError(
        f"the source cannot be opened: {file}: {error}",
        advice="Check the permissions of the file, of its directory, and of -wal and -shm "
        "beside it.",
    )


def _tidy(file: Path) -> None:
    """Let SQLite itself remove the empty -wal and -shm that a read-only connection created but
    may not delete. Only the last connection's close removes them, so a live application's stay."""
    try:
        connection = apsw.Connection(os.fspath(file), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            distrust(connection)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        finally:
            connection.close()
    except apsw.Error:
        # Without the right to write, the empty files stay; they harm nothing.
        return
