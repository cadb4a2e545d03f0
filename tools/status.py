"""``make status STAGE=dev``: which side serves, as ``migration-job status`` says it.

It looks at the stage's own files on this machine, needs no Pulumi, and asks the engine which of the
stage's containers run. The files of a remote engine's stage are looked at by its sync's container,
which asks PostgreSQL as well.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from docker.errors import DockerException

from infra import drill, engine, live, members, present, support
from infra import given as given_files
from infra.errors import StageError
from infra.names import Names
from infra.parts import serving, upgraded
from infra.settings import Settings, read_file
from infra.stage_paths import Paths, ask_there, paths
from migration_job import last_resort
from migration_job.errors import ExitStatus, JobError
from migration_job.plan.policy import parse_policy
from migration_job.protocol.refusals import Accepted
from migration_job.protocol.status import Given, status
from migration_job.protocol.whole_command import BEHIND_A_POOLER
from tools import fleet_status

ROOT = Path(__file__).resolve().parent.parent


def in_stages_lines(lines: Iterable[str], stage: str) -> Iterator[str]:
    """The lines in a stage's words, without the whole commands below what is next: there, `make`
    runs them."""
    after = False
    for line in lines:
        if not after:
            yield in_stages_words(line, stage)
        elif not line.strip().startswith(("migration-job ", BEHIND_A_POOLER)):
            yield _settling(line, stage)
        after = after or line.startswith("next ")


def _settling(line: str, stage: str) -> str:
    """What settles a refusal of the switch, as it is done in a stage."""
    file, up = f"Pulumi.{stage}.yaml", f"`make up STAGE={stage}`"
    for given, words in (
        (
            "give that to `switch --policy`; in a stage, the setting `policy`",
            f"name that file by `policy` in {file}",
        ),
        ("run `migration-job migrate` again", f"run {up}"),
        ("run `migrate` again", f"run {up}"),
    ):
        line = line.replace(given, words)
    return re.sub(r"accept it with --one-way .*", f"accept it by `oneWayTables` in {file}", line)


def in_stages_words(line: str, stage: str) -> str:
    """What is to be done next, as it is done to a stage: by its file and `make`."""
    if not line.startswith("next "):
        return line.replace("not asked (no --target)", "not asked: this reads the stage's files")
    up = f"`make up STAGE={stage}`"
    for command, words in (
        ("`make up`", up),
        ("`migration-job switch` would refuse", "`cutover: switch` would refuse"),
        ("`migration-job switch` refuses unless", "`cutover: switch` refuses unless"),
        ("`migration-job migrate`, or `migrate --live` while the application goes on writing", up),
        ("`migration-job migrate --live`", up),
        ("`migration-job switch`, or `rollback --release` to give it up", "`migration-job switch`"),
        ("run `migration-job switch` again", f"run {up} again"),
        ("`migration-job switch`", f"`cutover: switch` in Pulumi.{stage}.yaml, then {up}"),
        ("`migration-job settle`", f"`cutover: settled` in Pulumi.{stage}.yaml, then {up}"),
        ("`migration-job rollback` goes back", f"`cutover: hold` and {up} goes back"),
        ("`rollback --accept-loss`", f"`MIGRATION_ACCEPT_LOSS=yes make down STAGE={stage}`"),
        ("start `migration-job sync`", f"{up} (it starts the sync again)"),
        ("`migration-job migrate`", up),
        ("ask again with --target-file, to see how far the target is", up),
    ):
        line = line.replace(command, words)
    return line


def asked(settings: Settings, names: Names) -> tuple[bool, str]:
    """Whether something of the stage's does not run that is to run, and the line that says it."""
    try:
        missing = present.drift(engine.connect(settings.docker_host), settings, names)
    except (StageError, DockerException) as error:
        said = error.message if isinstance(error, StageError) else str(error)
        return False, f"engine      not asked: {said}"
    everything = len(present.expected(settings, names))
    if len(missing) == everything:
        return True, "engine      none of the stage's containers runs"
    return bool(missing), "engine      " + (
        "; ".join(missing) or f"all {everything} containers run"
    )


def of_members(settings: Settings, names: Names) -> str:
    """How the members of a PostgreSQL on several servers stand, '' where it is one."""
    found = members.of(settings, names)
    if not found:
        return ""
    try:
        standing = members.standing(engine.connect(settings.docker_host), found)
    except (StageError, DockerException) as error:
        return f"not told: {error.message if isinstance(error, StageError) else error}"
    lacks = [words for words in members.missing(standing, found) if words.startswith("nobody")]
    absent = [
        f"{one.host} is not there"
        for one in found
        if one.host not in {there.host for there in standing}
    ]
    return "; ".join([*map(str, standing), *absent, *lacks])


def after_healing(line: str, stage: str) -> str:
    """What is next, in a stage's words, where containers are missing: they come first."""
    up = f"`make up STAGE={stage}`"
    first = f"next        {up} makes what is missing"
    rest = line.removeprefix("next").strip()
    if rest.startswith(up):
        return line
    return first if rest.startswith("nothing") else f"{first}; then {rest}"


def there(settings: Settings, names: Names, where: Paths) -> list[str]:
    """The lines of a stage on a remote engine."""
    command = ["python3", "-m", "migration_job", "--log-format", "text", "status"]
    command += [str(where.source), "--target-file", live.TARGET_FILE]
    command += ["--connection", str(where.connection), "--state", str(where.job)]
    return ask_there(engine.connect(settings.docker_host), names, command).splitlines()


def settled(settings: Settings, where: Paths) -> list[str]:
    """The lines of a stage that is PostgreSQL, and whose source may be anywhere."""
    client = engine.connect(settings.docker_host)
    local = engine.is_local(settings.docker_host)
    side = present.serving(client, where, local=local)
    if side["engine"] != "postgresql":
        return [
            "serves      SQLite",
            "next        `cutover: switch` in the stage file first: nothing can be settled yet",
        ]
    return [
        "serves      PostgreSQL; the way back was given up",
        f"archive     {where.report / 'archive'}",
        f"connection  {where.connection} names {side['host']}:{side['port']}/{side['database']}",
        "next        nothing: the migration is over",
    ]


def in_upgrade(settings: Settings, stage: str) -> str:
    """Where an upgrade stands, by the stage's own note of it."""
    where = paths(settings, stage)
    client = engine.connect(settings.docker_host)
    local = engine.is_local(settings.docker_host)
    first, newer = settings.version_before, settings.upgrade_to
    host = upgraded(settings, Names(settings.application, stage))[1].postgres_host
    if present.moved_to(client, where, local=local) != host:
        return (
            f"PostgreSQL {first} has the data; {newer} is beside it, "
            f"`make upgrade STAGE={stage} TO={newer}` moves the application"
        )
    if settings.upgrade_step == "settle":
        return f"PostgreSQL {newer} has the data, for good"
    return (
        f"PostgreSQL {newer} has the data; `make upgrade STAGE={stage} BACK=1` goes back to "
        f"{first}, SETTLE=1 gives that up"
    )


def drilled(settings: Settings, names: Names) -> str:
    """How the last restore drill went."""
    try:
        found = drill.container(engine.connect(settings.docker_host), settings, names)
        return drill.told(drill.record(found), time.time())
    except (StageError, DockerException) as error:
        return f"not asked: {error.message if isinstance(error, StageError) else error}"


def accepted(settings: Settings) -> Accepted:
    """What the stage's file accepts of what a switch refuses for."""
    text = given_files.policy(settings)
    return Accepted(one_way=settings.one_way_tables, policy=parse_policy(text) if text else None)


def not_made(where: Paths) -> list[str]:
    """The lines of a stage before its first `make up`."""
    return [
        "serves      SQLite: nothing of this stage was made yet",
        f"source      {where.source}",
        "next        `make up`",
    ]


def _lines(settings: Settings, names: Names, where: Paths) -> list[str]:
    if settings.fleet:
        return fleet_status.lines(where)
    local = engine.is_local(settings.docker_host)
    if settings.settled and not (local and where.source.exists()):
        return settled(settings, where)
    if local and not where.connection.exists():
        return not_made(where)
    if local:
        given = Given(accepted=accepted(settings))
        return status(
            where.source, dsn=None, connection=where.connection, state=where.job, given=given
        )
    return there(settings, names, where)


def main() -> int:
    """Print the lines; the process's exit status."""
    stage = sys.argv[1]
    try:
        settings = read_file(ROOT / f"Pulumi.{stage}.yaml")
        names = Names(settings.application, stage)
        lines = _lines(settings, names, paths(settings, stage))
        missing, engines = asked(settings, names)
        several = of_members(settings, names)
        major = serving(settings, names)[0].postgres_version
        ended = "" if settings.external else support.warning(major)
        for line in in_stages_lines(lines, stage):
            if line.startswith("next "):
                print(engines)
                if several:
                    print(f"members     {several}")
                if settings.upgrade_to:
                    print(f"upgrade     {in_upgrade(settings, stage)}")
                if settings.backup_drill_hours:
                    print(f"drill       {drilled(settings, names)}")
                if ended:
                    print(f"support     {ended}")
                line = after_healing(line, stage) if missing else line
            print(line)
    except (StageError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return int(ExitStatus.USAGE)
    return int(ExitStatus.DONE)


if __name__ == "__main__":
    last_resort.main(main)
