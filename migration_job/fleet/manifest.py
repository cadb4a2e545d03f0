"""The manifest: which files a fleet is made of, whose each is, and where it goes.

A YAML file::

    files: customers/*/app.db        # a glob or a list of globs, from the manifest's directory
    tenant: 'customers/(?P<tenant>[^/]+)/app\\.db'   # of the whole path; else the file's name
    layout: schema-per-file          # schema-per-file | database-per-file | tenant-column
    name: 'c_{tenant}'               # of the schema or database; '{tenant}' otherwise
    column: {name: tenant, type: text, in_schema: public}   # with tenant-column
    outliers: own                    # own | stop: files that the common plan does not fit
    policy: policy.yaml
    profile: none
    types: declared
    jobs: 2                          # files at a time
    live: {connection: 'connections/{tenant}', search_path: role}   # or true: they stay in use
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from migration_job.errors import InputError
from migration_job.fleet.matching import is_text, mark_of, matching, with_log
from migration_job.place import require_schema_name
from migration_job.plan.policy import Types
from migration_job.plan.tenants import TenantColumn
from migration_job.plural import counted
from migration_job.quoting import POSTGRES_NAME_BYTES

Layout = Literal["schema-per-file", "database-per-file", "tenant-column"]
Outliers = Literal["own", "stop"]

BY_FILE_NAME = r"(?:.*/)?(?P<tenant>[^/]+?)(?:\.[^./]+)?"
"""The file's name without its last ending."""

STAGED = "fleet_{tenant}"
"""With tenant-column: the schema in which a file is verified before its rows go to the others."""

SPELLED = {
    "integer": re.compile(r"0|-?[1-9][0-9]{0,8}"),
    "bigint": re.compile(r"0|-?[1-9][0-9]{0,17}"),
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "text": re.compile(r"[^\x00]+"),
}
"""How a tenant's id is spelled as a value of the column's type: one spelling for each value."""

NO_LIVE_COLUMN = (
    "live: expected a layout of schema-per-file or database-per-file, found tenant-column, whose "
    "files are moved while their applications stand still"
)

SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")

KEPT_DATABASES = ("postgres", "template0", "template1")


class Live(BaseModel):
    """That the applications go on with the files, and what each tenant's commands need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connection: str = "connections/{tenant}"
    """The directory that the tenant's application reads, from the manifest's directory; the
    tenant's locks and records are in ``.state`` inside it."""
    search_path: Literal["role", "alias"] = "role"
    """With schema-per-file: what leads a tenant's sessions to its schema, the setting of its role
    or PgBouncer's alias."""

    @field_validator("connection")
    @classmethod
    def _one_each(cls, connection: str) -> str:
        if connection.count("{tenant}") != 1 or "{" in connection.replace("{tenant}", ""):
            raise ValueError("expected {tenant} once and no other braces")
        return connection


class Manifest(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Annotated[list[str], Field(min_length=1)]
    tenant: str = BY_FILE_NAME
    layout: Layout
    name: str = "{tenant}"
    column: TenantColumn = TenantColumn()
    """With tenant-column: the column, and where the tables are."""
    outliers: Outliers = "own"
    policy: Path | None = None
    profile: str = "none"
    types: Types | None = None
    jobs: Annotated[int, Field(ge=1, le=64)] | None = None
    live: Live | None = None

    @field_validator("live", mode="before")
    @classmethod
    def _yes_or_how(cls, live: object) -> object:
        if isinstance(live, bool):
            return {} if live else None
        return live

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, files: object) -> object:
        return [files] if isinstance(files, str) else files

    @field_validator("files", "policy", "profile", "name", "tenant")
    @classmethod
    def _text(cls, given: object) -> object:
        if not all(is_text(str(part)) for part in (given if isinstance(given, list) else [given])):
            raise ValueError("expected text, found half of a surrogate pair, which is no character")
        return given

    @field_validator("files", "policy", "profile")
    @classmethod
    def _no_nul(cls, given: object) -> object:
        if any("\x00" in str(path) for path in (given if isinstance(given, list) else [given])):
            raise ValueError("expected a path, found one with a NUL character, which no path has")
        return given

    @field_validator("column")
    @classmethod
    def _no_system_column(cls, column: TenantColumn) -> TenantColumn:
        if column.name in SYSTEM_COLUMNS:
            raise ValueError(
                f"name: expected a column of the fleet's own, found {column.name!r}, which "
                "PostgreSQL has in every table"
            )
        return column

    @field_validator("tenant")
    @classmethod
    def _named_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        if "tenant" not in groups:
            raise ValueError("expected a group (?P<tenant>...), found none of that name")
        return pattern

    @field_validator("name")
    @classmethod
    def _holds_tenant(cls, name: str) -> str:
        if name.count("{tenant}") != 1 or "{" in name.replace("{tenant}", ""):
            raise ValueError("expected {tenant} once and no other braces")
        return name

    @model_validator(mode="before")
    @classmethod
    def _of_the_layout(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("layout") == "tenant-column":
            if data.get("live"):
                raise ValueError(NO_LIVE_COLUMN)
            if data.get("outliers") == "own":
                raise ValueError(
                    "outliers: own: expected `stop` with layout: tenant-column, whose tables have "
                    "one plan"
                )
            return {"name": STAGED, "outliers": "stop", **data}
        if "column" in data:
            raise ValueError("column: expected it with layout: tenant-column alone")
        return data


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the fleet."""

    tenant: str
    path: Path
    """Absolute."""
    place: str
    """The schema or the database that it goes to."""
    bytes: int
    """Of the file and its log; 0 where it is not there."""
    mark: str
    """By which the file is told to be as it was; '' where it is not there."""
    trouble: str = ""
    """Why it is not even looked at; '' for an ordinary file."""

    def mark_now(self) -> str:
        """The mark as it is at this moment."""
        return mark_of(self.path)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A manifest, and the files that it names, by tenant."""

    manifest: Manifest
    members: tuple[Member, ...]

    @property
    def policy_text(self) -> str:
        """The policy's YAML; '' where the manifest names none. Raises InputError."""
        if self.manifest.policy is None:
            return ""
        try:
            return self.manifest.policy.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the policy cannot be read: {self.manifest.policy}: {error}",
                advice="give the path of a YAML file in UTF-8, from the manifest's directory",
            ) from error

    @property
    def said_digest(self) -> str:
        """Of what decides on the plans beside the files: policy, profile and types. Raises
        InputError."""
        profile = self.manifest.profile
        with contextlib.suppress(OSError):
            profile += Path(self.manifest.profile).read_text(encoding="utf-8", errors="replace")
        text = json.dumps([self.policy_text, profile, self.manifest.types])
        return hashlib.sha256(text.encode()).hexdigest()


def read_fleet(path: Path) -> Fleet:
    """The fleet of a manifest. Raises InputError where it is not one, or where it leaves open whose
    a file is: two files of one tenant, two names of one file."""
    manifest = read_manifest(path)
    folder = path.absolute().parent
    if manifest.policy is not None:
        manifest = manifest.model_copy(update={"policy": folder / manifest.policy})
    pattern = re.compile(manifest.tenant)
    members: dict[str, Member] = {}
    seen: dict[tuple[int, int], Path] = {}
    for name in matching(manifest.files, folder):
        found = pattern.fullmatch(name)
        tenant = found["tenant"] if found is not None else None
        if not tenant:
            raise InputError(
                f"expected the manifest's `tenant` to match every path, found {name!r} beside it",
                advice="the pattern is of the whole path from the manifest's directory, as it is "
                "shown here; correct it, or `files`",
            )
        member = _member(manifest, tenant, folder / name)
        tenant = member.tenant
        if tenant in members:
            raise InputError(
                f"expected one file a tenant, found {members[tenant].path} and {member.path} for "
                f"{tenant!r}",
                advice="have the group (?P<tenant>...) take in what tells them apart",
            )
        members[tenant] = member
        _once(member.path, seen)
    return Fleet(manifest, tuple(members[tenant] for tenant in sorted(members)))


def _once(path: Path, seen: dict[tuple[int, int], Path]) -> None:
    """Raises InputError where another path leads to the same file."""
    try:
        status = path.stat()
    except OSError:
        return  # it is told when it is looked at
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        raise InputError(
            f"expected each file once, found that {seen[identity]} and {path} are one file",
            advice="leave one of them out of `files`",
        )
    seen[identity] = path


def _member(manifest: Manifest, tenant: str, path: Path) -> Member:
    if trouble := _trouble(path):
        tenant = shown(tenant)
        place = manifest.name.replace("{tenant}", tenant)
        return Member(tenant, path, place, _bytes(path), mark_of(path), trouble)
    place = manifest.name.replace("{tenant}", tenant)
    try:
        if manifest.layout == "tenant-column":
            _require_value(tenant, manifest.column.type)
        if manifest.layout != "database-per-file":
            require_schema_name(place)
        elif "\x00" in place or len(place.encode()) > POSTGRES_NAME_BYTES:
            raise InputError(
                f"expected a database's name of 1 to {POSTGRES_NAME_BYTES:,} bytes, found {place!r}"
            )
        elif place in KEPT_DATABASES:
            raise InputError(f"expected a database of the fleet's own, found {place!r}")
    except InputError as error:
        raise InputError(
            f"tenant {tenant!r} of {path} gives no name: {error.message}",
            advice="say in the manifest's `name` what it is called, for example 't_{tenant}'",
        ) from error
    return Member(tenant, path, place, _bytes(path), mark_of(path))


def _trouble(path: Path) -> str:
    """Why a path that is there cannot be that of a SQLite file; opening a FIFO would wait for a
    writer."""
    if shown(path) != str(path):
        return (
            f"expected a path in UTF-8, found {shown(path)}\n"
            "rename the file or its directory, or make a link with another name"
        )
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""  # it is told when it is looked at
    if stat.S_ISREG(mode):
        return ""
    kind = next((name for is_kind, name in KINDS if is_kind(mode)), "something else")
    return f"expected a regular file, found {kind}\nleave it out of `files`"


def shown(path: Path | str) -> str:
    """A path as UTF-8 has it; bytes that are none are written out."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _require_value(tenant: str, type_: str) -> None:
    """Raises InputError for an id that is no value of the column's type, or not in its one
    spelling."""
    if SPELLED[type_].fullmatch(tenant) is None:
        raise InputError(f"expected a value of type {type_}, as PostgreSQL writes it")


KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in with_log(path) if file.is_file())


def read_manifest(path: Path) -> Manifest:
    """What the file says, of no file of SQLite's yet. Raises InputError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the manifest cannot be read: {path}: {error}",
            advice="give the path of a YAML file in UTF-8; docs/how-to/fleet.md has an example",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        raise InputError(
            f"the manifest {path}{line}: no valid YAML: {getattr(error, 'problem', None) or error}",
            advice="check the indentation and the quotes there; a pattern stands in single quotes",
        ) from error
    if not isinstance(data, dict):
        raise InputError(
            f"the manifest {path}: expected a mapping, found {type(data).__name__}",
            advice="it begins with lines such as `files:` and `layout:`",
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        told = [
            f"the manifest {path}: {'.'.join(map(str, e['loc'])) or 'the whole'}: "
            + ("there is no such field" if e["type"] == "extra_forbidden" else _lower(e["msg"]))
            for e in error.errors()
        ]
        raise InputError(
            "\n".join(dict.fromkeys(told)),
            advice="docs/how-to/fleet.md lists the fields: " + ", ".join(Manifest.model_fields),
        ) from None


def _lower(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def in_words(members: int, size: int) -> str:
    """How large a fleet is."""
    return f"{counted(members, 'file')} of {size / (1 << 20):,.1f} MiB"
