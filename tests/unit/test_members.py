"""PostgreSQL on several servers: its settings, its files, and what is refused before anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from infra import backup, clustered, credentials, members, present, rendering, roles, switchover
from infra.certificates import certified_names
from infra.credentials import CredentialsProvider
from infra.errors import StageError
from infra.images import Images
from infra.members import Standing
from infra.names import Names
from infra.parts import Parts
from infra.present_members import MembersData, require_their_data
from infra.servers import POSTGRES_PORT
from infra.settings import Settings, read
from infra.stage_paths import paths

NAMES = Names("radcase", "test")
HOSTS = ["postgres-1", "postgres-2", "postgres-3"]


def settings(**raw: object) -> Settings:
    return read({"source": "a.db", "postgresMembers": 3, **raw}, "test")


def parts(**raw: object) -> Parts:
    wanted = settings(**raw)
    images = Images(postgres="p", pooler="b", job="j", job_digest="d")
    return Parts(wanted, NAMES, images, paths(wanted, "test"), "0:0")


def refused(**raw: object) -> str:
    with pytest.raises(StageError) as caught:
        settings(**raw)
    return str(caught.value)


# ------------------------------------------------------------------------------- settings


def test_one_server_is_what_a_stage_gets() -> None:
    alone = read({"source": "a.db"}, "test")
    assert alone.postgres_members == 1
    assert members.of(alone, NAMES) == []
    assert members.databases(alone, NAMES) == ["radcase-test-postgres"]


def test_three_have_names_of_their_own() -> None:
    found = members.of(settings(postgresMembers="3"), NAMES)
    assert [one.host for one in found] == HOSTS
    assert members.databases(settings(), NAMES) == [f"radcase-test-{host}" for host in HOSTS]
    # Prefixes of nobody's: an upgrade's server is postgres-14 to postgres-18.
    assert {one.container for one in found}.isdisjoint(
        {f"radcase-test-postgres-{n}" for n in (14, 18)}
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"postgresMembers": 2}, "postgresMembers must be 1 or 3"),
        ({"postgresMembers": 4}, "less than or equal to 3"),
        ({"postgresVersion": 17, "upgradeTo": 18}, "upgradeTo does not go with postgresMembers"),
        (
            {
                "target": "external",
                "external": {
                    "host": "db",
                    "database": "d",
                    "user": "u",
                    "password": "p",
                    "applicationUser": "a",
                    "applicationPassword": "p",
                },
            },
            "postgresMembers is for a PostgreSQL of the stage's own",
        ),
        ({"postgresqlSettings": {"synchronous_commit": "off"}}, "Patroni decides it"),
        ({"postgresqlSettings": {"synchronous_standby_names": ""}}, "Patroni decides it"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(raw: dict[str, object], said: str) -> None:
    assert said in refused(**raw)


# ---------------------------------------------------------------------------------- files


def patroni(**raw: object) -> dict[str, Any]:
    wanted = parts(**raw)
    one = members.all_of(NAMES)[1]
    passwords = {"superuser": "s: #'\"", "replication": "r", "rewind": "w"}
    loaded: dict[str, Any] = yaml.safe_load(clustered._patroni(wanted, one, passwords))
    return loaded


def test_patroni_is_told_who_it_is_and_where_etcd_is() -> None:
    told = patroni()
    assert told["name"] == "postgres-2"
    assert told["postgresql"]["connect_address"] == "postgres-2:5432"
    assert told["postgresql"]["data_dir"] == "/var/lib/members/2/data"
    assert told["etcd3"]["hosts"] == ["etcd-1:2379", "etcd-2:2379", "etcd-3:2379"]
    assert told["postgresql"]["authentication"]["superuser"]["password"] == "s: #'\""
    assert told["postgresql"]["parameters"]["hba_file"] == "/etc/postgresql/pg_hba.conf"


def test_a_commit_waits_for_a_follower_and_only_such_a_one_takes_over() -> None:
    common = patroni()["bootstrap"]["dcs"]
    assert common["synchronous_mode"] is True
    assert common["failsafe_mode"] is True
    assert common["loop_wait"] + 2 * common["retry_timeout"] <= common["ttl"]


def test_nobody_tells_patroni_or_etcd_anything_without_a_certificate() -> None:
    told = patroni()
    assert told["restapi"]["verify_client"] == "optional"
    assert told["etcd3"]["protocol"] == "https"
    assert told["etcd3"]["cert"]


def test_what_members_have_in_common_is_what_the_settings_say() -> None:
    given = {"max_connections": "150", "max_wal_senders": "7"}
    # From the stage file as from the pool; the rest stays in postgresql.conf.
    common = clustered.in_common(
        parts(postgresqlSettings={"max_wal_senders": "7"}, maxConnections=150)
    )
    found = common["postgresql"]["parameters"]
    assert found.items() >= given.items()
    assert found["wal_level"] == "logical"
    assert "shared_buffers" not in found


def test_members_follow_by_tls_where_the_stage_speaks_tls() -> None:
    assert "sslmode" not in patroni()["postgresql"]["authentication"]["replication"]
    told = patroni(tls="private")["postgresql"]["authentication"]
    assert told["replication"]["sslmode"] == told["rewind"]["sslmode"] == "verify-full"


def test_pg_hba_lets_the_members_follow_by_their_role_alone() -> None:
    text = rendering.pg_hba_conf(settings(tls="private"), "test", NAMES.replication_role)
    rules = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    followers = [rule for rule in rules if "replication" in rule]
    assert followers == [
        ["local", "replication", "radcase_replication", "scram-sha-256"],
        ["hostssl", "replication", "radcase_replication", "samenet", "scram-sha-256"],
        ["host", "replication", "all", "all", "reject"],
    ]
    alone = rendering.pg_hba_conf(read({"source": "a.db"}, "test"), "test")
    assert "radcase_replication" not in alone


def test_the_pooler_is_led_by_haproxy() -> None:
    text = rendering.pgbouncer_ini(settings(), NAMES, "test")
    assert f"pooler = host=leader port={POSTGRES_PORT}" in text
    alone = rendering.pgbouncer_ini(read({"source": "a.db"}, "test"), NAMES, "test")
    assert f"pooler = host=postgres port={POSTGRES_PORT}" in alone


def test_haproxy_asks_patroni_of_each_and_notices_who_has_gone() -> None:
    text = rendering.render(
        "haproxy.cfg.j2",
        stage="test",
        connections=150,
        authority="/etc/haproxy/ca.crt",
        api_port=members.API_PORT,
        health_port=clustered.HEALTH_PORT,
        wait_seconds=120,
        hosts=HOSTS,
    )
    assert "option httpchk OPTIONS /primary" in text
    assert "srvtcpka-idle 2s" in text
    assert "tcp-ut 5s" in text
    found = [line.split()[1] for line in text.splitlines() if line.startswith("  server ")]
    assert found == [*HOSTS, "nobody"]


def test_a_connection_waits_while_nobody_leads_for_as_long_as_a_query_may() -> None:
    """One that failed would have PgBouncer refuse its clients instead of holding them."""
    text = rendering.pgbouncer_ini(settings(poolWaitSeconds=90), NAMES, "test")
    assert "server_connect_timeout = 90" in text
    assert rendering.connect_seconds(settings(poolWaitSeconds=0)) == rendering.UNLIMITED_SECONDS
    alone = rendering.pgbouncer_ini(read({"source": "a.db"}, "test"), NAMES, "test")
    assert "server_connect_timeout = 2" in alone


def test_the_backups_see_every_server_under_its_own_path() -> None:
    places = [backup.Server(f"/d/{n}", f"/s/{n}") for n in (1, 2, 3)]
    text = backup.configuration(
        settings(backup=True), NAMES, "test", places, directory="/etc/pgbackrest", cipher="c"
    )
    assert [line for line in text.splitlines() if "-path=/d" in line] == [
        "pg1-path=/d/1",
        "pg2-path=/d/2",
        "pg3-path=/d/3",
    ]
    assert "pg3-socket-path=/s/3" in text


def test_each_member_is_certified_by_its_own_name_and_the_leaders() -> None:
    names = certified_names(settings(tls="private"), NAMES)
    assert names.keys() == {*HOSTS, "pgbouncer"}
    assert all({host, "leader"} <= set(names[host]) for host in HOSTS)


def test_the_members_passwords_are_made_for_them_alone() -> None:
    provider = CredentialsProvider()
    plain = sorted((*credentials.ROTATED, *credentials.KEPT))
    made = provider.create({"version": "1", "roles": plain}).outs
    assert made is not None
    assert made["passwords"].keys() == set(credentials.EVERY)
    more = {"version": "1", "roles": sorted((*plain, *credentials.MEMBERS))}
    grown = provider.update("id", made, more).outs
    assert grown is not None
    assert grown["passwords"].keys() == {*credentials.EVERY, *credentials.MEMBERS}
    assert grown["passwords"].items() >= made["passwords"].items()


def test_the_roles_script_lets_a_member_look_where_the_others_went_on() -> None:
    none = dict.fromkeys(credentials.EVERY, "")
    wanted = 'GRANT CONNECT ON DATABASE postgres TO "radcase_rewind"'
    assert wanted in roles.statements(NAMES, none, 18, members=True)
    assert wanted not in roles.statements(NAMES, none, 18)


def test_every_container_of_the_members_is_expected() -> None:
    wanted = present.expected(settings(), NAMES)
    assert {f"radcase-test-{one}" for one in (*HOSTS, "etcd-1", "etcd-3", "leader")} <= wanted
    assert "radcase-test-postgres" not in wanted


# ------------------------------------------------------------------------- how they stand

WHOLE = [
    Standing("postgres-1", members.LEADS, "running"),
    Standing("postgres-2", members.FOLLOWS_SYNCHRONOUSLY, "streaming", 0),
    Standing("postgres-3", "Replica", "streaming", 0),
]


def test_members_are_whole_where_one_leads_and_one_follows_synchronously() -> None:
    found = members.all_of(NAMES)
    assert members.missing(WHOLE, found) == []
    assert members.missing(WHOLE[:2], found) == ["postgres-3 is not there"]
    assert members.missing(WHOLE[1:], found) == ["postgres-1 is not there", "nobody leads"]
    one = Standing("postgres-2", "Replica", "creating replica")
    assert members.missing([WHOLE[0], one, WHOLE[2]], found) == [
        "postgres-2 is creating replica",
        "nobody follows synchronously",
    ]


def test_patronis_list_is_read() -> None:
    row = {"Member": "postgres-3", "Role": "Replica", "State": "streaming", "Lag in MB": 12}
    assert str(members._read({**row, "Pending restart": "*"})) == "postgres-3 follows, 12 MB behind"
    assert members._read({**row, "Pending restart": "*"}).restarts
    assert members._read({**row, "Lag in MB": "unknown"}).lag_megabytes is None


def test_only_the_one_that_follows_synchronously_takes_over() -> None:
    found = members.all_of(NAMES)
    assert switchover._candidate(WHOLE, found, None) == "postgres-2"
    assert switchover._candidate(WHOLE, found, "postgres-2") == "postgres-2"
    with pytest.raises(StageError, match="expected postgres-2, which follows synchronously"):
        switchover._candidate(WHOLE, found, "postgres-3")
    with pytest.raises(StageError, match="postgres-3 is not there"):
        switchover._candidate(WHOLE[:2], found, None)


# --------------------------------------------------------------------- before anything


@pytest.mark.parametrize(
    ("given", "found", "alone", "serves", "said"),
    [
        ({}, MembersData({}, False), True, True, "expected postgresMembers: 1, as the stage"),
        (
            {"postgresMembers": 1},
            MembersData({"postgres-1": 18}, True),
            False,
            True,
            "expected postgresMembers: 3, as the stage",
        ),
        (
            {"postgresVersion": 17},
            MembersData({"postgres-1": 18}, True),
            False,
            True,
            "expected postgresVersion: 18, as the members' data is",
        ),
        ({}, MembersData({}, True), False, True, "one of the members to have the data"),
        (
            {},
            MembersData({"postgres-1": 18, "postgres-2": 18}, False),
            False,
            True,
            "postgres-3 has none",
        ),
    ],
)
def test_members_that_would_not_come_up_on_their_data_are_refused(
    given: dict[str, object], found: MembersData, alone: bool, serves: bool, said: str
) -> None:
    with pytest.raises(StageError) as caught:
        require_their_data(settings(**given), NAMES, found, alone=alone, serves=serves)
    assert said in str(caught.value)
    assert "nothing was" in str(caught.value)


@pytest.mark.parametrize(
    "found",
    [
        MembersData({}, False),
        MembersData(dict.fromkeys(HOSTS, 18), False),
        # One that lost its data is copied again.
        MembersData({"postgres-2": 18}, True),
    ],
)
def test_members_that_come_up_by_themselves_are_not_refused(found: MembersData) -> None:
    serves = bool(found.majors)
    require_their_data(settings(), NAMES, found, alone=False, serves=serves)


def test_what_is_told_to_etcd_is_the_same_each_time() -> None:
    """Or every update would be a change."""
    once, again = (json.dumps(clustered.in_common(parts()), sort_keys=True) for _ in range(2))
    assert once == again
