"""A stage file is refused as a whole, in words that name what is allowed and what was found."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra import support
from infra.errors import StageError
from infra.setting_types import parse_size
from infra.settings import Settings, read, read_file

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("dev", "staging", "production")


def refused(**raw: object) -> str:
    with pytest.raises(StageError) as caught:
        read({"source": "a.db", **raw}, "Pulumi.test.yaml")
    return str(caught.value)


def test_the_defaults_are_the_strategys() -> None:
    settings = read({"source": "a.db"}, "Pulumi.test.yaml")
    assert settings.postgres_version == 18
    assert (settings.pool_max, settings.pool_min) == (20, 5)
    assert (settings.pool_idle_seconds, settings.pool_connect_seconds) == (30, 2)
    assert settings.postgres_memory == 1024**3
    assert settings.bind_address == "127.0.0.1"


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_files_are_valid(stage: str) -> None:
    assert read_file(ROOT / f"Pulumi.{stage}.yaml").postgres_version == support.NEWEST
    assert read_file(ROOT / f"Pulumi.{stage}.yaml").application == "radcase"


def test_a_stage_file_with_encrypted_values_can_be_read_by_itself(tmp_path: Path) -> None:
    """`make check`, `make status` and others read it so, after `pulumi config set --secret`."""
    file = tmp_path / "Pulumi.test.yaml"
    file.write_text(
        """config:
  sqlite-to-postgresql:source: a.db
  sqlite-to-postgresql:alertWebhook: {secure: v1:abc}
  sqlite-to-postgresql:backup: true
  sqlite-to-postgresql:backupS3:
    {bucket: b, endpoint: s3.example.org, key: {secure: v1:abc}, keySecret: {secure: v1:abc}}
"""
    )
    settings = read_file(file)
    assert settings.backup_s3
    assert settings.backup_s3.bucket == "b"


def test_the_strategys_tuning_wants_the_memory_that_it_plans_with() -> None:
    kept = read({"source": "a.db", "postgresTuning": "strategy"}, "Pulumi.test.yaml")
    assert kept.postgres_tuning == "strategy"
    assert "at least 1GB" in refused(postgresTuning="strategy", postgresMemory="512MB")
    assert "postgresTuning" in refused(postgresTuning="fast")


def test_the_stages_differ_where_stages_differ() -> None:
    dev, staging, production = (read_file(ROOT / f"Pulumi.{stage}.yaml") for stage in STAGES)
    assert (dev.cutover, staging.cutover, production.cutover) == ("switch", "switch", "hold")
    assert dev.postgres_memory < staging.postgres_memory < production.postgres_memory
    assert production.protect_data
    assert not dev.protect_data
    assert len({s.pooler_port for s in (dev, staging, production)}) == 3


def test_the_stages_of_one_machine_take_different_ports() -> None:
    taken: dict[int, str] = {}
    for stage in STAGES:
        content = yaml.safe_load((ROOT / f"Pulumi.{stage}.yaml").read_text())["config"]
        settings = read_file(ROOT / f"Pulumi.{stage}.yaml")
        for name, port in {**settings.ports(), "restorePort": settings.restore_port}.items():
            assert port not in taken, (stage, name, taken[port])
            taken[port] = f"{stage}: {name}"
        assert content


def test_the_restore_port_is_checked_with_the_others() -> None:
    raw = {"source": "a.db", "backup": "true", "restorePort": "15432"}
    with pytest.raises(StageError, match="ports must differ"):
        read(raw, "here")


@pytest.mark.parametrize(
    "image", ["postgres:17", "postgres:17.6", "postgres@sha256:abc", "-x@sha256:" + "0" * 64]
)
def test_an_image_that_is_no_digest_is_refused(image: str) -> None:
    assert "postgresImage" in refused(postgresImage=image)


def test_an_image_by_digest_is_pulled_and_never_built() -> None:
    image = "registry.example:5000/postgres@sha256:" + "0" * 64
    assert read({"source": "a.db", "postgresImage": image}, "a.yaml").postgres_image == image
    assert "imageSource: build" in refused(postgresImage=image, imageSource="build")


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    said = refused(postgresMemry="1GB")
    assert "postgresMemry" in said
    assert "did you mean postgresMemory?" in said
    assert "nothing was created" in said


def test_every_fault_is_listed_at_once() -> None:
    said = refused(poolMax="0", cutover="later", poolerPort="99999")
    for name in ("poolMax", "cutover", "poolerPort"):
        assert name in said
    assert "'switch', 'reads', 'hold' or 'settled'" in said
    assert "'later'" in said


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"postgresVersion": "13"}, "greater than or equal to 14"),
        ({"postgresVersion": "19"}, "less than or equal to 18"),
        ({"postgresMemory": "1 gig"}, "expected a size such as 512MB"),
        ({"postgresMemory": "64MB"}, "at least 256MB"),
        ({"poolMin": "30"}, "poolMin (30) must not exceed poolMax (20)"),
        ({"postgresPort": "16432"}, "ports must differ"),
        ({"application": "Rad-Case"}, "lower-case letter"),
        ({"application": "postgres"}, "is taken by"),
        ({"bindAddress": "localhost"}, "does not appear to be an IPv4 or IPv6 address"),
        ({"allowedNetworks": '["10.0.0.1/8"]'}, "has host bits set"),
        ({"dockerHost": "ssh://a b"}, "expected an address"),
        ({"source": "a\nb.db"}, "control characters"),
        ({"timeZone": "UTC'; DROP"}, "match pattern"),
        ({"postgresqlSettings": '{"work_mem": ["1"]}'}, "one value for each setting"),
    ],
)
def test_a_wrong_value_is_refused_in_words(raw: dict[str, str], words: str) -> None:
    assert words in refused(**raw)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"wrok_mem": "4MB"}, "did you mean work_mem?"),
        ({"work_mem": "1kB"}, "expected 64 to"),
        ({"io_method": "sync"}, "a setting of PostgreSQL 18"),
        ({"checkpoint_completion_target": "1.5"}, "expected 0 to 1"),
        ({"wal_level": "full"}, "minimal, replica, logical"),
        ({"jit": "maybe"}, "expected on or off"),
        ({"work_mem": "4 parsecs"}, "expected a unit of"),
        ({"log_line_prefix": "a\nlisten_addresses = '*'"}, "control characters"),
        ({"fsync": "off"}, "gives up durability"),
        ({"archive_command": "rm -rf /"}, "names a program"),
        ({"listen_addresses": "*"}, "the program decides it"),
        ({"ssl_key_file": "x"}, "the program decides it"),
    ],
)
def test_a_setting_of_postgresql_is_checked_against_its_version(
    settings: dict[str, str], words: str
) -> None:
    assert words in refused(postgresVersion=14, postgresqlSettings=settings)


def test_a_setting_of_a_later_version_is_known_there() -> None:
    settings = read(
        {"source": "a", "postgresVersion": 18, "postgresqlSettings": {"io_method": "sync"}}, "x"
    )
    assert settings.postgresql_settings == {"io_method": "sync"}


EXTERNAL = {
    "host": "db.example.org",
    "database": "radcase",
    "user": "mover",
    "password": "secret-of-the-job",
    "applicationUser": "radcase",
    "applicationPassword": "secret-of-the-application",
}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"target": "external"}, "go together"),
        ({"external": EXTERNAL}, "go together"),
        ({"pooler": "false"}, "needs target: external"),
        ({"target": "external", "external": EXTERNAL, "backup": "true"}, "backs it up"),
        ({"backupDrillHours": "24"}, "backupDrillHours goes with backup: true"),
        (
            {"target": "external", "external": {**EXTERNAL, "sslmode": "verify-full"}},
            "external.authority go together",
        ),
        (
            {"target": "external", "external": {**EXTERNAL, "applicationPassword": "secret'"}},
            "external.applicationPassword",
        ),
        ({"target": "external", "external": "postgresql://x:secret@host/db"}, "external: "),
    ],
)
def test_an_external_target_is_checked_without_telling_its_secrets(
    raw: dict[str, object], words: str
) -> None:
    said = refused(**raw)
    assert words in said
    assert "secret" not in said


GATE = {"upstream": "radcase:3000", "port": 13000, "container": "radcase"}


def test_a_gate_is_read_as_pulumi_hands_it_on() -> None:
    text = '{"upstream": "radcase:3000", "port": 13000, "network": "web", "command": "x y"}'
    gate = read({"source": "a.db", "gate": text}, "Pulumi.test.yaml").gate
    assert gate is not None
    assert (gate.upstream, gate.port, gate.network) == ("radcase:3000", 13000, "web")
    assert (gate.container, gate.command) == ("", "x y")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"container": ""}, "one of gate.container and gate.command"),
        ({"container": ""}, "found neither"),
        ({"command": "secret"}, "found both"),
        ({"upstream": "radcase"}, "gate.upstream: expected HOST:PORT"),
        ({"upstream": "radcase:0"}, "expected HOST:PORT"),
        ({"upstream": "radcase:65536"}, "expected HOST:PORT"),
        ({"upstream": "http://radcase:3000"}, "expected HOST:PORT"),
        ({"upstream": "localhost:3000"}, "the gate's own container"),
        ({"upstream": "127.0.0.1:3000"}, "the gate's own container"),
        ({"container": "rad case"}, "gate.container"),
        ({"container": "../json"}, "gate.container"),
        ({"network": "host"}, "a network of the application's own"),
        ({"container": "", "command": "curl\x00 secret"}, "gate.command"),
        ({"port": 0}, "gate.port"),
        ({"port": 16432}, "ports must differ"),
        ({"prot": 1}, "gate.prot"),
    ],
)
def test_a_gate_is_checked_without_telling_its_command(
    changed: dict[str, object], words: str
) -> None:
    said = refused(gate={**GATE, **changed})
    assert words in said
    assert "secret" not in said


def test_a_gate_that_is_no_mapping_is_refused_without_telling_it() -> None:
    said = refused(gate="curl http://secret")
    assert "gate: " in said
    assert "secret" not in said


def test_no_message_moves_a_terminal() -> None:
    said = refused(**{"\x1b[2Jkey": "x", "cutover": "\x1b[31mred"})
    assert "\x1b" not in said


def test_a_missing_stage_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="expected the stage file"):
        read_file(tmp_path / "Pulumi.none.yaml")


@given(st.integers(1, 10**9), st.sampled_from(["kB", "MB", "GB", "TB"]))
def test_sizes_are_binary(count: int, unit: str) -> None:
    power = {"kB": 1, "MB": 2, "GB": 3, "TB": 4}[unit]
    assert parse_size(f"{count}{unit}") == count * 1024**power


@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([str(f.alias) for f in Settings.model_fields.values()]), st.text()
        ),
        st.one_of(st.text(), st.integers(), st.booleans(), st.floats(), st.none()),
        max_size=6,
    )
)
def test_whatever_a_stage_file_says_it_is_taken_or_refused_in_words(raw: dict[str, object]) -> None:
    try:
        read(raw, "Pulumi.fuzz.yaml")
        said = ""
    except StageError as error:
        said = str(error)
    assert all(character.isprintable() or character == "\n" for character in said)


def test_a_schema_of_another_name_is_a_plain_one() -> None:
    assert read({"source": "a.db"}, "Pulumi.x.yaml").schema_name == "public"
    assert read({"source": "a.db", "schemaName": "sales"}, "Pulumi.x.yaml").schema_name == "sales"
    for name in ("Sales", "a b", "", "x" * 54):
        assert "schemaName" in refused(schemaName=name)
    for name in ("pg_catalog", "migration", "migration_x", "information_schema"):
        assert "keeps for itself" in refused(schemaName=name)


def test_the_applications_own_step_goes_with_its_own_schema() -> None:
    step = {"image": "shop:4.2", "command": "sh -c 'exec ./shop migrate'"}
    settings = read({"source": "a.db", "schema": "existing", "schemaFrom": step}, "Pulumi.x.yaml")
    assert settings.schema_from
    assert settings.schema_from.command == ("sh", "-c", "exec ./shop migrate")
    assert "set schema: existing" in refused(schemaFrom=step)
    assert "15 or later" in refused(schema="existing", postgresVersion=14)
    assert "schema: " in refused(schema="own")
    assert "schemaFrom.image" in refused(schema="existing", schemaFrom={"image": "-v /:/host"})
    assert "schemaFrom.image" in refused(schema="existing", schemaFrom={"command": "migrate"})
    assert "schemaFrom.command" in refused(
        schema="existing", schemaFrom={**step, "command": "sh -c 'no end"}
    )


def test_a_proof_goes_with_both_kinds_of_schema() -> None:
    step = {"image": "shop:4.2", "command": "manage migrate --check", "environment": {"K": "hush"}}
    for more in ({}, {"schema": "existing"}, {"postgresVersion": 14}):
        settings = read({"source": "a.db", "proof": step, **more}, "Pulumi.x.yaml")
        assert settings.proof
        assert settings.proof.command == ("manage", "migrate", "--check")
        assert "hush" not in repr(settings)
    assert "proof.image" in refused(proof={"command": "check"})
    said = refused(proof={**step, "environment": {"PGHOST": "hush"}})
    assert "proof.environment" in said
    assert "hush" not in said


def test_the_steps_environment_is_texts_and_a_secret() -> None:
    given = {"DEBUG": False, "WORKERS": 2, "KEY": "not to be shown"}
    step = {"image": "shop:4.2", "environment": given}
    settings = read({"source": "a.db", "schema": "existing", "schemaFrom": step}, "Pulumi.x.yaml")
    assert settings.schema_from
    assert settings.schema_from.environment == {
        "DEBUG": "false",
        "WORKERS": "2",
        "KEY": "not to be shown",
    }
    assert "not to be shown" not in repr(settings)
    for wrong in ({"PGPASSWORD": "not to be shown"}, {"A B": "not to be shown"}, {"KEY": ["not"]}):
        said = refused(schema="existing", schemaFrom={**step, "environment": wrong})
        assert "schemaFrom.environment" in said
        assert "not to be shown" not in said
