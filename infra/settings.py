"""A stage's settings: typed, documented, and refused before anything is created.

They come from the stage file ``Pulumi.<stage>.yaml`` (keys ``sqlite-to-postgresql:<name>``). Every
field's description is the reference's text. A key that is not here is refused with the nearest
that is, since a misspelt limit that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from infra import parameters, support
from infra.errors import StageError
from migration_job.hosts import is_list, require_matching

PROJECT = "sqlite-to-postgresql"

KIBIBYTE = 1024
UNITS = {"kB": KIBIBYTE, "MB": KIBIBYTE**2, "GB": KIBIBYTE**3, "TB": KIBIBYTE**4}


SILENT_SINCE = 15
"""From this version on the owner's role can be granted session_replication_role."""


def parse_size(text: object) -> int:
    """Bytes of ``512MB``, ``1GB``, ...; ValueError naming the form where it is not one."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})\s?(kB|MB|GB|TB)", str(text).strip())
    if match is None:
        raise ValueError("expected a size such as 512MB or 4GB")
    return int(match[1]) * UNITS[match[2]]


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
                "expected one of gate.container and gate.command to start the application anew, "
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


class SchemaFrom(BaseModel):
    """The application's own step that makes its tables in the new database."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    image: ImageText
    command: Annotated[tuple[CommandText, ...], BeforeValidator(_words)] = ()
    """Given to the image's entrypoint; () for the image's own command."""
    environment: dict[VariableName, str] = Field(default_factory=dict, repr=False)

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): _setting_text(item, "true", "false") for key, item in value.items()}
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


class Settings(BaseModel):
    """Everything that a stage file may say, with what holds where it says nothing."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        str_strip_whitespace=True,
    )

    # ------------------------------------------------------------------ the application's data
    application: Annotated[str, AfterValidator(_identifier)] = Field(
        "radcase",
        description="The application's name: its database, its role and the alias in PgBouncer, "
        "and the first part of each container's name.",
    )
    source: PathText = Field(
        min_length=1,
        description="The SQLite file to move, relative to the project's directory or absolute; on "
        "a remote engine, its path there. `example` makes a database like RadCase's own, once, in "
        "the state directory.",
    )
    profile: PathText = Field(
        "none",
        min_length=1,
        description="`radcase` (the strategy's schema and rules), `none` (a plan from the declared "
        "types and every value), or the path of a profile of your own.",
    )
    policy: dict[str, Any] = Field(
        default_factory=dict,
        description="What to do with values that do not fit, as the job's policy file says it; "
        "empty for the profile's own.",
    )
    target_schema: Literal["planned", "existing"] = Field(
        "planned",
        alias="schema",
        description="`planned`: the job makes the tables, in an empty database. `existing`: they "
        "are the application's own, which `schemaFrom` (or you, on an external target) made "
        "there; the job only fills them and alters none.",
    )
    schema_from: SchemaFrom | None = Field(
        None,
        description="With `schema: existing`, the application's own step that makes its tables: "
        "`image` (one that the engine has or can pull), `command` (a list of words, or one text "
        "that is split as a shell splits it; the image's own where it is not given) and "
        "`environment`. It runs once in a container on the stage's network before the data moves, "
        "as the owner's role, and finds the new database as PGHOST and so on and as DATABASE_URL.",
    )
    time_zone: str = Field(
        "UTC",
        pattern=r"^[A-Za-z][A-Za-z0-9_+\-/]{0,63}$",
        description="The zone of times that name none in the source.",
    )
    strategy: Literal["blue-green", "dual-write", "offline"] = Field(
        "blue-green",
        description="`blue-green` and `dual-write` capture changes from the start and keep the "
        "target in step, so that the application goes on writing until the switch; `dual-write` "
        "also allows a stop between reads and writes (`cutover: reads`). `offline` changes nothing "
        "in the source and follows nothing: it switches only where nothing was written since the "
        "copy, so the application stands still for it.",
    )
    cutover: Literal["switch", "reads", "hold", "settled"] = Field(
        "switch",
        description="`switch` moves the application once the data is verified; `hold` stops "
        "there; `reads`, with `strategy: dual-write`, moves the reads alone. Changing it back is "
        "the way back to SQLite. `settled`, after `switch`, gives the way back up and archives "
        "the SQLite file: the stage is PostgreSQL from then on, and for good.",
    )
    settle_after_hours: float = Field(
        48,
        ge=0,
        le=87600,
        description="How long after the switch `cutover: settled` is refused, so that the way back "
        "is not given up in haste.",
    )

    @property
    def settled(self) -> bool:
        """Whether the way back is given up: nothing of the stage needs the source."""
        return self.cutover == "settled"

    @property
    def follows(self) -> bool:
        """Whether a sync keeps the side current that does not serve."""
        return not self.settled and (self.strategy != "offline" or self.cutover != "hold")

    fence_seconds: float = Field(
        1.0,
        ge=0.05,
        le=60,
        description="How long the switch may hold the source's writers; where the rest cannot be "
        "brought over in that time, it lets them go on and tries again.",
    )
    one_way_tables: tuple[PathText, ...] = Field(
        (),
        description="Tables whose changes on PostgreSQL need not come back to SQLite; the switch "
        "names those that it would refuse otherwise.",
    )
    state_directory: PathText = Field(
        "",
        description="The directory for the connection, the report, backups and the job's state; "
        "`.state/<stage>` where it is not given.",
    )
    example_application: bool = Field(
        False,
        description="Also run the small example application, which follows the connection.",
    )
    example_port: Port = Field(18080, description="The example application's port on the host.")
    gate: Gate | None = Field(
        None,
        description="A gate before an application that reads its connection only at start: "
        "`upstream` (HOST:PORT where the application listens, as the gate's container sees it), "
        "`port` (the gate's, on the host), `network` (the application's own Docker network, which "
        "the gate is put on), and one of `container` (the application's container, restarted "
        "through the engine's socket) and `command` (for sh in the gate's container, which has "
        "curl).",
    )

    # ------------------------------------------------------------------------------ PostgreSQL
    target: Literal["container", "external"] = Field(
        "container",
        description="`container`: a PostgreSQL of the stage's own. `external`: one that somebody "
        "else runs, as `external` names it; it is checked before any change.",
    )
    external: External | None = Field(
        None,
        description="With `target: external`: `host` and `port` (of a cluster, lists with commas), "
        "`poolerHost` and `poolerPort` (where PgBouncer reaches the leader of such a list), "
        "`database`, `user` and `password` "
        "of the job's role, `applicationUser` and `applicationPassword`, `acceptCollation` (text "
        "may compare by the database's own collation), `acceptAsynchronous` (a "
        "failover to an asynchronous standby may lose acknowledged commits), `sslmode` (disable, "
        "prefer, require, verify-full) and `authority` (a PEM file). Set the passwords by `make "
        'config ARGS="set --secret --path external.password"`.',
    )
    pooler: bool = Field(
        True,
        description="With `target: external`, whether PgBouncer stands before it; without, the "
        "application is connected to PostgreSQL itself.",
    )
    postgres_version: Annotated[int, Field(ge=14, le=18)] = Field(
        support.NEWEST,
        description="PostgreSQL's major version, 14 to 18. A stage keeps the one that its data "
        "volume was made with.",
    )
    postgres_port: Port = Field(15432, description="PostgreSQL's port on the host.")
    postgres_memory: Size = Field(
        parse_size("1GB"), description="The container's memory limit; memory settings follow it."
    )
    postgres_cpus: float = Field(
        1, ge=0.01, le=256, description="How many cores PostgreSQL may use, such as 0.5 or 4."
    )
    storage: Literal["ssd", "hdd", "network"] = Field(
        "ssd", description="What the data volume lies on; the planner's costs follow it."
    )
    disk: Size = Field(
        parse_size("20GB"),
        description="How much disk the data may take; the size of the write-ahead log follows it.",
    )
    max_connections: int = Field(
        0,
        ge=0,
        le=10000,
        description="PostgreSQL's connections; 0 computes them from the pool (at least 100).",
    )
    postgresql_settings: dict[str, str] = Field(
        default_factory=dict,
        description="Settings of postgresql.conf one by one, such as `work_mem: 8MB`; each is "
        "checked against the version's own list and limits.",
    )

    # ------------------------------------------------------------------------------- PgBouncer
    pooler_port: Port = Field(16432, description="PgBouncer's port on the host.")
    pooler_memory: Size = Field(
        parse_size("128MB"), description="The memory limit of PgBouncer's container."
    )
    pool_max: int = Field(20, ge=1, le=5000, description="Server connections for the application.")
    pool_min: int = Field(5, ge=0, le=5000, description="Server connections that are kept open.")
    pool_idle_seconds: int = Field(
        30, ge=1, le=86400, description="After how long an idle server connection is closed."
    )
    pool_connect_seconds: int = Field(
        2, ge=1, le=600, description="How long opening a server connection may take."
    )
    pool_wait_seconds: int = Field(
        120,
        ge=0,
        le=86400,
        description="How long a query may wait for a server connection, as during a restart of "
        "PostgreSQL; 0 for ever.",
    )
    pool_clients: int = Field(
        1000, ge=1, le=100000, description="Client connections that PgBouncer admits."
    )
    prepared_statements: int = Field(
        200,
        ge=0,
        le=100000,
        description="Prepared statements that PgBouncer keeps for each server connection; 0 turns "
        "them off.",
    )

    # ------------------------------------------------------------------------- the containers
    image_source: Literal["auto", "pull", "build"] = Field(
        "auto",
        description="`pull` official images, `build` them on the spot, or `auto`: pull where a "
        "registry answers, else build.",
    )
    postgres_image: str = Field(
        "",
        pattern=r"^$|^[a-z0-9][a-z0-9._:/-]{0,200}@sha256:[0-9a-f]{64}$",
        description="PostgreSQL's image by its digest, such as `postgres@sha256:...`; the official "
        "image of the version, as the registry has it when the stage is made, where it is not "
        "given. With it nothing is built in its place.",
    )
    docker_host: Annotated[str, AfterValidator(_docker_host)] = Field(
        "",
        description="The engine's address, such as `ssh://user@host`; DOCKER_HOST or the local "
        "engine where it is not given.",
    )
    bind_address: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1", description="The host's address on which ports are published."
    )
    connection_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,253}$|^$",
        description="The host's name or address by which the application reaches PgBouncer; "
        "`bindAddress` where it is not given.",
    )
    allowed_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (),
        description="Networks whose clients PostgreSQL admits besides the stage's own, such as "
        "`10.1.0.0/16`; needed where `bindAddress` is not loopback and clients pass by PgBouncer.",
    )
    job_memory: Size = Field(
        parse_size("512MB"), description="The memory limit of the job's containers."
    )
    log_size: Size = Field(
        parse_size("10MB"), description="The size at which a container's log is rotated."
    )
    log_files: int = Field(5, ge=1, le=100, description="How many rotated logs are kept.")
    protect_data: bool = Field(
        False,
        description="Protect the stage: `make down` then stops before it has taken anything down, "
        "and needs a deliberate second step, `protectData: false` and `make up`.",
    )

    # ------------------------------------------------------------------------------------- TLS
    tls: Literal["off", "private", "given"] = Field(
        "off",
        description="`private`: TLS from the application to PgBouncer and on to PostgreSQL, with "
        "an authority made for the stage; plain connections are refused. `given`: the same, with "
        "the application's side of PgBouncer under a certificate of your own.",
    )
    tls_certificate: PathText = Field(
        "", description="With `tls: given`, the certificate's file (PEM, with its chain)."
    )
    tls_key: PathText = Field("", description="With `tls: given`, the key's file (PEM).")
    tls_authority: PathText = Field(
        "", description="With `tls: given`, the file of the authority that clients trust (PEM)."
    )

    credentials_version: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Raising it replaces the passwords; `make rotate` does it, and then ends the "
        "old ones.",
    )

    # -------------------------------------------------------------------- watched, and backed up
    monitoring: bool = Field(
        False,
        description="Prometheus with exporters for PostgreSQL and PgBouncer, alert rules and "
        "Alertmanager, and the panels: Grafana where its image can be pulled, else a light page.",
    )
    prometheus_port: Port = Field(19090, description="Prometheus' port on the host.")
    alertmanager_port: Port = Field(19093, description="Alertmanager's port on the host.")
    dashboard_port: Port = Field(18090, description="The panels' port on the host.")
    alert_webhook: str = Field(
        "",
        pattern=r"^(https?://[^\s]+)?$",
        repr=False,
        description='Where Alertmanager sends alerts; set it with `make config ARGS="set '
        '--secret alertWebhook"`.',
    )
    backup: bool = Field(
        False,
        description="Base backups and archived WAL by pgBackRest, for recovery to any moment. "
        "`false` stops them; those in the stage's volume are kept until `deleteBackups`.",
    )
    delete_backups: bool = Field(
        False,
        description="With `backup: false`, remove the backups that were taken: the second step.",
    )
    backup_full_hours: int = Field(
        168, ge=1, le=8760, description="Hours from one full backup to the next."
    )
    backup_differential_hours: int = Field(
        24, ge=1, le=8760, description="Hours from any backup to the next differential one."
    )
    backup_retention: int = Field(
        2, ge=1, le=1000, description="How many full backups are kept, with all that needs them."
    )

    backup_s3: S3 | None = Field(
        None,
        description="An S3-compatible store for the backups, instead of a volume: `bucket`, "
        "`endpoint` (with its port where that is not 443; always TLS), `region`, `path`, `key`, "
        "`keySecret`, `uriStyle` (host or path) and, where its certificate is of an authority of "
        "your own, `authority` (a PEM file).",
    )
    restore_port: Port = Field(17432, description="The port of a database restored beside this.")

    @field_validator("postgresql_settings", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key).lower(): _setting_text(item) for key, item in value.items()}
        return value

    def _external_together(self) -> None:
        if (self.target == "external") != (self.external is not None):
            raise ValueError("target: external and `external` go together")
        if self.external is None:
            if not self.pooler:
                raise ValueError("pooler: false needs target: external")
            return
        if self.backup or self.monitoring:
            raise ValueError(
                "backup and monitoring are for a PostgreSQL of the stage's own; with target: "
                "external whoever runs it backs it up and watches it"
            )
        if self.pooler and is_list(self.external.host) and not self.external.pooler_host:
            raise ValueError(
                "external.host is a list, which PgBouncer cannot follow: name the address that "
                "leads to the server that takes writes (haproxy's) in external.poolerHost and "
                "external.poolerPort, or set pooler: false"
            )
        if (self.external.sslmode == "verify-full") != bool(self.external.authority):
            raise ValueError("external.sslmode: verify-full and external.authority go together")

    def _schema_together(self) -> None:
        if self.target_schema == "planned":
            if self.schema_from:
                raise ValueError(
                    "schemaFrom makes the application's own tables: set schema: existing"
                )
            return
        if self.external is None and self.postgres_version < SILENT_SINCE:
            raise ValueError(
                f"schema: existing needs postgresVersion {SILENT_SINCE} or later: before, only a "
                "superuser may load into tables whose triggers and foreign keys are not to act"
            )

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.pool_min > self.pool_max:
            raise ValueError(f"poolMin ({self.pool_min}) must not exceed poolMax ({self.pool_max})")
        if self.cutover == "reads" and self.strategy != "dual-write":
            raise ValueError("cutover: reads needs strategy: dual-write")
        if ipaddress.ip_address(self.bind_address).is_unspecified and not self.connection_host:
            raise ValueError(
                f"bindAddress {self.bind_address} is no address to connect to: set connectionHost"
            )
        ports = self.ports()
        if len(set(ports.values())) < len(ports):
            raise ValueError(f"ports must differ from one another, found {ports}")
        given = (self.tls_certificate, self.tls_key, self.tls_authority)
        if (self.tls == "given") != all(given) or (self.tls != "given" and any(given)):
            raise ValueError(
                "tlsCertificate, tlsKey and tlsAuthority go together, and with `tls: given` alone"
            )
        self._external_together()
        self._schema_together()
        if self.backup and self.delete_backups:
            raise ValueError("deleteBackups goes with backup: false alone")
        if self.postgres_image and (self.image_source == "build" or self.external):
            raise ValueError(
                "postgresImage is an image to pull: it goes with neither `imageSource: build` "
                "nor an external database"
            )
        if self.postgres_memory < UNITS["MB"] * 256:
            raise ValueError("postgresMemory must be at least 256MB")
        if self.pooler_memory < UNITS["MB"] * 32 or self.job_memory < UNITS["MB"] * 128:
            raise ValueError("poolerMemory must be at least 32MB and jobMemory at least 128MB")
        parameters.check(self.postgres_version, self.postgresql_settings)
        return self

    def ports(self) -> dict[str, int]:
        """The ports that the stage takes on its host, by their settings."""
        ports = {"postgresPort": self.postgres_port, "poolerPort": self.pooler_port}
        if self.example_application:
            ports["examplePort"] = self.example_port
        if self.gate:
            ports["gate.port"] = self.gate.port
        if self.backup:
            ports["restorePort"] = self.restore_port
        if self.monitoring:
            ports |= {
                "prometheusPort": self.prometheus_port,
                "alertmanagerPort": self.alertmanager_port,
                "dashboardPort": self.dashboard_port,
            }
        return ports


def _setting_text(value: object, yes: str = "on", no: str = "off") -> str:
    if isinstance(value, bool):
        return yes if value else no
    if isinstance(value, (int, float, str)):
        return str(value)
    raise ValueError("expected one value for each setting, found a list or a mapping")


# ------------------------------------------------------------------------------------- reading


def read(raw: Mapping[str, object], where: str) -> Settings:
    """The settings of a stage; StageError listing every fault, what is allowed and what was found.

    ``raw`` holds the keys without the project's prefix; values are YAML's or, as Pulumi hands them
    to a program, strings (JSON for mappings and lists). ``where`` names the file for the message.
    """
    known = {str(field.alias): field for field in Settings.model_fields.values()}
    faults = [_unknown(key, known) for key in raw if key not in known]
    values = {key: _structured(value) for key, value in raw.items() if key in known}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(detail) for detail in error.errors()]
    if faults:
        raise StageError(
            f"the settings in {where} are not usable:\n" + "\n".join(f"  {f}" for f in faults),
            advice="nothing was created or changed; docs/settings.md lists every setting",
        )
    return settings


UNREAD = "https://encrypted.invalid/"
"""What stands for a value that the stage file holds encrypted. It passes for any of them, and
nothing that reads the file by itself has a use for one."""


def read_file(path: Path) -> Settings:
    """The settings of a stage file as ``pulumi up`` would see them, but for what is encrypted in
    it (``pulumi config set --secret``): that is :data:`UNREAD`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise StageError(
            f"expected the stage file {path}, found none",
            advice="make it from Pulumi.dev.yaml, or name one of the stages that are there",
        ) from error
    except OSError as error:
        raise StageError(
            f"the stage file {path} cannot be read: {error.strerror}",
            advice="it has to be a file that this user can read",
        ) from error
    except RecursionError as error:
        raise StageError(
            f"expected a stage file, found {path} nested too deeply to read"
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML's constructors raise more than its own errors for a tag or a date's digits.
        raise StageError(
            f"expected YAML in {path}: {_printable(' '.join(str(error).split()))}",
            advice="check the line; put words with a `!!` tag and dates in quotes",
        ) from error
    config = (content.get("config") or {}) if isinstance(content, dict) else content
    if not isinstance(config, dict):
        raise StageError(
            f"expected a mapping with `config:` in {path}, found {_shown(config)}",
            advice="begin from Pulumi.dev.yaml",
        )
    return read(
        {
            key.removeprefix(f"{PROJECT}:"): _without_secrets(value)
            for key, value in ((str(key), value) for key, value in config.items())
            if key.startswith(f"{PROJECT}:")
        },
        path.name,
    )


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        if value.keys() == {"secure"}:
            return UNREAD
        return {key: _without_secrets(item) for key, item in value.items()}
    return value


def _structured(value: object) -> object:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _unknown(key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
    return f"{_shown(key)}: unknown setting{hint}"


def _fault(detail: Mapping[str, Any]) -> str:
    place = _printable(".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "missing":
        return f"{place}: expected a value, found none"
    message = str(detail["msg"]).removeprefix("Value error, ")
    message = _printable(message[:1].lower() + message[1:])
    if place in SECRETS:
        return f"{place}: {message}"
    found = detail.get("input")
    if isinstance(found, (str, int, float, bool)) and place:
        return f"{place}: {message}, found {_shown(found)}"
    return f"{place}: {message}" if place else message


def _secret_places(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The settings that are marked on their field (``repr=False``), and those that hold such."""
    for name, field in model.model_fields.items():
        place = f"{above}{field.alias or name}"
        if not field.repr:
            yield place
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                inner = list(_secret_places(part, f"{place}."))
                yield from (place, *inner) if inner else ()


SECRETS = frozenset(_secret_places(Settings))
"""Settings whose value no message repeats."""


def _printable(text: str) -> str:
    """On one line, and nothing that moves a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    """A value as a message may hold it: short, on one line, nothing that moves a terminal."""
    return ascii(value)[:80]
