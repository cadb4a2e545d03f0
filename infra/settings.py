"""A stage's settings: typed, documented, and refused before anything is created.

They come from the stage file ``Pulumi.<stage>.yaml`` (keys ``sqlite-to-postgresql:<name>``). Every
field's description is the reference's text. A key that is not here is refused with the nearest
that is, since a misspelt limit that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from infra import parameters, tuning
from infra.errors import StageError
from infra.setting_fields import OperatedSettings
from infra.setting_types import SEVERAL, UNITS
from migration_job.errors import InputError
from migration_job.hosts import is_list
from migration_job.place import require_schema_name

PROJECT = "sqlite-to-postgresql"

SILENT_SINCE = 15
"""From this version on the owner's role can be granted session_replication_role."""


PATRONIS = frozenset(
    {
        "hot_standby",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "recovery_min_apply_delay",
        "synchronous_commit",
        "synchronous_standby_names",
        "synchronized_standby_slots",
        "wal_level",
        "wal_log_hints",
    }
)
"""Settings that are not the stage file's where PostgreSQL runs on several servers."""


OF_ONE_FILE = {
    "profile": "the manifest says it",
    "policy": "the manifest names its file",
    "time_zone": "the manifest's policy says it as `zone`",
    "target_schema": "the job makes a fleet's tables",
    "schema_from": "the job makes a fleet's tables",
    "schema_name": "the manifest says which schemas, by `name`",
    "proof": "it is run on one file's copy",
    "one_way_tables": "a fleet's files are not followed",
    "example_application": "it follows one file",
    "gate": "it stands before one application",
    "target": "run `migration-job fleet` against a database of your own by hand",
    "postgres_members": "not with several servers yet",
    "upgrade_to": "not yet",
}
"""Settings that do not go with `fleet`, and why, or where else it is said."""


class Settings(OperatedSettings):
    """Everything that a stage file may say, with what holds where it says nothing."""

    def _fleet_together(self) -> None:
        if bool(self.source) == bool(self.fleet):
            raise ValueError(
                f"expected one of `source` and `fleet`, found {'both' if self.fleet else 'neither'}"
                ": a stage moves one SQLite file, or those of a manifest"
            )
        if not self.fleet:
            return
        if self.strategy != "offline":
            raise ValueError(
                f"fleet goes with strategy: offline, found {self.strategy}: a stage moves the "
                "files of a fleet while their applications stand still; for files that stay in "
                "use run `migration-job fleet` and `fleet-sync` by hand (docs/how-to/fleet-live.md)"
            )
        if self.cutover not in ("switch", "hold"):
            raise ValueError(f"fleet goes with cutover: switch or hold, found {self.cutover}")
        fields = type(self).model_fields
        ours = [
            f"{fields[name].alias} ({why})"
            for name, why in OF_ONE_FILE.items()
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]
        if ours:
            raise ValueError(f"fleet does not go with {', '.join(ours)}: leave it out")

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
                "external its operator backs it up and watches it"
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
        try:
            require_schema_name(self.schema_name)
        except InputError:
            raise ValueError(
                f"schemaName: {self.schema_name} is a name that PostgreSQL or the job keeps for "
                "itself"
            ) from None
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

    def _connection_together(self) -> None:
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

    def _containers_together(self) -> None:
        if self.backup and self.delete_backups:
            raise ValueError("deleteBackups goes with backup: false alone")
        if self.backup_drill_hours and not self.backup:
            raise ValueError("backupDrillHours goes with backup: true")
        if self.postgres_image and (self.image_source == "build" or self.external):
            raise ValueError(
                "postgresImage is an image to pull: it goes with neither `imageSource: build` "
                "nor an external database"
            )
        if self.postgres_memory < UNITS["MB"] * 256:
            raise ValueError("postgresMemory must be at least 256MB")
        if self.postgres_tuning == "strategy" and self.postgres_memory < tuning.DEFAULT_MEMORY:
            raise ValueError(
                "`postgresTuning: strategy` is for a postgresMemory of at least 1GB: it plans with "
                "a cache of that size"
            )
        if self.pooler_memory < UNITS["MB"] * 32 or self.job_memory < UNITS["MB"] * 128:
            raise ValueError("poolerMemory must be at least 32MB and jobMemory at least 128MB")

    def _upgrade_together(self) -> None:
        if self.upgrade_to is None:
            if self.upgrade_step != "move" or self.upgrades_settled:
                raise ValueError("upgradeStep and upgradesSettled go with upgradeTo")
            return
        if self.external:
            raise ValueError(
                "upgradeTo is for a PostgreSQL of the stage's own; between two servers of your own "
                "`migration-job upgrade` moves (docs/how-to/upgrade-servers.md)"
            )
        versions = [self.postgres_version, *self.upgrades_settled, self.upgrade_to]
        if versions != sorted(set(versions)):
            before = "upgradesSettled" if self.upgrades_settled else "postgresVersion"
            raise ValueError(
                f"upgradeTo ({self.upgrade_to}) must be above {before} ({self.version_before})"
                + (", which rise from postgresVersion" if self.upgrades_settled else "")
            )
        if self.cutover == "reads":
            raise ValueError("upgradeTo goes with cutover: switch, hold or settled")
        if self.postgres_image:
            raise ValueError(
                "upgradeTo does not go with postgresImage, which is of one version: remove that "
                "and run `make up` first, which restarts PostgreSQL once"
            )
        parameters.check(self.upgrade_to, self.postgresql_settings)

    def _members_together(self) -> None:
        if self.postgres_members == 1:
            return
        if self.postgres_members != SEVERAL:
            raise ValueError(
                f"postgresMembers must be 1 or {SEVERAL}: of two servers neither may go on alone"
            )
        if self.external:
            raise ValueError(
                "postgresMembers is for a PostgreSQL of the stage's own; one of somebody else's "
                "is given as a list of hosts in external.host"
            )
        if self.upgrade_to:
            raise ValueError(
                "upgradeTo does not go with postgresMembers: 3 yet; a stage that is made again has "
                "the newer version (docs/how-to/stand-by.md)"
            )
        if self.backup_drill_hours or self.proof:
            raise ValueError(
                "backupDrillHours and proof do not go with postgresMembers: 3 yet; `make restore` "
                "is the drill by hand"
            )
        ours = sorted(name for name in self.postgresql_settings if name in PATRONIS)
        if ours:
            raise ValueError(
                f"postgresqlSettings: {', '.join(ours)} cannot be set with postgresMembers: "
                f"{SEVERAL}: Patroni decides it, or a failover would lose commits"
            )

    @model_validator(mode="after")
    def _together(self) -> Settings:
        self._fleet_together()
        self._connection_together()
        self._upgrade_together()
        self._members_together()
        self._external_together()
        self._schema_together()
        self._containers_together()
        parameters.check(self.postgres_version, self.postgresql_settings)
        return self

    @property
    def version_before(self) -> int:
        """The major version that `upgradeTo` begins from, and the stage's where there is none."""
        return (self.postgres_version, *self.upgrades_settled)[-1]

    def ports(self) -> dict[str, int]:
        """The ports that the stage takes on its host, by their settings."""
        ports = {"postgresPort": self.postgres_port, "poolerPort": self.pooler_port}
        if self.example_application:
            ports["examplePort"] = self.example_port
        if self.upgrade_to:
            ports["upgradePort"] = self.upgrade_port
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
