"""What the resources that run the job are given: their properties in Pulumi's state, typed.

A provider reads them back by :meth:`Properties.of`. The program names them by
:meth:`Properties.declared`, where some are only known when other resources are made. What is secret
is marked on its field (``repr=False``), and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self
from urllib.parse import quote

import pulumi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infra.errors import StageError
from infra.job import SECRETS, Place
from infra.setting_types import ApplicationStep
from migration_job.hosts import LEADER, is_list

AUTHORITY = "ca.crt"
AUTHORITY_FILE = f"{SECRETS}/{AUTHORITY}"

PLANNED = "planned"
"""``schema`` where the job makes the tables."""

Secret = Annotated[str, Field(repr=False)]


class Properties(BaseModel):
    """Properties of one resource. A state of an older version of this project may hold others."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @classmethod
    def of(cls, props: Mapping[str, Any]) -> Self:
        """As the state has them; StageError, which repeats no value, where one is missing."""
        try:
            return cls.model_validate(props)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise StageError(
                f"expected the properties of {cls.__name__} in the stage's state, found: {faults}",
                advice="run `pulumi up` with the version of this project that made the stage first",
            ) from None

    @classmethod
    def declared(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` as the properties of a resource; TypeError where a name is wrong or missing,
        since no provider would read it."""
        known = {field.alias or name: field for name, field in cls.model_fields.items()}
        required = {name for name, field in known.items() if field.is_required()}
        wrong = (values.keys() - known.keys()) | (required - values.keys())
        if wrong:
            raise TypeError(f"{cls.__name__}: wrong or missing {', '.join(sorted(wrong))}")
        return dict(values)

    @classmethod
    def secrets(cls) -> list[str]:
        """The names of the properties that are secret."""
        return [field.alias or name for name, field in cls.model_fields.items() if not field.repr]


def with_secrets(opts: pulumi.ResourceOptions, inputs: type[Properties]) -> pulumi.ResourceOptions:
    """The options of a resource that has these properties: those that are secret are encrypted."""
    return pulumi.ResourceOptions.merge(
        opts, pulumi.ResourceOptions(additional_secret_outputs=inputs.secrets())
    )


class Target(Properties):
    """The database, as the job logs in to it."""

    host: str
    """One server, or a cluster's with commas between them."""
    port: int | str
    database: str
    user: str
    sslmode: str = ""
    accept_asynchronous: bool = False
    accept_collation: bool = False
    schema_name: str = ""
    """Where the application's tables are; '' for the default schema."""

    @property
    def is_cluster(self) -> bool:
        return is_list(self.host)

    @property
    def addresses(self) -> str:
        """``HOST:PORT``, of each server with commas between."""
        hosts = [f"[{host}]" if ":" in host else host for host in self.host.split(",")]
        ports = str(self.port).split(",")
        ports *= len(hosts) if len(ports) == 1 else 1
        return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))


class Console(Properties):
    """PgBouncer's console."""

    host: str
    port: int
    user: str


class Placed(Properties):
    """Where the job runs."""

    place: Place
    container: str
    """The beginning of its containers' names."""


class Served(Placed):
    """The same, with where the application's connection is."""

    connection_directory: str


class Reach(Placed):
    """How the job comes to the target."""

    target: Target
    password: Secret
    """The migration role's."""
    authority: str = ""
    """Whom the job trusts as the target; '' without TLS of the stage's own."""

    @property
    def dsn(self) -> str:
        """The job's connection string."""
        target = self.target
        how = []
        if self.authority:
            how += ["sslmode=verify-full", f"sslrootcert={AUTHORITY_FILE}"]
        elif target.sslmode:
            how.append(f"sslmode={target.sslmode}")
        user, password, database = (
            quote(word, safe="") for word in (target.user, self.password, target.database)
        )
        if target.is_cluster:
            how.append(f"target_session_attrs={LEADER}")
        if target.schema_name:
            how.append(f"options={quote(self.session_options, safe='')}")
        query = f"?{'&'.join(how)}" if how else ""
        return f"postgresql://{user}:{password}@{target.addresses}/{database}{query}"

    @property
    def session_options(self) -> str:
        """What libpq's ``options`` are to be; '' for none."""
        schema = self.target.schema_name
        return f"-csearch_path={schema}" if schema else ""

    @property
    def authority_files(self) -> dict[str, str]:
        """The file below :data:`infra.job.SECRETS` that verifying the target takes."""
        return {AUTHORITY: self.authority} if self.authority else {}

    @property
    def target_files(self) -> dict[str, str]:
        """The files by which the job reaches the target: name to content."""
        return {"target": self.dsn, **self.authority_files}


class TargetInputs(Reach):
    """Of a database of somebody else's that is looked at, and prepared for the application."""

    source: str
    target_schema: str = Field(PLANNED, alias="schema")
    application_user: str
    connections: int


class SchemaInputs(Served, Reach):
    """Of the application's own step that makes its tables."""

    cluster: str = ""
    step: ApplicationStep = Field(repr=False)


class Command(Properties):
    """What the arguments of a command that acts on both databases are made of; nothing of it is
    secret, or waits for another resource."""

    source: str
    report_directory: str
    state_directory: str
    connection_directory: str
    console: Annotated[Console | None, BeforeValidator(lambda value: value or None)] = None
    """None where there is no PgBouncer."""


class JobInputs(Served, Reach, Command):
    """What every command of the job is given."""

    strategy: str
    target_schema: str = Field(PLANNED, alias="schema")
    application_password: Secret
    console_password: Secret
    pooler_authority: str = ""
    """Whom the application trusts, and the job as PgBouncer."""
    connection: dict[str, Any]
    """How the application connects, as the job's ``--application-file`` has it."""


class MigrationInputs(JobInputs):
    """Of the copy and its verification."""

    job_digest: str
    profile: str
    """What it says: a name, or the digest of its files."""
    profile_path: str
    policy: str
    target_version: str
    proof: ApplicationStep | None = Field(None, repr=False)
    """What has to end well on a copy of the database before the certificate."""
    cluster: str = ""
    """Which data directory it fills; '' for a server of somebody else's."""


class CutoverInputs(JobInputs):
    """Of the switch and the way back."""

    mode: str
    fence_seconds: float
    one_way: tuple[str, ...]
    settle_after_hours: float
    policy: str = ""
    certificate: str = ""


class OpenedInputs(JobInputs):
    """Of what lets a fleet's applications in."""

    application: str
    """The role that reads and writes."""
    second: str
    """That which takes turns with it."""
    reader: str


class FleetInputs(OpenedInputs):
    """Of a fleet's copy and its verification; ``source`` is the manifest."""

    job_digest: str
    manifest: str
    """What it says: a digest of it, and of the files that it names beside the sources."""
    jobs: int
    cluster: str = ""
    """Which data directory it fills."""


class OpeningInputs(OpenedInputs):
    """Of the opening."""

    certificate: str = ""
