"""A stage's upgrade: what the settings admit, and what each server gets by them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import docker
import pytest

from infra import credentials, present, roles, stage_paths
from infra.certificates import CertificatesProvider, certified_names
from infra.errors import StageError
from infra.names import Names
from infra.parts import serving, standing
from infra.present_members import MembersData
from infra.roles import FIRST, LEFT_ALONE, NEWER
from infra.settings import Settings, read
from migration_job.protocol import moved

NAMES = Names("radcase", "test")
VERIFIERS = dict.fromkeys(credentials.EVERY, "verifier")


def settings(**more: object) -> Settings:
    return read({"source": "app.db", "postgresVersion": 14, **more}, "a test")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"upgradeTo": 14}, "greater than or equal to 15"),
        ({"upgradeTo": 15, "postgresVersion": 15}, r"upgradeTo \(15\) must be above"),
        ({"upgradeStep": "back"}, "upgradeStep goes with upgradeTo"),
        ({"upgradeTo": 18, "upgradePort": 15432}, "ports must differ"),
        ({"upgradeTo": 18, "cutover": "reads", "strategy": "dual-write"}, "upgradeTo goes with"),
        ({"upgradeTo": 18, "postgresqlSettings": {"vacuum_defer_cleanup_age": "5"}}, "18"),
        (
            {"upgradeTo": 18, "postgresImage": f"postgres@sha256:{'0' * 64}"},
            "which is of one version: remove that and run `make up` first",
        ),
    ],
)
def test_what_cannot_be_moved_to_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(StageError, match=said):
        settings(**wrong)


@pytest.mark.parametrize(
    ("step", "stand", "serve"),
    [
        ("move", ["postgres", "postgres-18"], "postgres-18"),
        ("back", ["postgres", "postgres-18"], "postgres"),
        ("settle", ["postgres-18"], "postgres-18"),
    ],
)
def test_who_stands_and_who_serves(step: str, stand: list[str], serve: str) -> None:
    given = settings(upgradeTo=18, upgradeStep=step)
    found = standing(given, NAMES)
    assert [names.postgres_host for _, names in found] == stand
    assert all(names.postgres == f"radcase-test-{names.postgres_host}" for _, names in found)
    its, names = serving(given, NAMES)
    assert names.postgres_host == serve
    assert its.postgres_version == (18 if serve == "postgres-18" else 14)
    assert its.postgres_port == (given.upgrade_port if names.beside else given.postgres_port)
    assert standing(settings(), NAMES) == [(settings(), NAMES)]


def test_no_script_admits_anybody_to_a_server_that_is_closed() -> None:
    """GRANT CONNECT stands where the server's own record is not; and where the newer one gets all
    from the first, nowhere."""
    ordinary = roles.statements(NAMES, VERIFIERS, 14)
    grant = 'GRANT CONNECT ON DATABASE "radcase"'
    assert grant in ordinary
    assert NAMES.upgrade_role not in ordinary
    assert "_migration_upgrade" not in ordinary
    first = roles.statements(NAMES, VERIFIERS, 14, upgrade=FIRST)
    before, guarded = first.split("\\if :apart")
    guarded, after = guarded.split("\\endif")
    assert grant in guarded
    assert "act_as_replica" in guarded
    assert grant not in before + after
    assert 'ALTER ROLE "radcase_upgrade" SUPERUSER LOGIN' in before
    for part, superuser in ((NEWER, True), (LEFT_ALONE, False)):
        newer = roles.statements(NAMES, VERIFIERS, 18, upgrade=part)
        assert grant not in newer
        assert '\\connect "radcase"' not in newer
        assert ("SUPERUSER" in newer) == superuser
        assert "pooler.lookup" in newer


def test_a_certificate_for_the_newer_server_leaves_the_others_as_they_are() -> None:
    """Another certificate would restart a server that serves."""
    provider = CertificatesProvider()
    inputs = {
        "stage": "test",
        "version": "1",
        "names": certified_names(settings(tls="private"), NAMES),
    }
    made = provider.create(inputs).outs
    assert made is not None
    names = certified_names(settings(tls="private", upgradeTo=18), NAMES)
    outs = provider.update("id", made, {**inputs, "names": names}).outs
    assert outs is not None
    assert outs["servers"].keys() == {"postgres", "postgres-18", "pgbouncer"}
    assert {**outs["servers"], **made["servers"]} == outs["servers"]
    assert outs["renew"] <= made["renew"]


def test_the_jobs_note_is_found_by_its_name() -> None:
    assert stage_paths.UPGRADED == moved.FILE


DATA = f"{NAMES.postgres}-data"


@pytest.mark.parametrize(
    ("given", "moved", "found", "said"),
    [
        ({"postgresVersion": 18}, "", 14, "`make upgrade STAGE=test TO=18` makes one beside it"),
        ({"postgresVersion": 14}, "", 18, "expected postgresVersion: 18, as the data in"),
        ({"upgradeTo": 18, "upgradeStep": "settle"}, "", 14, "18 to have the application's data"),
        ({}, "postgres-18", 14, "upgradeTo: 18, since that server has the application's data"),
        ({"upgradeTo": 17}, "postgres-18", 14, "found upgradeTo: 17"),
        ({"upgradeTo": 18}, "postgres-18", None, "of the server that an upgrade has left"),
        ({"upgradeTo": 18, "upgradeStep": "back"}, "", None, f"the volume {DATA}, from which"),
        ({"upgradeTo": 18}, "postgres-16", 14, "`make upgrade STAGE=test BACK=1` goes back"),
        ({"upgradeTo": 18}, "postgres-16", None, "and `upgradeStep: settle` again. The first"),
    ],
)
def test_a_server_without_its_data_is_refused_before_anything(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: dict[str, object],
    moved: str,
    found: int | None,
    said: str,
) -> None:
    """What the volume of the first server and the note of the move say against the settings."""

    def data(_client: object, names: Names) -> present.Data | None:
        if names.beside:
            return present.Data(f"{names.postgres}-data", names.beside)
        return present.Data(DATA, found) if found else None

    monkeypatch.setattr(present, "data", data)
    monkeypatch.setattr(present, "members_data", lambda *_: MembersData({}, agreement=False))
    monkeypatch.setattr(present, "moved_to", lambda *_, **__: moved)
    monkeypatch.setattr(present, "serving", lambda *_, **__: {"engine": "postgresql"})
    where = stage_paths.paths(settings(stateDirectory=str(tmp_path), **given), "test")
    client = create_autospec(docker.DockerClient, instance=True)
    with pytest.raises(StageError) as refused:
        present.require_its_data(client, settings(**given), NAMES, where)
    assert said in str(refused.value)
    assert "nothing was" in str(refused.value)
