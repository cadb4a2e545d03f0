"""One stage, composed: from settings to outputs.

The order in which things are made is the order of what needs what, and so the order in which they
are taken down is the reverse: the cutover goes first, and with it the application goes back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker
import yaml

from infra import backup, engine, example, gate, job, live, monitoring, rendering, tuning
from infra.application_schema import ApplicationSchema
from infra.certificates import Certificates, certified_names
from infra.containers import LABEL, Health, Service, ServiceContainer
from infra.credentials import Credentials
from infra.cutover import Cutover, WayBack
from infra.errors import StageError
from infra.external import ExternalTarget
from infra.images import ROOT, Images
from infra.job import Place
from infra.migration import Migration
from infra.names import Names
from infra.roles import Roles
from infra.setting_types import External, Gate, SchemaFrom
from infra.settings import Settings
from infra.stage_paths import Paths
from migration_job.log_format import VARIABLE as LOG_FORMAT

POSTGRES_USER = "999:999"
POOLER_USER = "998:998"
POSTGRES_PORT = 5432
POOLER_PORT = 6432

BUILT_IN_PROFILES = ("none", "radcase")


@dataclass(frozen=True)
class Found:
    """What the engine has that the stage is made with."""

    socket: gate.EngineSocket | None = None
    """The engine's own, for a gate that starts the application anew."""
    backups: bool = False
    """Whether there is a volume of backups."""


class Stage(pulumi.ComponentResource):
    """PostgreSQL, PgBouncer, the migration and the cutover of one stage."""

    def __init__(
        self,
        settings: Settings,
        names: Names,
        images: Images,
        where: Paths,
        user: str,
        found: Found,
    ) -> None:
        super().__init__("sqlite-to-postgresql:stage:Stage", names.stack)
        self._settings = settings
        self._names = names
        self._images = images
        self._paths = where
        self._user = user
        self._stage = names.stack
        self._keeps_backups = found.backups and not (settings.backup or settings.delete_backups)
        self._provider = docker.Provider(
            "engine",
            host=engine.address(settings.docker_host),
            opts=pulumi.ResourceOptions(parent=self),
        )
        # The backups' cipher and the superuser's password: what is kept has to stay readable.
        kept = pulumi.ResourceOptions(parent=self, protect=settings.protect_data)
        self.credentials = Credentials("credentials", settings.credentials_version, kept)
        self.certificates = self._certificates() if settings.tls != "off" else None
        self.network = docker.Network(
            "network",
            name=names.network,
            labels=[docker.NetworkLabelArgs(label=LABEL, value=self._stage)],
            opts=self._docker(),
        )
        # What the job needs to be there, in the order in which it is made.
        self._needs: list[pulumi.Resource] = []
        if settings.external:
            self._needs.append(self._external(settings.external))
        else:
            postgres = self._postgres()
            self._needs.append(postgres.healthy)
            self._roles_there = self._roles(postgres)
            self._needs.append(self._roles_there)
        self.alias = self._volume("alias", f"{names.pooler}-alias") if settings.pooler else None
        if self.alias is not None:
            self._needs.append(self._pooler(self.alias).healthy)
        # What stands before the data moves, and so until it is back.
        self._applications: list[ServiceContainer] = []
        if settings.example_application:
            self._applications.append(self._example())
        if settings.gate:
            self._applications.append(self._gate(settings.gate, found.socket))
        self.migration = self._migration()
        # What is there before the application moves, and until it is back: nothing of the stage is
        # removed before the way back has succeeded.
        beside = self._backup() if settings.backup else []
        if settings.monitoring:
            beside += self._monitoring()
        if settings.strategy != "offline" and settings.follows:
            # Its container alone: that it is healthy need not be waited for.
            beside.append(self._sync(self.migration).container)
        self.cutover = self._cutover(beside) if settings.cutover != "hold" else None
        if settings.strategy == "offline" and self.cutover:
            sync = self._sync(self.cutover) if settings.follows else None
            self._way_back(self.cutover, [sync.container, sync.healthy] if sync else [])
        self.register_outputs({})

    # ------------------------------------------------------------------------- options

    def _own(self, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(needs))

    def _docker(self, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=self._provider, depends_on=list(needs))

    def _volume(self, resource: str, name: str, *, protect: bool = False) -> docker.Volume:
        # A volume goes before the credentials that read it, whatever is unprotected meanwhile.
        opts = pulumi.ResourceOptions.merge(
            self._docker(self.credentials), pulumi.ResourceOptions(protect=protect)
        )
        labels = [docker.VolumeLabelArgs(label=LABEL, value=self._stage)]
        return docker.Volume(resource, name=name, labels=labels, opts=opts)

    # ------------------------------------------------------------------------ services

    def _postgres(self) -> ServiceContainer:
        settings, names = self._settings, self._names
        mount, data = data_directory(settings.postgres_version)
        volume = self._volume("data", f"{names.postgres}-data", protect=settings.protect_data)
        shared = self._backup_volumes()
        if self._keeps_backups:
            self._repository()
        service = Service(
            name=names.postgres,
            host=names.postgres_host,
            image=self._images.postgres,
            user=POSTGRES_USER,
            memory=settings.postgres_memory,
            cpus=settings.postgres_cpus,
            shared_memory=tuning.shared_memory(rendering.host_of(settings)),
            health=Health(
                ["pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"]
            ),
            config_directory=rendering.POSTGRES_CONFIG,
            files={
                "postgresql.conf": rendering.postgresql_conf(
                    settings, self._stage, backup.archiving() if settings.backup else ()
                ),
                "pg_hba.conf": rendering.pg_hba_conf(settings, self._stage),
                "superuser-password": self.credentials.password("superuser"),
                **self._tls_files("postgres"),
                **self._backup_files(data, rendering.POSTGRES_CONFIG),
            },
            command=[
                "postgres",
                "-c",
                f"config_file={rendering.POSTGRES_CONFIG}/postgresql.conf",
            ],
            environment={
                "PGDATA": data,
                "POSTGRES_USER": "postgres",
                "POSTGRES_PASSWORD_FILE": f"{rendering.POSTGRES_CONFIG}/superuser-password",
                # Order is bytes': SQLite's BINARY order, and text is indexed in half the time.
                "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --lc-collate=C "
                "--data-checksums --auth-local=scram-sha-256 --auth-host=scram-sha-256",
            },
            ports={POSTGRES_PORT: settings.postgres_port},
            volumes={mount: volume.name, **shared},
            temporary={
                "/tmp": "mode=1777",  # noqa: S108 - the container's own
                **({} if shared else {backup.SOCKETS: "uid=999,gid=999,mode=2775"}),
            },
            stop_seconds=60,
            open_files=8192,
        )
        postgres = ServiceContainer(service, settings, self._stage, self.network, self._docker())
        self._data = {mount: volume.name, **shared}
        return postgres

    def _backup_volumes(self) -> dict[str, pulumi.Output[str]]:
        """What PostgreSQL and the backups' container share beside the data, by path."""
        if not self._settings.backup:
            return {}
        repository = self._repository()
        sockets = self._volume("sockets", f"{self._names.postgres}-sockets")
        return {backup.REPOSITORY: repository.name, backup.SOCKETS: sockets.name}

    def _repository(self) -> docker.Volume:
        """The backups' volume; declared as long as it is to be kept, taken to or not."""
        protect = self._settings.protect_data
        return self._volume("backups", f"{self._names.backup}s", protect=protect)

    def _backup_files(self, data: str, directory: str) -> dict[str, pulumi.Input[str]]:
        """What pgBackRest reads in the container that has it in ``directory``."""
        settings = self._settings
        if not settings.backup:
            return {}
        conf = self.credentials.password("backup_cipher").apply(
            lambda cipher: backup.configuration(
                settings, self._names, self._stage, data=data, directory=directory, cipher=cipher
            )
        )
        files: dict[str, pulumi.Input[str]] = {"pgbackrest.conf": conf}
        if settings.backup_s3 and settings.backup_s3.authority:
            files[backup.STORE_AUTHORITY] = _given(settings.backup_s3.authority)
        return files

    def _backup(self) -> list[pulumi.Resource]:
        _, data = data_directory(self._settings.postgres_version)
        password = self.credentials.password("backup")
        files = self._backup_files(data, backup.CONFIG)
        files["pgpass"] = password.apply(lambda p: f"*:*:*:*:{p}\n")
        service = backup.service(
            self._settings, self._names, self._images, files=files, volumes=self._data
        )
        opts = self._docker(*self._needs)
        made = ServiceContainer(service, self._settings, self._stage, self.network, opts)
        return [made.container, made.healthy]

    def _certificates(self) -> Certificates:
        return Certificates(
            "certificates",
            stage=self._stage,
            names=certified_names(self._settings, self._names),
            version=1,
            opts=self._own(),
        )

    def _tls_files(self, server: str) -> dict[str, pulumi.Input[str]]:
        """``tls.crt``, ``tls.key`` and ``ca.crt``, the authority that the server trusts in turn."""
        if self.certificates is None:
            return {}
        files: dict[str, pulumi.Input[str]] = {**self.certificates.files(server)}
        if server == "pgbouncer" and self._settings.tls == "given":
            files["tls.crt"] = _given(self._settings.tls_certificate)
            files["tls.key"] = pulumi.Output.secret(_given(self._settings.tls_key))
        return files

    def _pooler_authority(self) -> pulumi.Input[str] | None:
        """Whom the pooler's clients are to trust; None without TLS."""
        if self.certificates is None:
            return None
        if self._settings.tls == "given":
            return _given(self._settings.tls_authority)
        return self.certificates.authority

    def _roles(self, postgres: ServiceContainer) -> Roles:
        return Roles(
            "roles",
            container=self._names.postgres,
            server=postgres.container.id,
            docker_host=self._settings.docker_host,
            names=self._names,
            verifiers=self.credentials.role_verifiers(),
            version=self._settings.postgres_version,
            opts=self._own(postgres.healthy),
        )

    def _external(self, external: External) -> ExternalTarget:
        return ExternalTarget(
            "target",
            place=self._place(),
            inputs=self._job_inputs(),
            application_user=external.application_user,
            connections=self._settings.pool_max + tuning.SPARE_CONNECTIONS,
            opts=self._own(self.network),
        )

    def _pooler_users(self) -> pulumi.Output[str]:
        """userlist.txt. PgBouncer logs in by it: to look the other roles' passwords up, or as the
        application where PostgreSQL is somebody else's."""
        names, external = self._names, self._settings.external
        return pulumi.Output.all(self.credentials.passwords, self.credentials.verifiers).apply(
            lambda found: rendering.userlist(
                [
                    (external.application_user, external.application_password)
                    if external
                    else (names.pooler_role, found[0]["pooler"]),
                    (names.pooler_admin, found[1]["pooler_admin"]),
                ]
            )
        )

    def _pooler_files(self) -> dict[str, pulumi.Input[str]]:
        settings = self._settings
        files: dict[str, pulumi.Input[str]] = {
            "pgbouncer.ini": rendering.pgbouncer_ini(settings, self._names, self._stage),
            "userlist.txt": self._pooler_users(),
            **self._tls_files("pgbouncer"),
        }
        if settings.external and settings.external.authority:
            files[rendering.SERVER_AUTHORITY] = _given(settings.external.authority)
        return files

    def _pooler(self, alias: docker.Volume) -> ServiceContainer:
        settings, names = self._settings, self._names
        service = Service(
            name=names.pooler,
            host=names.pooler_host,
            image=self._images.pooler,
            user=POOLER_USER,
            memory=settings.pooler_memory,
            health=Health(
                [
                    *("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(POOLER_PORT)),
                    # A role of userlist.txt: another would be looked up in PostgreSQL.
                    *("-d", "pgbouncer", "-U", names.pooler_admin),
                ],
                start_seconds=20,
            ),
            config_directory=rendering.POOLER_CONFIG,
            files=self._pooler_files(),
            ports={POOLER_PORT: settings.pooler_port},
            volumes={rendering.ALIAS_DIRECTORY: alias.name},
            temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
            pids=64,
            open_files=settings.pool_clients + settings.pool_max * 10 + 256,
        )
        opts = self._docker(*self._needs)
        return ServiceContainer(service, settings, self._stage, self.network, opts)

    def _example(self) -> ServiceContainer:
        """Before the migration, so that the application's own tables are in the source by then."""
        service = example.service(
            self._settings,
            self._names,
            self._images.example,
            self._user,
            source=self._paths.source,
            connection=self._paths.connection,
            binds=self._binds(),
        )
        opts = self._docker()
        return ServiceContainer(service, self._settings, self._stage, self.network, opts)

    def _gate(self, wanted: Gate, socket: gate.EngineSocket | None) -> ServiceContainer:
        service = gate.service(
            wanted,
            self._names,
            self._images.gate,
            self._user,
            state=self._paths.job,
            connection=self._paths.connection,
            socket=socket,
        )
        opts = self._docker()
        return ServiceContainer(service, self._settings, self._stage, self.network, opts)

    def _monitoring(self) -> list[pulumi.Resource]:
        watch = monitoring.Watch(
            settings=self._settings,
            names=self._names,
            images=self._images,
            stage=self._stage,
            monitor_password=self.credentials.password("monitor"),
            authority=self.certificates.authority if self.certificates else None,
            pooler_authority=self._pooler_authority(),
        )
        return monitoring.create(watch, self.network, self._docker(*self._needs))

    # ------------------------------------------------------------------------- the job

    def _place(self) -> Place:
        settings = self._settings
        own = settings.profile not in BUILT_IN_PROFILES
        return Place(
            docker_host=settings.docker_host,
            image=self._images.job,
            network=self._names.network,
            user=self._user,
            memory=settings.job_memory,
            log_size=settings.log_size,
            log_files=settings.log_files,
            binds=self._binds(),
            read_only=(str(profile_file(settings.profile).parent),) if own else (),
            volumes={f"{self._names.pooler}-alias": rendering.ALIAS_DIRECTORY}
            if settings.pooler
            else {},
            stage=self._stage,
        )

    def _binds(self) -> tuple[str, ...]:
        ours = {str(self._paths.state)}
        return tuple(sorted(ours if self._settings.settled else {*ours, self._source_directory()}))

    def _source_directory(self) -> str:
        return str(self._paths.source.parent)

    def _job_inputs(self) -> dict[str, Any]:
        """What every command of the job is given."""
        settings, names = self._settings, self._names
        pool = {
            "max": settings.pool_max,
            "min": settings.pool_min,
            "idle_timeout": settings.pool_idle_seconds * 1000,
            "connection_timeout": settings.pool_connect_seconds * 1000,
        }
        given = self._given_target(settings.external) if settings.external else self._own_target()
        console = {"host": names.pooler_host, "port": POOLER_PORT, "user": names.pooler_admin}
        return {
            "container": names.job,
            "source": str(self._paths.source),
            "strategy": settings.strategy,
            "report_directory": str(self._paths.report),
            "state_directory": str(self._paths.job),
            "connection_directory": str(self._paths.connection),
            # Said where it is so: nobody else's stage changes.
            **({"schema": settings.target_schema} if settings.target_schema != "planned" else {}),
            "console": console if settings.pooler else {},
            "console_password": self.credentials.password("pooler_admin"),
            **given,
            "connection": {**given["connection"], "pool": pool},
        }

    def _own_target(self) -> dict[str, Any]:
        """How the job and the application reach the stage's own PostgreSQL."""
        settings, names = self._settings, self._names
        return {
            "target": {
                "host": names.postgres_host,
                "port": POSTGRES_PORT,
                "database": names.database,
                "user": names.migration_role,
            },
            "password": self.credentials.password("migration"),
            "application_password": self.credentials.application(),
            "authority": self.certificates.authority if self.certificates else "",
            "pooler_authority": self._pooler_authority() or "",
            "connection": {
                **self._pooler_address(),
                "user": names.serving_role(settings.credentials_version),
                "server": {"host": names.postgres_host, "port": POSTGRES_PORT},
            },
        }

    def _given_target(self, external: External) -> dict[str, Any]:
        """How they reach a PostgreSQL of somebody else's, by PgBouncer or directly."""
        server = {"host": external.host, "port": external.port, "database": external.database}
        authority = _given(external.authority) if external.authority else ""
        connection: dict[str, Any] = {"user": external.application_user}
        if self._settings.pooler:
            leader = server
            if external.pooler_host:
                leader = {**server, "host": external.pooler_host, "port": external.pooler_port}
            connection |= {**self._pooler_address(), "server": leader}
        else:
            connection |= server
            if external.sslmode == "require":
                connection["tls"] = {"mode": "require"}
        target = {**server, "user": external.user, "sslmode": external.sslmode}
        if external.accept_asynchronous:  # said where it is so: nobody else's stage changes
            target["accept_asynchronous"] = True
        if external.accept_collation:
            target["accept_collation"] = True
        return {
            "target": target,
            "password": pulumi.Output.secret(external.password),
            "application_password": pulumi.Output.secret(external.application_password),
            "authority": authority,
            "pooler_authority": self._pooler_authority() or ""
            if self._settings.pooler
            else authority,
            "connection": connection,
        }

    def _pooler_address(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "host": settings.connection_host or settings.bind_address,
            "port": settings.pooler_port,
            "database": self._names.database,
        }

    def _application_schema(self, wanted: SchemaFrom) -> ApplicationSchema:
        return ApplicationSchema(
            "application-schema",
            place=self._place(),
            inputs={
                **self._job_inputs(),
                **({} if self._settings.external else {"cluster": self._roles_there.cluster}),
            },
            step=wanted,
            opts=self._own(*self._needs),
        )

    def _migration(self) -> Migration:
        settings = self._settings
        before: list[pulumi.Resource] = [application.healthy for application in self._applications]
        if settings.schema_from:
            before.append(self._application_schema(settings.schema_from))
        own = settings.profile not in BUILT_IN_PROFILES
        return Migration(
            "migration",
            place=self._place(),
            inputs={
                **self._job_inputs(),
                "job_digest": self._images.job_digest,
                "profile": profile_digest(settings.profile),
                "profile_path": str(profile_file(settings.profile)) if own else settings.profile,
                "policy": _policy(settings),
                "target_version": str(settings.postgres_version),
                **({} if settings.external else {"cluster": self._roles_there.cluster}),
            },
            opts=self._own(*self._needs, *before),
        )

    def _cutover(self, beside: list[pulumi.Resource]) -> Cutover:
        return Cutover(
            "cutover",
            place=self._place(),
            inputs=self._cutover_inputs(),
            certificate=self.migration.certificate,
            opts=self._own(*self._needs, self.migration, *beside),
        )

    def _cutover_inputs(self) -> dict[str, Any]:
        settings = self._settings
        return {
            **self._job_inputs(),
            "mode": settings.cutover,
            "fence_seconds": settings.fence_seconds,
            "one_way": list(settings.one_way_tables),
            "policy": _policy(settings),
            "settle_after_hours": settings.settle_after_hours,
        }

    def _way_back(self, cutover: Cutover, sync: list[pulumi.Resource]) -> None:
        """Before the sync that is only there from the switch on."""
        WayBack(
            "way-back",
            place=self._place(),
            inputs=self._cutover_inputs(),
            opts=self._own(cutover, *sync),
        )

    def _sync(self, after: pulumi.Resource) -> ServiceContainer:
        """The container that keeps the side current that does not serve."""
        settings, inputs = self._settings, self._job_inputs()
        found: pulumi.Output[dict[str, str]] = pulumi.Output.all(**inputs).apply(live.secrets)
        files: pulumi.Output[dict[str, str]] = pulumi.Output.secret(found)
        root = self._user.partition(":")[0] == "0"
        heartbeat = self._paths.job / "sync.json"
        service = Service(
            name=self._names.sync,
            host="sync",
            image=self._images.job,
            user=self._user,
            memory=settings.job_memory,
            health=Health(
                ["bash", "-c", f"test -n \"$(find '{heartbeat}' -newermt '-30 seconds')\""],
                interval_seconds=10,
            ),
            config_directory=job.SECRETS,
            files=files,
            command=[
                *live.arguments("sync", inputs),
                *("--metrics-port", str(monitoring.SYNC_METRICS_PORT)),
            ],
            environment={LOG_FORMAT: "json"},
            binds=self._binds(),
            capabilities=job.ROOT_CAPABILITIES if root else (),
            volumes={rendering.ALIAS_DIRECTORY: self.alias.name} if self.alias else {},
            temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
            pids=job.PIDS,
        )
        opts = self._docker(after)
        return ServiceContainer(service, settings, self._stage, self.network, opts)

    # ------------------------------------------------------------------------- outputs

    def outputs(self) -> dict[str, pulumi.Input[Any]]:
        """What the operator reads after ``pulumi up``."""
        inputs = self._job_inputs()
        connection = inputs["connection"]
        return {
            **{name: connection[name] for name in ("host", "port", "database", "user")},
            "password": inputs["application_password"],
            **({} if self._settings.external else {"postgresPort": self._settings.postgres_port}),
            "phase": self.cutover.phase if self.cutover else self.migration.phase,
            "tables": self.migration.tables,
            "rows": self.migration.rows,
            "certificate": self.migration.certificate,
            "report": self.migration.report,
            "connection": str(self._paths.connection),
        }


def _given(path: str) -> str:
    """A file of the operator's. StageError where it cannot be read."""
    try:
        return (ROOT / path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(
            f"expected the PEM file {path}, found none to read: {type(error).__name__}",
            advice="name a file that you may read, absolute or relative to the project's directory",
        ) from error


def data_directory(version: int) -> tuple[str, str]:
    """Where the data volume is mounted and PGDATA, as the official image of that version wants it:
    from 18 on it keeps all of /var/lib/postgresql in one volume."""
    if version >= 18:
        return "/var/lib/postgresql", f"/var/lib/postgresql/{version}/docker"
    return "/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"


def _policy(settings: Settings) -> str:
    """The job's policy file, '' where the settings add nothing to the profile's own."""
    policy = dict(settings.policy)
    if settings.time_zone != "UTC":
        policy.setdefault("zone", settings.time_zone)
    return yaml.safe_dump(policy) if policy else ""


def profile_file(profile: str) -> Path:
    """The ``profile.yaml`` of a profile of the operator's own."""
    return (ROOT / profile).resolve()


def profile_digest(profile: str) -> str:
    """What makes a profile another profile: its name, or the content of its YAML and SQL files."""
    if profile in BUILT_IN_PROFILES:
        return profile
    file = profile_file(profile)
    try:
        contents = [path.read_bytes() for path in (file, *sorted(file.parent.glob("*.sql")))]
    except OSError as error:
        raise StageError(
            f"expected the profile {profile}, found none to read: {error.strerror}",
            advice="set `profile` to radcase, none, or the path of a profile.yaml",
        ) from error
    digests = (hashlib.sha256(content).digest() for content in contents)
    return hashlib.sha256(b"".join(digests)).hexdigest()
