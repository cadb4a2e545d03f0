"""Each command that a page shows as one to type is run by a test, which is named here. Of a target
of make it may run what the target runs; that the target runs it is shown by test_makefile.py.

A command of a new form (another target, another variable, another option) fails by its name in
test_docs.py until a test runs it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
GENERATED = "docs/commands.md"
PROGRAM = "migration-job"

FULL = "tests/deployment/test_full_stage.py"
THERE_AND_BACK = (
    "tests/deployment/test_example_on_docker.py::test_there_and_back_without_a_failed_request"
)
SETTLED = "tests/deployment/test_settled.py::test_it_is_postgresql_for_good"
AGAIN = "tests/deployment/test_upgrade_again.py::test_two_upgrades_one_after_the_other"
NEWER = "tests/deployment/test_settled.py::test_it_comes_to_a_newer_postgresql"
CONFIG = "tests/deployment/test_commands_of_the_docs.py::test_it_changes_the_stage_file"
EXISTING = "tests/integration/test_existing.py"
TRIED_FIRST = f"{EXISTING}::test_what_the_target_demands_is_tried_first"
FILLS = f"{EXISTING}::test_fills_the_application_s_own_tables"
PROVES = f"{EXISTING}::test_the_application_proves_itself_on_a_copy"
TWO_FILES = "tests/integration/test_schema_name.py::test_two_files_live_in_one_database"
SUGGESTED = "tests/integration/test_suggested_policy.py::test_more_rows_than_quarantine_takes"
LIVE_FLEET = "tests/integration/test_fleet_live.py"
TUTORIAL = "tests/integration/test_demo.py::test_what_blocks_is_resolved_as_the_tutorial_says"
DEMO = "tests/integration/test_demo.py::test_a_file_of_ones_own_is_rehearsed_live_on_a_copy"

RUN_BY = {
    "make check": f"{FULL}::test_check_passes_with_all_of_it_on",
    "make config ARGS": CONFIG,
    "make demo": "tests/integration/test_demo.py::"
    "test_a_live_application_is_switched_and_back_with_nothing_lost",
    "make demo OPTIONS": "tests/unit/test_makefile.py::test_options_are_words_and_nothing_else",
    "make demo OPTIONS SOURCE": "tests/unit/test_makefile.py::"
    "test_options_are_words_and_nothing_else",
    "make demo SOURCE": DEMO,
    "make down": f"{FULL}::test_down_goes_back_and_leaves_nothing",
    "make drill": f"{FULL}::test_a_restore_drill_passes_at_once",
    "make pulumi ARGS": "tests/deployment/test_commands_of_the_docs.py::"
    "test_any_other_command_of_pulumis_finds_the_stage",
    "make restore AT": f"{FULL}::test_a_dropped_table_comes_back_as_of_the_second_before",
    "make restore INPLACE": "tests/deployment/test_restore_in_place.py::"
    "test_a_lost_volume_is_brought_back_by_one_command",
    "make restore-sqlite TO": f"{FULL}::test_the_sqlite_file_from_before_comes_back",
    "make switchover": "tests/deployment/test_members.py::test_a_switchover_fails_no_statement",
    "make rotate": f"{FULL}::test_passwords_rotate_under_the_application",
    "make status": SETTLED,
    "make up": f"{FULL}::test_a_second_up_changes_nothing",
    "make upgrade BACK": THERE_AND_BACK,
    "make upgrade REMOVE": AGAIN,
    "make upgrade SETTLE": NEWER,
    "make upgrade TO": THERE_AND_BACK,
    "migration-job check-target --live --source --target": "tests/integration/"
    "test_check_target.py::test_the_command_counts_the_source_that_it_is_given",
    "migration-job demo --policy": TUTORIAL,
    "migration-job gate --connection --listen --run --state --upstream": "tests/integration/"
    "test_gate.py::test_an_application_that_must_be_restarted_is_switched_under_load",
    "migration-job fleet --report --target": "tests/integration/"
    "test_fleet.py::test_files_go_into_schemas_in_worker_processes",
    "migration-job fleet --report --target-file": f"{LIVE_FLEET}::"
    "test_one_process_follows_all_files",
    "migration-job fleet-check --target": "tests/integration/"
    "test_fleet_check.py::test_what_somebody_did_to_a_schema_is_told",
    "migration-job fleet-status --report --target-file": f"{LIVE_FLEET}::"
    "test_one_process_follows_all_files",
    "migration-job fleet-switch --tenant": f"{LIVE_FLEET}::"
    "test_one_tenant_goes_over_and_comes_back_by_itself",
    "migration-job fleet-sync --alias-file --connect-to --console-file --report --target-file": ""
    f"{LIVE_FLEET}::test_one_tenant_goes_over_and_comes_back_by_itself",
    "migration-job hold --minutes --reason": "tests/integration/"
    "test_hold.py::test_a_hold_whose_command_died_comes_to_its_end",
    "migration-job inspect": TUTORIAL,
    "migration-job inspect --policy": TUTORIAL,
    "migration-job inspect --policy --profile": "tests/unit/"
    "test_inspect.py::test_the_radcase_profile_takes_a_policy_of_ones_own",
    "migration-job inspect --policy --schema --target": TRIED_FIRST,
    "migration-job inspect --schema --target": f"{EXISTING}::"
    "test_what_no_row_should_go_into_is_refused_first",
    "migration-job inspect --suggest": TUTORIAL,
    "migration-job migrate --except --report --target": "tests/integration/"
    "test_chosen_tables.py::test_only_and_except_leave_tables_on_the_source",
    "migration-job migrate --live --report --schema --state --target": PROVES,
    "migration-job migrate --live --report --schema-name --state --target": TWO_FILES,
    "migration-job migrate --policy --report --schema --target": FILLS,
    "migration-job migrate --policy --report --target": SUGGESTED,
    "migration-job migrate --proof --report --schema --target": PROVES,
    "migration-job migrate --report --schema --target": FILLS,
    "migration-job resume": "tests/integration/"
    "test_hold.py::test_a_resume_that_died_is_finished_by_the_end",
    "migration-job status --connection --state --target-file": "tests/unit/test_docs.py::"
    "test_what_is_typed_in_a_container_is_there",
    "migration-job switch --schema-name": TWO_FILES,
    "migration-job upgrade --alias-file --console-file --from-target-file --report --state "
    "--to-target-file": THERE_AND_BACK,
}

START = re.compile(
    r"(?:\.venv/bin/|uvx .*?)?(?:make|migration-job) |docker exec \S+ python3 -m migration_job "
)
SHOWN_BY_WORDS = ("README.md", "docs/tutorial.md")
"""Pages whose commands in running text are ones to type too."""

OTHERS = {
    ".venv/bin/python -m infra.rotate": "tests/deployment/test_remote.py::"
    "test_the_whole_way_by_ssh",
    "docker exec -it": "tests/unit/test_docs.py::test_what_is_typed_in_a_container_is_there",
    "docker logs --tail": "tests/unit/test_docs.py::test_what_is_typed_in_a_container_is_there",
    "pip install git+REPOSITORY": "tests/integration/test_wheel.py::"
    "test_the_lines_of_the_readme_inspect_a_file",
    "pulumi up -s staging": f"{FULL}::test_a_second_up_changes_nothing",
    "python manage.py createcachetable": "tests/applications/test_django.py::project",
    "python manage.py migrate": "tests/applications/test_django.py::project",
    "radcase=# SET ROLE": "tests/unit/test_docs.py::test_what_is_typed_in_a_container_is_there",
}
"""Commands of other programs, by how they begin."""
ANOTHER = re.compile(r"(?:\.venv/bin/python|docker|pip|psql|python3?|pulumi|radcase=#|uvx) ")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def typed(page: Path) -> list[str]:
    """The commands that stand on lines of their own: in blocks without a language or of a shell's,
    and indented."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line
        for language, block in BLOCK.findall(text)
        if language in ("", "sh")
        for line in block.splitlines()
    ]
    lines += re.findall(r"^ {4,}(\S.*)$", BLOCK.sub("", text), re.MULTILINE)
    if page.relative_to(ROOT).as_posix() in SHOWN_BY_WORDS:
        lines += re.findall(r"`(make [a-z-]+ [A-Z]+=[^`\n]*)`", BLOCK.sub("", text))
    return [line.strip() for line in lines if START.match(line.strip())]


def of_others(page: Path) -> list[str]:
    """The commands of other programs: every line of a shell's block but its comments, those that
    are indented, and those with an argument in the running text of README and tutorial."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    rest = BLOCK.sub("", text)
    lines = [
        line.strip()
        for language, block in BLOCK.findall(text)
        if language == "sh"
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    aside = re.findall(r"^ {4,}(\S.*)$", rest, re.MULTILINE)
    lines = [line for line in lines if not line.startswith("-")]  # an option by itself
    if page.relative_to(ROOT).as_posix() in SHOWN_BY_WORDS:
        aside += re.findall(r"`(\S+ \S+ [^`\n]+)`", rest)
    lines += [line for line in aside if ANOTHER.match(line)]
    return [line for line in lines if not START.match(line)]


COMMANDS = sorted(
    {
        line
        for page in PAGES
        if page.relative_to(ROOT).as_posix() != GENERATED
        for line in typed(page)
    }
)


def words(line: str) -> list[str]:
    """From `make` or the job's name on."""
    found = shlex.split(line.partition(" > ")[0], comments=True)
    while found[0] not in ("make", "migration_job") and not found[0].endswith(PROGRAM):
        found.pop(0)
    return found


def form(line: str) -> str:
    """What is typed, without values, and without the stage that it is typed for."""
    program, name, *rest = words(line)
    if program == "make":
        named = {word.partition("=")[0] for word in rest} - {"STAGE"}
    else:
        program, named = PROGRAM, {w.partition("=")[0] for w in rest if w.startswith("--")}
    return " ".join([program, name, *sorted(named)])
