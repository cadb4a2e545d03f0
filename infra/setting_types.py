"""What a setting may be: the types of values, and the models of settings that hold several."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from migration_job.hosts import require_matching

KIBIBYTE = 1024
UNITS = {"kB": KIBIBYTE, "MB": KIBIBYTE**2, "GB": KIBIBYTE**3, "TB": KIBIBYTE**4}


def parse_size(text: object) -> int:
    """Bytes of ``512MB``, ``1GB``, ...; ValueError naming the form where it is not one."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})\s?(kB|MB|GB|TB)", str(text).strip())
    if match is None:
        raise ValueError("expected a size such as 512MB or 4GB")
    return int(match[1]) * UNITS[match[2]]


SEVERAL = 3
"""Servers of a PostgreSQL that is not one: the fewest of which one may be lost while two agree."""

Size = Annotated[int, BeforeValidator(parse_size)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _identifier(name: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) is None:
        raise ValueError(
            "expected a lower-case letter and then up to 30 lower-case letters, digits or _"
        )
    if name in {"postgres", "template0", "template1", "pgbouncer", "pooler", "public", "migration"}:
        raise ValueError(f"{name} is taken by PostgreSQL, PgBouncer or this project")
    return name


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _plain_path(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("expected a path without control characters")
    return text


def _docker_host(text: str) -> str:
    if text and re.fullmatch(r"(unix|npipe|tcp|ssh|http|https)://[^\s'\"]+", text) is None:
        raise ValueError("expected an address such as ssh://user@host or unix:///path")
    return text


PathText = Annotated[str, AfterValidator(_plain_path)]
Identifier = Annotated[str, AfterValidator(_identifier)]
AddressText = Annotated[str, AfterValidator(_address)]
NetworkText = Annotated[str, AfterValidator(_network)]
EngineAddress = Annotated[str, AfterValidator(_docker_host)]


def setting_text(value: object, yes: str = "on", no: str = "off") -> str:
    """A value of YAML's as text; ValueError where it is a list or a mapping."""
    if isinstance(value, bool):
        return yes if value else no
    if isinstance(value, (int, float, str)):
        return str(value)
    raise ValueError("expected one value for each setting, found a list or a mapping")


S3Text = Annotated[str, Field(min_length=1, pattern=r"^[!-~]+$")]
"""Printable ASCII without spaces: what a line of pgbackrest.conf holds as it stands."""


class S3(BaseModel):
    """An S3-compatible store, such as MinIO or a cloud's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    bucket: S3Text
    endpoint: S3Text
    region: S3Text = "us-east-1"
    path: S3Text = "/backup"
    key: S3Text = Field(repr=False)
    key_secret: S3Text = Field(repr=False)
    uri_style: Literal["host", "path"] = "host"
    authority: PathText = ""
    """The file of the authority that signed its certificate, where that is one's own."""


HostText = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,253}$")]
"""A name or an address, as connection strings and PgBouncer's configuration take it."""
HostsText = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_,-]{0,1000}$")]
"""The same, or several with commas between them."""
PortsText = Annotated[str, Field(pattern=r"^[0-9]{1,5}(,[0-9]{1,5})+$")]
RoleText = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(_plain_path)]


class External(BaseModel):
    """A PostgreSQL that somebody else runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    host: HostsText
    """One server, or a cluster's members with commas between them: the one that takes writes is
    looked for."""
    port: Port | PortsText = 5432
    pooler_host: HostText | Literal[""] = ""
    """Where PgBouncer reaches the server that takes writes; a list of hosts needs it."""
    pooler_port: Port = 5432
    database: RoleText
    user: RoleText
    """The role that the job logs in as; it owns what it makes."""
    password: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$", repr=False)
    application_user: str = Field(min_length=1, max_length=63, pattern=r"^[^'\x00-\x1f\x7f]+$")
    application_password: str = Field(
        min_length=1,
        max_length=1000,
        # What every reader of a .env file takes between single quotes.
        pattern=r"^[^'\x00-\x1f\x7f]+$",
        repr=False,
    )
    sslmode: Literal["disable", "prefer", "require", "verify-full"] = "require"
    authority: PathText = ""
    """The file of the authority that signed its certificate; ``verify-full`` needs it."""
    accept_asynchronous: bool = False
    """Whether a failover to a standby that follows asynchronously may lose acknowledged commits."""
    accept_collation: bool = False
    """Whether text may compare by the database's own collation, a language's."""

    @model_validator(mode="after")
    def _lists(self) -> External:
        require_matching(self.host, self.port)
        return self


def _upstream(text: str) -> str:
    host, _, port = text.rpartition(":")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}", host) is None or (
        re.fullmatch(r"[1-9][0-9]{0,4}", port) is None or int(port) > 65535
    ):
        raise ValueError("expected HOST:PORT such as radcase:3000")
    if host == "localhost" or host.startswith("127."):
        raise ValueError(
            "that is the gate's own container; name the application's container on `gate.network`, "
            "or host.docker.internal for what listens on the host"
        )
    return text


def _own_network(name: str) -> str:
    if name in {"bridge", "host", "none", "default"}:
        raise ValueError(
            "containers do not find one another by name there; expected a network of the "
            "application's own, as compose makes one"
        )
    return name


EngineName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$|^$")]
"""What the engine takes as a name of a container or a network."""


class Gate(BaseModel):
    """A gate before an application that reads its connection only at start."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, str_strip_whitespace=True
    )

    upstream: Annotated[str, AfterValidator(_upstream)]
    """HOST:PORT where the application listens, as the gate's container sees it."""
    port: Port
    network: Annotated[EngineName, AfterValidator(_own_network)] = ""
    """The network on which the application's container is; '' for the stage's own."""
    container: EngineName = ""
    command: Annotated[str, Field(max_length=4000), AfterValidator(_plain_path)] = Field(
        "", repr=False
    )
    """For sh, in the gate's container."""

    @model_validator(mode="after")
    def _one_way_to_restart(self) -> Gate:
        if bool(self.container) == bool(self.command):
            raise ValueError(
                "expected one of gate.container and gate.command to restart the application, "
                f"found {'both' if self.container else 'neither'}"
            )
        return self


def _words(value: object) -> object:
    """A command as its words; one text is split as a shell splits it, and no shell runs it."""
    return shlex.split(value) if isinstance(value, str) else value


ImageText = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,300}$")]
"""What the engine takes as an image: a name with a tag or a digest, or an id."""
CommandText = Annotated[str, Field(max_length=100_000)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
RESERVED_VARIABLE = re.compile("PG[A-Z]+|DATABASE_URL")
"""Variables that name the database to whatever the application runs."""


class ApplicationStep(BaseModel):
    """A command of the application's own, in an image of its own, that is given a database."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    image: ImageText
    command: Annotated[tuple[CommandText, ...], BeforeValidator(_words)] = ()
    """Given to the image's entrypoint; () for the image's own command."""
    environment: dict[VariableName, str] = Field(default_factory=dict, repr=False)

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): setting_text(item, "true", "false") for key, item in value.items()}
        return value

    @field_validator("environment")
    @classmethod
    def _not_the_database(cls, value: dict[str, str]) -> dict[str, str]:
        ours = sorted(name for name in value if RESERVED_VARIABLE.fullmatch(name))
        if ours:
            raise ValueError(f"{', '.join(ours)}: the stage itself sets these, to the new database")
        if any("\0" in text for text in value.values()):
            raise ValueError("expected values without a NUL")
        return value
