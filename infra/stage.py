"""One stage, composed: from settings to outputs.

The order in which things are made is the order of what needs what, and so the order in which they
are taken down is the reverse: the cutover goes first, and with it the application goes back.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_docker as docker

from infra import (
    backup,
    declared,
    drill,
    engine,
    example,
    gate,
    members,
    monitoring,
    servers,
    several,
    sync,
    tuning,
)
from infra.application_schema import ApplicationSchema
from infra.closed import Closed
from infra.containers import LABEL, Service, ServiceContainer, Surroundings
from infra.cutover import Cutover, WayBack
from infra.external import ExternalTarget
from infra.fleet import Fleet
from infra.fleet_opening import Opening
from infra.migration import Migration
from infra.parts import Parts, drilled, given_up, serving
from infra.roles import Roles, Server
from infra.setting_types import ApplicationStep, External
from infra.upgrading import Upgrade, UpgradeEnd


class Stage(pulumi.ComponentResource):
    """PostgreSQL, PgBouncer, the migration and the cutover of one stage."""

    def __init__(self, parts: Parts) -> None:
        super().__init__("sqlite-to-postgresql:stage:Stage", parts.stage)
        settings = parts.settings
        self._parts = parts
        self._provider = docker.Provider(
            "engine",
            host=engine.address(settings.docker_host),
            opts=pulumi.ResourceOptions(parent=self),
        )
        # The backups' cipher and the superuser's password: what is kept has to stay readable.
        kept = pulumi.ResourceOptions(parent=self, protect=settings.protect_data)
        self._closed = Closed(parts, kept, self._own())
        self.network = docker.Network(
            "network",
            name=parts.names.network,
            labels=[docker.NetworkLabelArgs(label=LABEL, value=parts.stage)],
            opts=self._docker(),
        )
        self._inputs = declared.job_inputs(parts, self._closed)
        # What the job needs to be there, in the order in which it is made.
        self._needs: list[pulumi.Resource] = []
        self._cluster: dict[str, pulumi.Output[str]] = {}
        self._data: dict[str, dict[str, pulumi.Input[str]]] = {}
        if settings.external:
            self._needs.append(self._external(settings.external))
        for server in parts.servers:
            self._needs += self._postgres(server)
        self._keep_what_is_protected()
        self._alias = self._pooler() if settings.pooler else None
        if settings.upgrade_to:
            inputs = declared.upgrade(parts, self._closed, self._inputs)
            self._needs.append(UpgradeEnd("upgrade-end", inputs, self._own(*self._needs)))
        self.migration = self._migration(self._applications())
        self.cutover = self._cutover()
        if settings.upgrade_to:
            inputs = declared.upgrade(parts, self._closed, self._inputs)
            moved = [self.migration, *([self.cutover] if self.cutover else [])]
            Upgrade("upgrade", inputs, self._own(*self._needs, *moved))
        self.register_outputs({})

    # ------------------------------------------------------------------------- options

    def _own(self, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(needs))

    def _docker(self, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=self._provider, depends_on=list(needs))

    def _volume(self, resource: str, name: str, *, protect: bool = False) -> docker.Volume:
        # A volume goes before the credentials that read it, whatever is unprotected meanwhile.
        opts = pulumi.ResourceOptions.merge(
            self._docker(self._closed.credentials), pulumi.ResourceOptions(protect=protect)
        )
        labels = [docker.VolumeLabelArgs(label=LABEL, value=self._parts.stage)]
        return docker.Volume(resource, name=name, labels=labels, opts=opts)

    def _container(self, service: Service, *needs: pulumi.Resource) -> ServiceContainer:
        around = Surroundings(self._parts.settings, self._parts.stage, self.network)
        return ServiceContainer(service, around, self._docker(*needs))

    # ------------------------------------------------------------------------ services

    def _postgres(self, parts: Parts) -> list[pulumi.Resource]:
        """A PostgreSQL of the stage's on its volume, and the roles and databases in it."""
        settings, names = parts.settings, parts.names
        mount, _ = servers.data_directory(settings.postgres_version)
        protect, backups = settings.protect_data, self._repository(parts)
        if members.of(settings, names):
            making = several.Making(self._volume, self._container, self._own)
            found = several.declare(parts, self._closed, making, backups)
            self._data[names.postgres] = {**found.seen, **backups}
            return [*found.healthy, self._roles(parts, found.ids, *found.healthy)]
        volume = self._volume(f"data{names.suffix}", f"{names.postgres}-data", protect=protect)
        data: dict[str, pulumi.Input[str]] = {mount: volume.name, **backups}
        if backups:
            sockets = self._volume(f"sockets{names.suffix}", f"{names.postgres}-sockets")
            data[backup.SOCKETS] = sockets.name
        self._data[names.postgres] = data
        made = self._container(servers.postgres(parts, self._closed, data))
        return [made.healthy, self._roles(parts, made.container.id, made.healthy)]

    def _roles(self, parts: Parts, server: pulumi.Input[str], *needs: pulumi.Resource) -> Roles:
        """The roles and databases in the PostgreSQL whose container, or containers, are named."""
        settings, names = parts.settings, parts.names
        found = Server(
            names.postgres,
            server,
            settings.docker_host,
            settings.postgres_version,
            settings.schema_name,
            parts.role_in_upgrade,
            copies=settings.proof is not None,
            members=bool(members.of(settings, names)),
        )
        verifiers = self._closed.credentials.role_verifiers()
        roles = Roles(f"roles{names.suffix}", found, names, verifiers, self._own(*needs))
        # The migration fills the first one; the newer, where it is the only one that is left.
        self._cluster = self._cluster or {"cluster": roles.cluster}
        return roles

    def _repository(self, parts: Parts) -> dict[str, pulumi.Input[str]]:
        """The volume of the backups that PostgreSQL and the backups' container share, by its path.
        It is declared as long as it is to be kept, taken to or not."""
        settings, names = parts.settings, parts.names
        if not (settings.backup or parts.keeps_backups):
            return {}
        repository = self._volume(
            f"backups{names.suffix}", f"{names.backup}s", protect=settings.protect_data
        )
        return {backup.REPOSITORY: repository.name} if settings.backup else {}

    def _keep_what_is_protected(self) -> None:
        """With `protectData` the volumes of the servers that upgrades have left for good stay."""
        settings = self._parts.settings
        if not settings.protect_data:
            return
        for names in given_up(settings, self._parts.names):
            self._volume(f"data{names.suffix}", f"{names.postgres}-data", protect=True)
            if settings.backup or self._parts.keeps_backups:
                self._volume(f"backups{names.suffix}", f"{names.backup}s", protect=True)

    def _backup(self, parts: Parts) -> list[pulumi.Resource]:
        seen = members.of(parts.settings, parts.names)
        files = servers.backup_files(parts, self._closed, backup.CONFIG, seen)
        files["pgpass"] = self._closed.password("backup").apply(lambda p: f"*:*:*:*:{p}\n")
        volumes = self._data[parts.names.postgres]
        service = backup.service(
            parts.settings,
            parts.names,
            parts.images,
            files=files,
            volumes=volumes,
            sockets=[f"{members.SOCKETS}/{one.number}" for one in seen] or [backup.SOCKETS],
        )
        made = self._container(service, *self._needs)
        return [made.container, made.healthy]

    def _drill(self, parts: Parts) -> list[pulumi.Resource]:
        """What restores the newest backup, to see that it can be."""
        names = parts.names
        home = self._volume(f"drill{names.suffix}", f"{names.drill}-copy")
        service = drill.service(parts, self._closed, self._data[names.postgres], home.name)
        made = self._container(service, *self._needs)
        return [made.container, made.healthy]

    def _external(self, external: External) -> ExternalTarget:
        kept = ("place", "container", "source", "target", "password", "authority", "schema")
        return ExternalTarget(
            "target",
            {
                **{key: self._inputs[key] for key in kept if key in self._inputs},
                "application_user": external.application_user,
                "connections": self._parts.settings.pool_max + tuning.SPARE_CONNECTIONS,
            },
            self._own(self.network),
        )

    def _pooler(self) -> docker.Volume:
        """PgBouncer; returns the volume of the application's alias."""
        alias = self._volume("alias", f"{self._parts.names.pooler}-alias")
        service = servers.pooler(self._parts, self._closed, alias.name)
        self._needs.append(self._container(service, *self._needs).healthy)
        return alias

    def _applications(self) -> list[ServiceContainer]:
        """What stands before the data moves, and so until it is back: the application's own tables
        are in the source by then."""
        parts, made = self._parts, []
        if parts.settings.example_application:
            made.append(
                example.service(
                    parts.settings,
                    parts.names,
                    parts.images.example,
                    parts.user,
                    where=parts.where,
                    binds=parts.binds,
                )
            )
        if parts.settings.gate:
            made.append(
                gate.service(
                    parts.settings.gate,
                    parts.names,
                    parts.images.gate,
                    parts.user,
                    where=parts.where,
                    socket=parts.found.socket,
                )
            )
        return [self._container(service) for service in made]

    def _monitoring(self) -> list[pulumi.Resource]:
        settings, names = serving(self._parts.settings, self._parts.names)
        watch = monitoring.Watch(
            settings=settings,
            names=names,
            images=self._parts.images,
            stage=self._parts.stage,
            monitor_password=self._closed.password("monitor"),
            authority=self._closed.authority,
            pooler_authority=self._closed.pooler_authority,
            members_authority=self._closed.members_authority,
        )
        return monitoring.create(watch, self.network, self._docker(*self._needs))

    def _sync(self, after: pulumi.Resource) -> ServiceContainer:
        alias = self._alias.name if self._alias else None
        return self._container(sync.service(self._parts, self._inputs, alias), after)

    # ------------------------------------------------------------------------- the job

    def _application_schema(self, wanted: ApplicationStep) -> ApplicationSchema:
        kept = ("place", "container", "connection_directory", "password", "authority")
        target = self._inputs["target"]
        if members.of(self._parts.settings, self._parts.names):
            # Not every application's driver knows a list of hosts.
            target = {**target, "host": self._parts.names.leader_host}
        return ApplicationSchema(
            "application-schema",
            {
                **{key: self._inputs[key] for key in kept},
                "target": target,
                **self._cluster,
                "step": pulumi.Output.secret(wanted.model_dump(mode="json")),
            },
            self._own(*self._needs),
        )

    def _migration(self, applications: list[ServiceContainer]) -> Migration | Fleet:
        if self._parts.settings.fleet:
            inputs = {**self._inputs, **declared.fleet(self._parts), **self._cluster}
            return Fleet("fleet", inputs, self._own(*self._needs))
        before: list[pulumi.Resource] = [application.healthy for application in applications]
        if wanted := self._parts.settings.schema_from:
            before.append(self._application_schema(wanted))
        return Migration(
            "migration",
            {**self._inputs, **declared.migration(self._parts), **self._cluster},
            self._own(*self._needs, *before),
        )

    def _cutover(self) -> Cutover | Opening | None:
        """The switch, and what is there before the application moves and until it is back: nothing
        of the stage is removed before the way back has succeeded."""
        parts, settings = self._parts, self._parts.settings
        offline = settings.strategy == "offline"
        beside: list[pulumi.Resource] = []
        for server in parts.servers if settings.backup else ():
            beside += self._backup(server)
            if settings.backup_drill_hours and server.names == drilled(settings, parts.names):
                beside += self._drill(server)
        if settings.monitoring:
            beside += self._monitoring()
        if not offline and settings.follows:
            # Its container alone: that it is healthy need not be waited for.
            beside.append(self._sync(self.migration).container)
        if settings.cutover == "hold":
            return None
        opts = self._own(*self._needs, self.migration, *beside)
        if settings.fleet:
            inputs = {**self._inputs, **declared.opened(parts)}
            return Opening("opening", {**inputs, "certificate": self.migration.certificate}, opts)
        inputs = {**self._inputs, **declared.cutover(self._parts)}
        certified = {**inputs, "certificate": self.migration.certificate}
        cutover = Cutover("cutover", certified, opts)
        if offline:
            # Before the sync that is only there from the switch on.
            made = self._sync(cutover) if settings.follows else None
            last = [made.container, made.healthy] if made else []
            WayBack("way-back", inputs, self._own(cutover, *last))
        return cutover

    # ------------------------------------------------------------------------- outputs

    def outputs(self) -> dict[str, pulumi.Input[Any]]:
        """What the operator reads after ``pulumi up``."""
        settings, connection = self._parts.settings, self._inputs["connection"]
        served, _ = serving(settings, self._parts.names)
        return {
            **{name: connection[name] for name in ("host", "port", "database", "user")},
            "password": self._inputs["application_password"],
            **({} if settings.external else {"postgresPort": served.postgres_port}),
            "phase": self.cutover.phase if self.cutover else self.migration.phase,
            **(
                {"files": self.migration.files}
                if isinstance(self.migration, Fleet)
                else {"tables": self.migration.tables}
            ),
            "rows": self.migration.rows,
            "certificate": self.migration.certificate,
            "report": self.migration.report,
            "connection": str(self._parts.where.connection),
        }
