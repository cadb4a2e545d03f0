"""A PostgreSQL on several servers is whole: one leads, all follow, and a commit waits for one."""

from __future__ import annotations

import pytest

from infra import members
from infra.execution import execute
from infra.switchover import led
from tests.deployment.engine import output
from tests.deployment.provisioned.conftest import Provisioned, until

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(autouse=True)
def _several(stage: Provisioned) -> None:
    if not members.of(stage.settings, stage.names):
        pytest.skip("the stage file has postgresMembers: 1")


def test_all_members_follow_one_that_leads(stage: Provisioned) -> None:
    found = members.of(stage.settings, stage.names)
    until(
        lambda: not members.missing(members.standing(stage.client, found), found),
        "all members to follow",
    )


def test_a_commit_waits_for_one_that_follows(stage: Provisioned) -> None:
    test_all_members_follow_one_that_leads(stage)
    assert stage.query("SHOW synchronous_commit") == "on"
    followers = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    assert stage.query(followers) == "1"


def test_the_pooler_is_led_to_the_one_that_leads(stage: Provisioned) -> None:
    found = members.of(stage.settings, stage.names)
    leader = members.leading(stage.client, found)
    until(
        lambda: (
            [f"{stage.names.prefix}-{one}" for one in led(stage.client, stage.names)]
            == [leader.name]
        ),
        "haproxy to lead to it",
    )


def test_nobody_without_a_certificate_tells_the_members_anything(stage: Provisioned) -> None:
    """Neither Patroni's interface nor etcd; anybody may ask the first who leads."""
    one, *_ = members.of(stage.settings, stage.names)
    ask = (
        "import ssl, sys, urllib.request as u; c = ssl._create_unverified_context(); "
        "r = u.Request(sys.argv[1], data=b'{}' if len(sys.argv) > 2 else None, "
        "method=sys.argv[2] if len(sys.argv) > 2 else 'GET'); "
        "print(u.urlopen(r, context=c, timeout=5).status)"
    )
    inside = stage.container(one.container)
    told = f"https://{one.host}:{members.API_PORT}"
    assert b"200" in execute(inside, ["python3", "-c", ask, f"{told}/cluster"]).output
    for words in ([f"{told}/config", "PATCH"], [f"{told}/switchover", "POST"]):
        said = output(execute(inside, ["python3", "-c", ask, *words]))
        assert "403" in said, said
    said = output(execute(inside, ["python3", "-c", ask, f"https://{one.etcd_host}:2379/version"]))
    assert "certificate" in said.lower(), said
