"""Every setting of a stage: its bounds, its default, and its description, the reference's text.

A class for each part of a stage, one upon the other in the order in which the reference lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from infra import support
from infra.setting_types import (
    S3,
    SEVERAL,
    AddressText,
    ApplicationStep,
    EngineAddress,
    External,
    Gate,
    Identifier,
    NetworkText,
    PathText,
    Port,
    Size,
    parse_size,
    setting_text,
)
from infra.tuning import Tuning


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        str_strip_whitespace=True,
    )


class DataSettings(_Section):
    """The application's data, and how it moves."""

    application: Identifier = Field(
        "radcase",
        description="The application's name: its database, its role and the alias in PgBouncer, "
        "and the first part of each container's name.",
    )
    source: PathText = Field(
        "",
        description="The SQLite file to move, relative to the project's directory or absolute; on "
        "a remote engine, its path there. `example` makes a database like RadCase's own, once, in "
        "the state directory. A stage has `source` or `fleet`.",
    )
    fleet: PathText = Field(
        "",
        description="In the place of `source`, the manifest of many SQLite files to move, as "
        "`migration-job fleet` takes it; relative to the project's directory or absolute. The "
        "files are in its directory or below, on this machine. It goes with `strategy: offline`; "
        "with `cutover: switch` PgBouncer admits the applications once all files are verified, "
        "with `hold` nobody.",
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
        description="`planned`: the job makes the tables, in an empty database. `existing`: "
        "`schemaFrom` (or you, on an external target) made the application's own tables there. The "
        "job only fills them and alters none.",
    )
    schema_from: ApplicationStep | None = Field(
        None,
        description="With `schema: existing`, the application's own step that makes its tables. "
        "`image` is one that the engine has or can pull. `command` is a list of words, or one text "
        "that is split as a shell does; by default the image's own. `environment` is optional. The "
        "step runs once in a container on the stage's network before the data moves, as the "
        "owner's role. It finds the new database by DATABASE_URL, PGHOST and so on.",
    )
    proof: ApplicationStep | None = Field(
        None,
        description="The application's own proof, as `schemaFrom` with `image`, `command` and "
        "`environment` (`manage.py migrate --check`, a smoke test): run before the switch on a "
        "copy of the loaded and verified database, which it finds as PGHOST and so on and as "
        "DATABASE_URL, as the owner's role. What it writes is thrown away. Where it ends with "
        "another status than 0 there is no certificate, and nothing is switched.",
    )
    schema_name: str = Field(
        "public",
        pattern=r"^[a-z][a-z0-9_]{0,52}$",
        description="The schema of the application's tables on PostgreSQL, made if it "
        "is missing. The application's roles look there first. On an external target set this "
        "yourself (`ALTER ROLE ... IN DATABASE ... SET search_path`).",
    )
    time_zone: str = Field(
        "UTC",
        pattern=r"^[A-Za-z][A-Za-z0-9_+\-/]{0,63}$",
        description="The time zone of times without one in the source.",
    )
    strategy: Literal["blue-green", "dual-write", "offline"] = Field(
        "blue-green",
        description="`blue-green` and `dual-write` capture changes from the start and keep the "
        "target current, so that the application can write until the switch. `dual-write` also "
        "allows a stop between reads and writes (`cutover: reads`). `offline` changes nothing in "
        "the source and follows no changes. It switches only if nothing was written since the "
        "copy, so the application must be stopped.",
    )
    cutover: Literal["switch", "reads", "hold", "settled"] = Field(
        "switch",
        description="`switch` moves the application once the data is verified; `hold` "
        "stops there; `reads`, with `strategy: dual-write`, moves only the reads. Changing it back "
        "is the way back to SQLite. `settled`, after `switch`, gives up the way back and archives "
        "the SQLite file: the stage is permanently PostgreSQL.",
    )
    settle_after_hours: float = Field(
        48,
        ge=0,
        le=87600,
        description="How long after the switch `cutover: settled` is refused, so that the way back "
        "is not given up too early.",
    )

    @property
    def settled(self) -> bool:
        """Whether the way back is given up: nothing of the stage needs the source."""
        return self.cutover == "settled"

    @property
    def follows(self) -> bool:
        """Whether a sync keeps the side current that does not serve."""
        return (
            not self.fleet
            and not self.settled
            and (self.strategy != "offline" or self.cutover != "hold")
        )

    fence_seconds: float = Field(
        1.0,
        ge=0.05,
        le=60,
        description="How long the switch may hold the source's writers. If it cannot apply "
        "the remaining changes in that time, it releases the writers and tries again.",
    )
    one_way_tables: tuple[PathText, ...] = Field(
        (),
        description="Tables whose changes on PostgreSQL need not come back to SQLite; the switch "
        "names those that it would refuse otherwise.",
    )
    state_directory: PathText = Field(
        "",
        description="The directory for the connection, the report, backups and the job's state; "
        "by default `.state/<stage>`.",
    )
    example_application: bool = Field(
        False,
        description="Also run the small example application, which follows the connection.",
    )
    example_port: Port = Field(18080, description="The example application's port on the host.")
    gate: Gate | None = Field(
        None,
        description="A gate before an application that reads its connection only at start. "
        "`upstream` is HOST:PORT where the application listens, as the gate's container sees it. "
        "`port` is the gate's, on the host. `network` is the application's own Docker network, "
        "which the gate joins. One of these restarts the application: `container` (its container, "
        "through the engine's socket) or `command` (for sh in the gate's container, which has "
        "curl).",
    )


class PostgresSettings(DataSettings):
    """PostgreSQL."""

    target: Literal["container", "external"] = Field(
        "container",
        description="`container`: a PostgreSQL of the stage's own. `external`: one of your "
        "own, as `external` names it; it is checked before any change.",
    )
    external: External | None = Field(
        None,
        description="With `target: external`, where it is and how to log in. `host` and `port` "
        "are lists with commas for a cluster; PgBouncer reaches its leader at `poolerHost` and "
        "`poolerPort`. `database`, `user` and `password` are for the job's role, `applicationUser` "
        "and `applicationPassword` for the application's. `sslmode` is disable, prefer, require or "
        "verify-full, and `authority` a PEM file. `acceptCollation` lets text compare by the "
        "database's own collation. `acceptAsynchronous` accepts that a failover to an asynchronous "
        "standby may lose acknowledged commits. Set the passwords by `make "
        'config ARGS="set --secret --path external.password"`.',
    )
    pooler: bool = Field(
        True,
        description="With `target: external`, whether PgBouncer is used; without it the "
        "application is connected to PostgreSQL itself.",
    )
    postgres_version: Annotated[int, Field(ge=14, le=18)] = Field(
        support.NEWEST,
        description="PostgreSQL's major version, 14 to 18. A stage keeps the one that its data "
        "volume was made with.",
    )
    postgres_members: Annotated[int, Field(ge=1, le=SEVERAL)] = Field(
        1,
        description="How many servers PostgreSQL runs on: 1, or 3 under Patroni, with etcd and "
        "haproxy, where one of the others takes over from a leader that is lost and no commit that "
        "was acknowledged goes with it. Each has `postgresMemory` and `postgresCpus` of its own. A "
        "stage keeps the number that it was made with.",
    )
    upgrade_to: Annotated[int, Field(ge=15, le=18)] | None = Field(
        None,
        description="The major version that the application moves to while it runs, "
        "from that of `postgresVersion` or the last of `upgradesSettled`; `make upgrade STAGE=... "
        "TO=18` sets it. That server gets "
        "a container and a volume of its own.",
    )
    upgrade_step: Literal["move", "back", "settle"] = Field(
        "move",
        description="With `upgradeTo`: `move` moves the application to the new server, `back` to "
        "the older one again, as often as you like (`make upgrade STAGE=... BACK=1`). `settle` "
        "gives up the way back and removes the older server with its data (`SETTLE=1`).",
    )
    upgrades_settled: tuple[Annotated[int, Field(ge=15, le=18)], ...] = Field(
        (),
        description="The versions that earlier upgrades of the stage, settled since, have brought "
        "it to, in their order. `upgradeTo` goes on from the last; `make upgrade` keeps this list.",
    )
    upgrade_port: Port = Field(
        15433,
        description="With `upgradeTo`, the new PostgreSQL's port on the host. A further upgrade's "
        "gets `postgresPort`, which is free by then, and so on in turn.",
    )
    postgres_port: Port = Field(15432, description="PostgreSQL's port on the host.")
    postgres_memory: Size = Field(
        parse_size("1GB"), description="The container's memory limit; memory settings follow it."
    )
    postgres_cpus: float = Field(
        1, ge=0.01, le=256, description="How many cores PostgreSQL may use, such as 0.5 or 4."
    )
    storage: Literal["ssd", "hdd", "network"] = Field(
        "ssd", description="The disk of the data volume; the planner's costs follow it."
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
    postgres_tuning: Tuning = Field(
        "computed",
        description="`computed`: postgresql.conf follows memory, cores and disk; `strategy`: the "
        "migration strategy's values for 1 GB, whatever the memory is.",
    )
    postgresql_settings: dict[str, str] = Field(
        default_factory=dict,
        description="Settings of postgresql.conf one by one, such as `work_mem: 8MB`; each is "
        "checked against the version's own list and limits.",
    )

    @field_validator("postgresql_settings", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key).lower(): setting_text(item) for key, item in value.items()}
        return value


class PoolerSettings(PostgresSettings):
    """PgBouncer."""

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
        "PostgreSQL; 0 for no limit.",
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


class ContainerSettings(PoolerSettings):
    """The containers and their engine."""

    image_source: Literal["auto", "pull", "build"] = Field(
        "auto",
        description="`pull` official images, `build` them locally, or `auto`: pull if a "
        "registry answers, otherwise build.",
    )
    postgres_image: str = Field(
        "",
        pattern=r"^$|^[a-z0-9][a-z0-9._:/-]{0,200}@sha256:[0-9a-f]{64}$",
        description="PostgreSQL's image by its digest, such as `postgres@sha256:...`. By "
        "default it is the version's official image that the registry has when the stage is made. "
        "With this setting no image is built instead.",
    )
    docker_host: EngineAddress = Field(
        "",
        description="The engine's address, such as `ssh://user@host`; by default DOCKER_HOST "
        "or the local engine.",
    )
    bind_address: AddressText = Field(
        "127.0.0.1", description="The host's address on which ports are published."
    )
    connection_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,253}$|^$",
        description="The host's name or address by which the application reaches PgBouncer; "
        "by default `bindAddress`.",
    )
    allowed_networks: tuple[NetworkText, ...] = Field(
        (),
        description="Networks whose clients PostgreSQL admits besides the stage's own, such as "
        "`10.1.0.0/16`; needed if `bindAddress` is not loopback and clients do not use PgBouncer.",
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
        description="Protect the stage: `make down` then stops before it removes anything. It "
        "needs a deliberate second step, `protectData: false` and `make up`.",
    )


class ClosedSettings(ContainerSettings):
    """TLS and passwords."""

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
        description="Raising it replaces the passwords; `make rotate` does this, and then disables "
        "the old ones.",
    )


class OperatedSettings(ClosedSettings):
    """Watched, and backed up."""

    monitoring: bool = Field(
        False,
        description="Prometheus with exporters for PostgreSQL and PgBouncer, alert rules and "
        "Alertmanager, and the panels: Grafana if its image can be pulled, otherwise a light page.",
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

    backup_drill_hours: int = Field(
        0,
        ge=0,
        le=8760,
        description="With `backup: true`, hours from one restore drill to the next: the newest "
        "backup is restored into a throw-away server and compared with what the running one holds. "
        "0 for none.",
    )

    backup_s3: S3 | None = Field(
        None,
        description="An S3-compatible store for the backups, instead of a volume: `bucket`, "
        "`endpoint`, `region`, `path`, `key`, `keySecret` and `uriStyle` (host or path). "
        "`endpoint` has its port unless it is 443; the connection is always TLS. `authority` is a "
        "PEM file, needed if the certificate comes from an authority of your own.",
    )
    restore_port: Port = Field(17432, description="The port of a database restored beside this.")
