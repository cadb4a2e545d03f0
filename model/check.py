"""Checks the model of the protocol: `make model`, or `python -m model.check`.

First the protocol as it is, in each scenario: the rules must hold in every reachable state. Then
once for each step with that step left out, or taken too early: a rule must break, or the step would
not be needed - or the model would not see what it is for.

Needs Debian's `spin` and `gcc`. Exit status 0 when all is as expected, 1 when not, 2 without the
programs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROTOCOL = Path(__file__).with_name("protocol.pml")
UPGRADE = Path(__file__).with_name("upgrade.pml")
"""The move between two servers of PostgreSQL: a model of its own."""
PROGRAMS = ("spin", "gcc")
DEPTH = 1_000_000
"""Steps of the longest path that `pan` follows; a longer one makes the check fail."""
MEMORY_MB = 4_000

RULES = {
    1: "never both sides open to writes",
    2: "what was acknowledged is on every side that is open",
    3: "no decision without a certificate up to the fence",
    4: "whatever is cut off ends with the application served",
    5: "nothing is changed silently",
    6: "no request turned away that could have been held",
    7: "what an operator holds is not opened before its end",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One setting of the model's budgets."""

    name: str
    flags: str
    about: str
    model: Path = PROTOCOL


@dataclass(frozen=True, slots=True)
class Mutant:
    """The protocol with one step changed, the rule that must break, and where."""

    name: str
    rule: int
    scenario: str
    about: str
    model: Path = PROTOCOL


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `pan` found: no broken rule, or which; ``states`` it looked at; how long it took."""

    broken: int | None
    states: int
    seconds: float


SCENARIOS = (
    Scenario("switch", "-DCRASHES=2 -DLOSSES -DRESTARTS=0", "two deaths, lost answers"),
    Scenario("switch, restart", "-DCRASHES=1 -DLOSSES", "a death and a restarted server"),
    Scenario(
        "rollback",
        "-DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=2 -DLOSSES -DRESTARTS=0",
        "two deaths, lost answers",
    ),
    Scenario(
        "rollback, restart",
        "-DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=1 -DLOSSES -DFAULTS=0",
        "a death and a restarted server",
    ),
    Scenario(
        "there and back",
        "-DOPERATIONS=4 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
        "four operations, a death in any of them",
    ),
    Scenario(
        "power cut",
        "-DPOWER -DCRASHES=1 -DFAULTS=0 -DREMOVAL -DOPERATIONS=3",
        "commits that reach the disk late; capture removed and installed again",
    ),
    Scenario(
        "frozen holder",
        "-DFREEZE -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0 -DOPERATIONS=3",
        "a job that stands still with all that it holds, there and back",
    ),
    Scenario(
        "lost trigger",
        "-DLOSE=2 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0 -DOPERATIONS=3",
        "triggers taken away and put back between any two steps",
    ),
    Scenario(
        "replaced file",
        "-DREPLACE -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0 -DOPERATIONS=3",
        "a backup renamed over the file between any two steps",
    ),
    Scenario(
        "forgets the switch",
        "-DFORGET -DOPERATIONS=3 -DCRASHES=0 -DRESTARTS=0 -DFAULTS=0",
        "the target forgets its last commits, anywhere, once",
    ),
    Scenario(
        "forgets, serving",
        "-DFORGET -DSTART_SWITCHED -DOPERATIONS=2 -DCRASHES=0 -DRESTARTS=0 -DFAULTS=0",
        "the same from the way back on: rollback, and a switch again",
    ),
    Scenario(
        "forgets, death",
        "-DFORGET -DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
        "the same, and a death",
    ),
    Scenario(
        "hold and resume",
        "-DLEASE=1 -DOPERATIONS=4 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
        "an operator's hold with an end, there and back, and a death",
    ),
    Scenario(
        "altered, serving",
        "-DALTER -DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
        "a column with a default is added on PostgreSQL, and a death",
    ),
)

_NOTHING = "-DCRASHES=0 -DRESTARTS=0 -DFAULTS=0"
SMALL = {
    "switch": _NOTHING,
    "switch, wrong value": "-DCRASHES=0 -DRESTARTS=0",
    "switch, death": "-DOPERATIONS=3 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "switch, restart": "-DCRASHES=0 -DFAULTS=0",
    "rollback": f"-DSTART_SWITCHED -DOPERATIONS=1 {_NOTHING}",
    "rollback, wrong value": "-DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=0 -DRESTARTS=0",
    "rollback, death": "-DSTART_SWITCHED -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "rollback, restart": "-DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=0 -DFAULTS=0 -DLOSSES",
    "there and back, death": "-DOPERATIONS=4 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "power cut": "-DPOWER -DCRASHES=0 -DFAULTS=0",
    "power cut, death": "-DPOWER -DCRASHES=1 -DFAULTS=0 -DOPERATIONS=3",
    "frozen holder": "-DFREEZE -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "lost trigger": "-DLOSE=1 -DCRASHES=0 -DRESTARTS=0 -DFAULTS=0",
    "replaced file": "-DREPLACE -DCRASHES=0 -DRESTARTS=0 -DFAULTS=0",
    "forgets": f"-DFORGET -DOPERATIONS=3 {_NOTHING}",
    "forgets, serving": f"-DFORGET -DSTART_SWITCHED -DOPERATIONS=1 {_NOTHING}",
    "hold": f"-DLEASE=1 -DSTART_SWITCHED -DOPERATIONS=1 {_NOTHING}",
    "hold, death": "-DLEASE=1 -DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "altered": f"-DALTER -DSTART_SWITCHED -DOPERATIONS=1 {_NOTHING}",
    "altered, death": "-DALTER -DSTART_SWITCHED -DOPERATIONS=1 -DCRASHES=1 -DRESTARTS=0 -DFAULTS=0",
    "capture removed": f"-DSTART_SWITCHED -DOPERATIONS=4 -DREMOVAL {_NOTHING}",
}
"""The smallest settings in which a mutant shows itself."""

MUTANTS = (
    # the copy
    Mutant("EARLY_SNAPSHOT", 2, "switch", "the snapshot is taken before capture is installed"),
    # catch-up
    Mutant("EARLY_STATES", 2, "switch, death", "rows are read before the log, not with it"),
    Mutant("OMIT_ONE_TRANSACTION", 2, "switch, death", "the position is written before the rows"),
    Mutant("OMIT_GENERATION", 2, "capture removed", "a position of an earlier capture is believed"),
    Mutant("OMIT_SYNC_WAL", 2, "power cut", "changes are applied that SQLite's disk does not have"),
    Mutant("EARLY_SYNC_WAL", 2, "power cut, death", "the disk is flushed before the log is read"),
    # the lock
    Mutant("OMIT_TAKEOVER", 2, "there and back, death", "sessions of the dead are not ended"),
    Mutant("OMIT_WATCHDOG", 4, "frozen holder", "nobody ends a job that stands still"),
    Mutant("OMIT_LOOK", 2, "lost trigger", "the triggers are not looked at in the fence"),
    Mutant("OMIT_COOKIE", 2, "lost trigger", "the fence closes over any schema cookie"),
    Mutant("OMIT_COMPARE", 2, "lost trigger", "a moved cookie is taken note of, nothing compared"),
    Mutant("OMIT_TOKEN", 2, "replaced file", "an older copy's log is taken for the one followed"),
    Mutant("OMIT_FILE", 1, "replaced file", "the path is not looked at in the fence"),
    Mutant("OMIT_SYNC", 4, "switch, death", "nobody takes over from the dead"),
    # the switch
    Mutant("OMIT_HOLD_WRITERS", 3, "switch", "writers are not held"),
    Mutant("OMIT_DRAIN", 2, "switch", "the log's rest is not applied"),
    Mutant("OMIT_VERIFY", 5, "switch, wrong value", "what was applied is not compared"),
    Mutant("OMIT_CERTIFICATE", 3, "switch", "no certificate is written"),
    Mutant("STALE_CERTIFICATE", 3, "switch, death", "a certificate of an earlier try is believed"),
    Mutant("OMIT_FLUSH", 2, "switch, restart", "PostgreSQL's disk may lack what was certified"),
    Mutant("OMIT_DURABLE_DECISION", 1, "power cut", "the decision may be lost with the power"),
    Mutant("OMIT_DECISION", 4, "switch", "the source stays open"),
    Mutant("OMIT_OPEN_FENCE", 4, "switch", "the target's fence stays closed"),
    Mutant("OMIT_ALIAS", 6, "switch", "the alias is not written"),
    Mutant("OMIT_RELOAD", 6, "switch", "PgBouncer does not read the alias"),
    Mutant("OMIT_CONNECTION", 4, "switch", "the connection stays on SQLite"),
    Mutant("EARLY_ALIAS", 6, "rollback, wrong value", "the alias opens before the fence"),
    Mutant("EARLY_CONNECTION", 6, "switch", "the connection is replaced before the doors open"),
    # the way back
    Mutant("EARLY_QUEUE_STATES", 2, "rollback", "rows are read before the queue, not with it"),
    Mutant("EARLY_DELETE", 2, "rollback, death", "the queue is emptied before SQLite has it"),
    Mutant("OMIT_SEEN_ONLY", 2, "rollback", "the whole queue is emptied, not what was read"),
    # the target's memory
    Mutant("OMIT_PROOF", 2, "forgets", "the target opens without the certificate"),
    Mutant("OMIT_UNTOUCHED", 2, "forgets, serving", "it is brought up again while it serves"),
    Mutant("OMIT_LOG_BACK", 2, "forgets", "what came back is not in the source's log"),
    Mutant("OMIT_BATCH_TOKEN", 2, "forgets, serving", "a batch leaves no token on the target"),
    Mutant("EARLY_TOKEN", 2, "forgets, serving", "the token is written before the rows are read"),
    # what an operator holds
    Mutant("OMIT_LEASE_LOOK", 7, "hold", "sync opens what an operator holds"),
    Mutant("OMIT_LEASE_END", 4, "hold", "nobody ends a hold whose end has come"),
    Mutant("EARLY_PAUSE", 4, "hold, death", "the PAUSE is sent before the lease is written"),
    # changes of PostgreSQL's schema
    Mutant("OMIT_SCHEMA", 2, "altered", "the schema is not looked at"),
    Mutant("EARLY_RECORD", 2, "altered, death", "the record is made before SQLite's column"),
    Mutant("OMIT_AGAIN", 2, "altered", "rows that got a default are not read again"),
    # the rollback
    Mutant("OMIT_PAUSE", 6, "rollback", "PgBouncer does not hold the queries"),
    Mutant("OMIT_SHUT_FENCE", 1, "rollback", "the target's fence is not closed"),
    Mutant("OMIT_EXCLUSIVE", 6, "rollback, restart", "it closes without waiting for writers"),
    Mutant("OMIT_END_SESSIONS", 2, "rollback, restart", "old snapshots still see it open"),
    Mutant("OMIT_DRAIN_BACK", 2, "rollback", "the queue's rest is not applied"),
    Mutant("OMIT_VERIFY_BACK", 5, "rollback, wrong value", "what came back is not compared"),
    Mutant("OMIT_DECISION_BACK", 4, "rollback", "the source stays closed"),
    Mutant("OMIT_CONNECTION_BACK", 6, "rollback", "the connection stays on PostgreSQL"),
    Mutant("OMIT_ALIAS_REMOVAL", 4, "rollback", "the alias stays"),
    Mutant("OMIT_RELOAD_BACK", 4, "rollback", "PgBouncer does not read that it has gone"),
    Mutant("OMIT_RESUME_BACK", 4, "rollback", "PgBouncer stays paused"),
    Mutant("OMIT_RESUME", 4, "rollback, wrong value", "the same, where a rollback is undone"),
    Mutant("EARLY_ALIAS_REMOVAL", 6, "rollback", "the alias goes before the connection"),
)

UPGRADE_SCENARIO = Scenario(
    "upgrade", "-DCRASHES=3 -DMOVES=3", "three deaths, there and back and there", UPGRADE
)

UPGRADE_MUTANTS = tuple(
    Mutant(name, rule, "upgrade", about, UPGRADE)
    for name, rule, about in (
        ("OMIT_PAUSE", 6, "PgBouncer does not hold the queries"),
        ("OMIT_FENCE", 1, "the serving server is not closed"),
        ("OMIT_SESSIONS", 2, "sessions from before it was closed are not ended"),
        ("OMIT_DRAIN", 3, "the rest is not waited for"),
        ("OMIT_BEGIN_AFTER", 5, "the way back begins where its slot was made"),
        ("OMIT_UNDO", 6, "a hold without a decision leaves the server closed"),
        ("OMIT_ALIAS", 6, "the alias leads to the server that was left"),
        ("OMIT_RESUME", 4, "PgBouncer stays paused"),
        ("EARLY_OPEN", 1, "the other server opens before the decision"),
        ("EARLY_ENABLE", 5, "the way back is received before the way there has ended"),
    )
)


def check(
    flags: str, *, model: Path = PROTOCOL, optimise: str = "-O2", limit: float = 600.0
) -> Outcome:
    """Look at every reachable state of the model under these flags, or stop at a broken rule.

    ``optimise`` is gcc's: compiling takes longer than a small search. Raises RuntimeError where the
    search did not end, or ended without an answer.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        run = _runner(Path(folder), limit)
        shutil.copy(model, folder)
        run("spin", *flags.split(), "-a", model.name)
        options = (optimise, "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}")
        run("gcc", *options, "-o", "pan", "pan.c")
        output = run("./pan", f"-m{DEPTH}", "-w22")
    return _read(output, time.monotonic() - began, flags)


def check_mutant(mutant: Mutant) -> Outcome:
    """As :func:`check`, for the protocol with that step changed."""
    flags = SMALL.get(mutant.scenario, "")
    return check(f"-D{mutant.name} {flags}", model=mutant.model, optimise="-O0")


def _runner(folder: Path, limit: float) -> Callable[..., str]:
    def run(*command: str) -> str:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, timeout=limit, check=False
        )
        if done.returncode != 0 and command[0] != "./pan":
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    return run


def _read(output: str, seconds: float, flags: str) -> Outcome:
    states = re.search(r"^\s*(\d+)(?:\.\d+e\+\d+)? states, stored", output, re.M)
    errors = re.search(r"errors: (\d+)", output)
    incomplete = "max search depth too small" in output or "Search not completed" in output
    if states is None or errors is None:
        raise RuntimeError(f"no answer from pan for {flags}:\n{output}")
    if errors[1] != "0":
        # `assert(0 == n)` marks rule n; a process that cannot go on breaks rule 4.
        rule = re.search(r"assertion violated.*\(0==(\d)\)", output)
        if rule is not None:
            return Outcome(int(rule[1]), int(states[1]), seconds)
        if "invalid end state" in output:
            return Outcome(4, int(states[1]), seconds)
        raise RuntimeError(f"an error that is no broken rule, for {flags}:\n{output}")
    if incomplete:
        raise RuntimeError(f"the search did not look at every state for {flags}:\n{output}")
    return Outcome(None, int(states[1]), seconds)


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def main() -> int:
    parser = argparse.ArgumentParser(description="check the model of the protocol with spin")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    workers = parser.parse_args().workers
    absent = missing()
    if absent:
        sys.stderr.write(f"error: not installed: {', '.join(absent)}\n")
        sys.stderr.write("install them (Debian: apt-get install spin gcc) and run it again\n")
        return 2
    began = time.monotonic()
    good = True
    with ThreadPoolExecutor(workers) as pool:
        # The long ones first, so that the short ones fill the gaps.
        wholes = [
            (s, pool.submit(check, s.flags, model=s.model)) for s in (*SCENARIOS, UPGRADE_SCENARIO)
        ]
        changed = [(m, pool.submit(check_mutant, m)) for m in (*MUTANTS, *UPGRADE_MUTANTS)]
        print("The protocol as it is: every rule in every reachable state")
        for scenario, future in wholes:
            good &= _tell_scenario(scenario, future.result())
        print("\nOne step left out, or taken too early: a rule must break")
        for mutant, future in changed:
            good &= _tell_mutant(mutant, future.result())
    print(f"\n{'all as expected' if good else 'NOT as expected'}, {time.monotonic() - began:.0f} s")
    return 0 if good else 1


def _tell_scenario(scenario: Scenario, found: Outcome) -> bool:
    good = found.broken is None
    verdict = "holds" if good else f"BREAKS rule {found.broken}"
    print(
        f"  {scenario.name:<18} {verdict}  {found.states:>10,} states {found.seconds:6.1f} s"
        f"  {scenario.about}",
        flush=True,
    )
    return good


def _tell_mutant(mutant: Mutant, found: Outcome) -> bool:
    good = found.broken == mutant.rule
    verdict = "breaks none" if found.broken is None else f"breaks rule {found.broken}"
    wrong = "" if good else f"  EXPECTED rule {mutant.rule}"
    print(f"  {mutant.name:<24} {verdict}  {mutant.about}{wrong}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
