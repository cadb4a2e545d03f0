"""Prometheus with its exporters and Alertmanager, and the panels: Grafana's or the light page's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_docker as docker

from infra import grafana, members, rendering
from infra.containers import LABEL, MEBIBYTE, Health, Service, ServiceContainer, Surroundings
from infra.images import Images
from infra.names import Names
from infra.settings import Settings
from migration_job.log_format import VARIABLE as LOG_FORMAT

NOBODY = "65534:65534"
GRAFANA_USER = "472:0"
PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
GRAFANA_PORT = 3000
PAGE_PORT = 8090
SYNC_METRICS_PORT = 9855
BACKUP_METRICS_PORT = 9854
DRILL_METRICS_PORT = 9856

SCRAPE_SECONDS = 15
RETENTION = "15d"
CONNECTIONS_RATIO = 0.85
DISK_RATIO = 0.8
LAG_SECONDS = 60
MEMBER_LAG_BYTES = 256 * MEBIBYTE
WINDOW_WARNING_SECONDS = 6 * 3600
BACKUP_GRACE_HOURS = 2
"""How much later than its schedule a backup may be before it is called late, and a drill."""


@dataclass(frozen=True)
class Watch:
    """What monitoring needs to know of its stage."""

    settings: Settings
    names: Names
    images: Images
    stage: str
    monitor_password: pulumi.Input[str]
    authority: pulumi.Input[str] | None = None
    """The certificate authority of PostgreSQL, PEM, where it speaks TLS."""
    pooler_authority: pulumi.Input[str] | None = None
    """That of PgBouncer: the same, or the operator's own."""
    members_authority: pulumi.Input[str] | None = None
    """That of the members, where PostgreSQL runs on several servers."""

    @property
    def members(self) -> list[members.Member]:
        """The members of PostgreSQL; none where it is one server."""
        return members.of(self.settings, self.names)


def services(watch: Watch, data: Mapping[str, pulumi.Input[str]]) -> list[Service]:
    """The containers of a watched stage. ``data`` names the volumes of ``prometheus`` and
    ``alertmanager``."""
    panels = _grafana(watch) if watch.images.grafana else _page(watch)
    return [
        _postgres_exporter(watch),
        _pooler_exporter(watch),
        _prometheus(watch, data["prometheus"]),
        _alertmanager(watch, data["alertmanager"]),
        panels,
    ]


def _answers(port: int) -> Health:
    """The image holds no HTTP client; bash opens the port itself."""
    return Health(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], start_seconds=30)


def _service(watch: Watch, host: str, **more: Any) -> Service:
    return Service(
        **{
            "name": f"{watch.names.prefix}-{host}",
            "host": host,
            "image": watch.images.monitoring,
            "user": NOBODY,
            "memory": 64 * MEBIBYTE,
            "pids": 64,
            "config_directory": "/etc/watch",
            "files": {},
            **more,
        }
    )


def _exporter(
    watch: Watch,
    host: str,
    port: int,
    authority: pulumi.Input[str] | None,
    more: Mapping[str, Any],
) -> Service:
    files = dict(more.get("files", {}))
    if authority is not None:
        files["ca.crt"] = authority
    return _service(watch, host, health=_answers(port), **{**more, "files": files})


def _tls(mode: str, authority: pulumi.Input[str] | None) -> str:
    if authority is None:
        return "sslmode=disable"
    return f"sslmode={mode}&sslrootcert=/etc/watch/ca.crt"


def _postgres_exporter(watch: Watch) -> Service:
    tls = _tls("verify-full", watch.authority)
    names = watch.names
    host = names.leader_host if watch.members else names.postgres_host
    return _exporter(
        watch,
        "postgres-exporter",
        9187,
        watch.authority,
        {
            "command": ["prometheus-postgres-exporter", "--no-collector.wal"],
            "files": {"password": watch.monitor_password},
            "environment": {
                "DATA_SOURCE_URI": f"{host}:5432/postgres?{tls}",
                "DATA_SOURCE_USER": watch.names.monitor_role,
                "DATA_SOURCE_PASS_FILE": "/etc/watch/password",
            },
        },
    )


def _pooler_exporter(watch: Watch) -> Service:
    user, host = watch.names.monitor_role, watch.names.pooler_host
    # A certificate of the operator's own does not bear the pooler's name inside the stage.
    mode = "verify-ca" if watch.settings.tls == "given" else "verify-full"
    line = pulumi.Output.from_input(watch.monitor_password).apply(lambda p: f"*:*:*:{user}:{p}\n")
    return _exporter(
        watch,
        "pgbouncer-exporter",
        9127,
        watch.pooler_authority,
        {
            "command": [
                "prometheus-pgbouncer-exporter",
                f"--pgBouncer.connectionString=postgres://{user}@{host}:6432/pgbouncer?"
                + _tls(mode, watch.pooler_authority),
                "--pgBouncer.pid-file=",
            ],
            "files": {"pgpass": line},
            "environment": {"PGPASSFILE": "/etc/watch/pgpass"},
        },
    )


def _prometheus(watch: Watch, volume: pulumi.Input[str]) -> Service:
    settings = watch.settings
    targets = {
        "postgres": "postgres-exporter:9187",
        "pgbouncer": "pgbouncer-exporter:9127",
    }
    if settings.follows:
        targets["migration"] = f"sync:{SYNC_METRICS_PORT}"
    if settings.backup:
        targets["backup"] = f"{watch.names.backup_host}:{BACKUP_METRICS_PORT}"
    if settings.backup_drill_hours:
        targets["drill"] = f"{watch.names.drill_host}:{DRILL_METRICS_PORT}"
    authority = watch.members_authority
    return _service(
        watch,
        "prometheus",
        memory=256 * MEBIBYTE,
        pids=256,
        health=_answers(PROMETHEUS_PORT),
        config_directory="/etc/prometheus",
        files={
            "prometheus.yml": rendering.render(
                "prometheus.yml.j2",
                stage=watch.stage,
                scrape_seconds=SCRAPE_SECONDS,
                alertmanager="alertmanager",
                targets=targets,
                members=[f"{one.host}:{members.API_PORT}" for one in watch.members],
                etcd=[f"{one.etcd_host}:{members.ETCD_METRICS_PORT}" for one in watch.members],
                members_authority="/etc/prometheus/members-ca.crt",
            ),
            **({} if authority is None else {"members-ca.crt": authority}),
            "alerts.yml": rendering.render(
                "alerts.yml.j2",
                stage=watch.stage,
                connections_ratio=CONNECTIONS_RATIO,
                disk_bytes=settings.disk,
                disk_ratio=DISK_RATIO,
                lag_seconds=LAG_SECONDS,
                window_warning_seconds=WINDOW_WARNING_SECONDS,
                follows=settings.follows,
                backup=settings.backup,
                members=len(watch.members),
                member_lag_bytes=MEMBER_LAG_BYTES,
                backup_late_seconds=3600
                * (settings.backup_differential_hours + BACKUP_GRACE_HOURS),
                drill=settings.backup_drill_hours > 0,
                drill_late_seconds=3600 * (settings.backup_drill_hours + BACKUP_GRACE_HOURS),
            ),
        },
        command=[
            "prometheus",
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address=:{PROMETHEUS_PORT}",
        ],
        volumes={"/prometheus": volume},
        ports={PROMETHEUS_PORT: settings.prometheus_port},
    )


def _alertmanager(watch: Watch, volume: pulumi.Input[str]) -> Service:
    settings = watch.settings
    files: dict[str, pulumi.Input[str]] = {
        "alertmanager.yml": rendering.render(
            "alertmanager.yml.j2",
            stage=watch.stage,
            webhook_file="/etc/alertmanager/webhook" if settings.alert_webhook else "",
        )
    }
    if settings.alert_webhook:
        files["webhook"] = pulumi.Output.secret(settings.alert_webhook)
    return _service(
        watch,
        "alertmanager",
        pids=128,
        health=_answers(ALERTMANAGER_PORT),
        config_directory="/etc/alertmanager",
        files=files,
        command=[
            "prometheus-alertmanager",
            "--config.file=/etc/alertmanager/alertmanager.yml",
            "--storage.path=/alertmanager",
            # One of it: without this it would look for others.
            "--cluster.listen-address=",
            f"--web.listen-address=:{ALERTMANAGER_PORT}",
        ],
        volumes={"/alertmanager": volume},
        ports={ALERTMANAGER_PORT: settings.alertmanager_port},
    )


def _grafana(watch: Watch) -> Service:
    provisioned = grafana.files(
        watch.stage,
        f"http://prometheus:{PROMETHEUS_PORT}",
        backup=watch.settings.backup,
        members=bool(watch.members),
    )
    return _service(
        watch,
        "grafana",
        image=watch.images.grafana,
        user=GRAFANA_USER,
        memory=256 * MEBIBYTE,
        pids=256,
        health=_answers(GRAFANA_PORT),
        config_directory="/etc/grafana/provisioning",
        files=provisioned,
        environment={
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_PATHS_DATA": "/var/lib/grafana",
        },
        temporary={"/var/lib/grafana": "mode=1777", "/tmp": "mode=1777"},  # noqa: S108
        ports={GRAFANA_PORT: watch.settings.dashboard_port},
    )


def _page(watch: Watch) -> Service:
    backup = "--backup" if watch.settings.backup else "--no-backup"
    return _service(
        watch,
        "dashboard",
        image=watch.images.job,
        memory=128 * MEBIBYTE,
        health=Health(
            [
                "python3",
                "-c",
                f"import socket; socket.create_connection(('127.0.0.1', {PAGE_PORT}), 3)",
            ],
            start_seconds=30,
        ),
        command=[
            "dashboard",
            f"--prometheus=http://prometheus:{PROMETHEUS_PORT}",
            "--host=0.0.0.0",
            f"--port={PAGE_PORT}",
            backup,
            *(["--members"] if watch.members else []),
        ],
        environment={LOG_FORMAT: "json"},
        ports={PAGE_PORT: watch.settings.dashboard_port},
    )


def volumes(names: Names) -> dict[str, str]:
    """The named volumes of a watched stage: what for, and the engine's name."""
    return {one: f"{names.prefix}-{one}" for one in ("prometheus", "alertmanager")}


def address(settings: Settings) -> str:
    """Where an operator opens the panels."""
    return f"http://{settings.bind_address}:{settings.dashboard_port}/"


def create(
    watch: Watch, network: docker.Network, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Declare the containers and their volumes; returns the containers, and their health."""
    made = {
        purpose: docker.Volume(
            f"{purpose}-data",
            name=name,
            labels=[docker.VolumeLabelArgs(label=LABEL, value=watch.stage)],
            opts=opts,
        ).name
        for purpose, name in volumes(watch.names).items()
    }
    containers = [
        ServiceContainer(service, Surroundings(watch.settings, watch.stage, network), opts)
        for service in services(watch, made)
    ]
    return [part for made_of in containers for part in (made_of.container, made_of.healthy)]
