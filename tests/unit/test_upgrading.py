"""A stage's upgrade: what the settings admit, and what each server gets by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import docker
import pytest

from infra import credentials, live, next_upgrade, present, roles, stage_paths, upgrading
from infra.certificates import CertificatesProvider, certified_names
from infra.errors import StageError
from infra.images import Images
from infra.names import Names
from infra.parts import Parts, given_up, passed, serving, standing
from infra.present_members import MembersData
from infra.roles import FIRST, LEFT_ALONE, NEWER
from infra.settings import Settings, read
from migration_job.protocol import moved
from migration_job.stores.postgres.replication import Address

NAMES = Names("radcase", "test")
VERIFIERS = dict.fromkeys(credentials.EVERY, "verifier")


def settings(**more: object) -> Settings:
    return read({"source": "app.db", "postgresVersion": 14, **more}, "a test")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"upgradeTo": 14}, "greater than or equal to 15"),
        ({"upgradeTo": 15, "postgresVersion": 15}, r"upgradeTo \(15\) must be above"),
        ({"upgradeStep": "back"}, "go with upgradeTo"),
        ({"upgradesSettled": [16]}, "go with upgradeTo"),
        ({"upgradeTo": 16, "upgradesSettled": [16]}, r"must be above upgradesSettled \(16\)"),
        ({"upgradeTo": 18, "upgradesSettled": [17, 16]}, "rise from postgresVersion"),
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


BACK = {"upgradeTo": 16, "upgradeStep": "back"}
AGAIN = {"upgradeTo": 18, "upgradesSettled": [16]}
"""A second upgrade, after one to 16."""


@pytest.mark.parametrize(
    ("step", "stand", "serve"),
    [
        ("move", ["postgres-16", "postgres-18"], "postgres-18"),
        ("back", ["postgres-16", "postgres-18"], "postgres-16"),
        ("settle", ["postgres-18"], "postgres-18"),
    ],
)
def test_who_stands_and_serves_in_an_upgrade_after_another(
    step: str, stand: list[str], serve: str
) -> None:
    """Nothing of a server changes when the next upgrade begins from it: neither name nor port."""
    given = settings(**AGAIN, upgradeStep=step)
    found = standing(given, NAMES)
    assert [names.postgres_host for _, names in found] == stand
    assert serving(given, NAMES)[1].postgres_host == serve
    ports = {names.postgres_host: its.postgres_port for its, names in found}
    before = serving(settings(upgradeTo=16, upgradeStep="settle"), NAMES)
    assert ports["postgres-18"] == given.postgres_port
    assert ports.get("postgres-16", before[0].postgres_port) == before[0].postgres_port
    gone = {"postgres", *({"postgres-16"} if step == "settle" else ())}
    assert {names.postgres_host for names in given_up(given, NAMES)} == gone
    assert [names.postgres_host for names in passed(given, NAMES)] == ["postgres"]


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ({}, ["old"]),
        ({"upgradeTo": 18}, ["old", "new"]),
        (AGAIN, ["old", "new"]),
        ({**AGAIN, "upgradeStep": "settle"}, ["new"]),
    ],
)
def test_each_server_has_the_image_of_its_version(
    given: dict[str, object], images: list[str]
) -> None:
    found = Images(postgres="old", newer="new", pooler="", job="", job_digest="")
    where = stage_paths.Paths(Path("/a/app.db"), Path("/a/state"))
    parts = Parts(settings(**given), NAMES, found, where, "1:1")
    assert [one.images.postgres for one in parts.servers] == images


def test_three_upgrades_take_two_ports_in_turn() -> None:
    given = settings(upgradeTo=18, upgradesSettled=[15, 16, 17])
    (older, _), (newer, _) = standing(given, NAMES)
    assert (older.postgres_version, newer.postgres_version) == (17, 18)
    assert (older.postgres_port, newer.postgres_port) == (given.upgrade_port, given.postgres_port)


@pytest.mark.parametrize(
    ("given", "chosen", "changes"),
    [
        ({}, 16, ["set upgradeTo 16", "set upgradeStep move"]),
        (
            {"upgradeTo": 16, "upgradeStep": "back"},
            16,
            ["set upgradeTo 16", "set upgradeStep move"],
        ),
        ({"upgradeTo": 16, "upgradeStep": "back"}, "remove", ["rm upgradeTo", "rm upgradeStep"]),
        (
            {"upgradeTo": 16, "upgradeStep": "settle"},
            18,
            ["set upgradesSettled[0] 16", "set upgradeTo 18", "set upgradeStep move"],
        ),
        (
            {**AGAIN, "upgradeStep": "back"},
            "remove",
            ["rm upgradesSettled", "set upgradeTo 16", "set upgradeStep settle"],
        ),
        (
            {"upgradeTo": 18, "upgradesSettled": [15, 16]},
            "remove",
            ["rm upgradesSettled[1]", "set upgradeTo 16", "set upgradeStep settle"],
        ),
        (AGAIN, "back", ["set upgradeStep back"]),
        (AGAIN, "settle", ["set upgradeStep settle"]),
    ],
)
def test_what_make_upgrade_changes_in_the_stage_file(
    given: dict[str, object], chosen: int | str, changes: list[str]
) -> None:
    found = settings(**given)
    if isinstance(chosen, int):
        assert next_upgrade.to(found, chosen) == changes
    elif chosen == "remove":
        assert next_upgrade.removal(found) == changes
    else:
        assert next_upgrade.step(found, chosen) == changes


def test_what_make_upgrade_refuses_before_it_changes_anything() -> None:
    settled = settings(upgradeTo=18, upgradeStep="settle")
    with pytest.raises(StageError, match="a version above 18"):
        next_upgrade.to(settled, 18)
    with pytest.raises(StageError, match="found it settled"):
        next_upgrade.removal(settled)
    for wanted in ("back", "settle"):
        with pytest.raises(StageError, match="no upgradeTo in the stage file"):
            next_upgrade.step(settings(), wanted)


@pytest.mark.parametrize(
    ("before", "after", "abandoned"),
    [
        (("postgres", "postgres-16"), ("postgres", "postgres-16"), False),
        (("postgres", "postgres-16"), ("postgres", "postgres-17"), True),
        (("postgres", "postgres-16"), ("postgres-16", "postgres-18"), False),
        (("postgres-16", "postgres-18"), ("postgres", "postgres-16"), True),
    ],
)
@pytest.mark.parametrize("serves", ["postgresql", "sqlite"])
def test_an_upgrade_is_given_up_before_its_server_goes(
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, str],
    after: tuple[str, str],
    abandoned: bool,
    serves: str,
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(upgrading.UpgradeInputs, "of", lambda props: SimpleNamespace(**props))
    monkeypatch.setattr(upgrading, "run", lambda _, words: ran.append(words))
    monkeypatch.setattr(live, "serving", lambda _: serves)
    olds, news = ({"step": "back", "containers": c, "hosts": c} for c in (before, after))
    refused = abandoned and serves == "sqlite"
    with pytest.raises(StageError, match="given up") if refused else nullcontext():
        upgrading.UpgradeEndProvider().update("id", olds, news)
    assert ran == ([["--abandon"]] if abandoned and not refused else [])


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


def without(container: str) -> Callable[[str], object]:
    """An engine's look at its containers, of which that one is gone."""

    def get(name: str) -> object:
        if name == container:
            raise docker.errors.NotFound("no such container")
        return object()

    return get


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
        (
            {"upgradeTo": 18},
            "postgres-16",
            None,
            "and `upgradeStep: settle` again; then `make upgrade STAGE=test TO=18`",
        ),
        (AGAIN, "postgres-18", 14, ""),
        ({**AGAIN, "upgradeStep": "settle"}, "postgres-18", 14, ""),
        (AGAIN, "postgres-16", 14, ""),
        (AGAIN, "", 14, "16 to have the application's data, as upgradesSettled: [16] says"),
        ({**AGAIN, "upgradeStep": "settle"}, "postgres-16", 14, "18 to have the application's"),
        ({**AGAIN, "upgradeTo": 17}, "postgres-18", 14, "is open. upgradesSettled is [16] then"),
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
    """What the volume of the first server and the note of the move say against the settings; where
    nothing is ``said`` they are at one."""

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
    client.containers.get.side_effect = without(NAMES.postgres)
    if not said:
        assert present.require_its_data(client, settings(**given), NAMES, where)
        return
    with pytest.raises(StageError) as refused:
        present.require_its_data(client, settings(**given), NAMES, where)
    assert said in str(refused.value)
    assert "nothing was" in str(refused.value)


def test_a_further_upgrade_waits_until_the_one_before_is_settled() -> None:
    client = create_autospec(docker.DockerClient, instance=True)
    with pytest.raises(StageError, match="upgrade to PostgreSQL 16 to be settled, found"):
        present.require_settled(client, NAMES, 16, passed(settings(**AGAIN), NAMES))
    client.containers.get.side_effect = docker.errors.NotFound("no such container")
    present.require_settled(client, NAMES, 16, passed(settings(**AGAIN), NAMES))


@pytest.mark.parametrize("moves", [1, 2])
def test_the_last_move_of_the_note_is_where_the_data_is(tmp_path: Path, moves: int) -> None:
    hosts = ["postgres", "postgres-16", "postgres-18"][: moves + 1]
    at = [Address(host, 5432, "radcase") for host in hosts]
    where = stage_paths.paths(settings(stateDirectory=str(tmp_path)), "test")
    where.job.mkdir(parents=True)
    for one, other in pairwise(at):
        dsns = (f"postgresql://{one.host}/radcase", f"postgresql://{other.host}/radcase")
        moved.write_moved(where.job, dsns, (one, other))
    client = create_autospec(docker.DockerClient, instance=True)
    assert present.moved_to(client, where, local=True) == hosts[-1]
