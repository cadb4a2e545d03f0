"""A stage that was settled loses its data volume and is restored to a moment before it was settled:
the fence and the way back's triggers come with the backup, and nobody is left who would open it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.execution import execute
from tests.deployment.radcase import application, lose_data, staged, until, up
from tests.deployment.test_restore_in_place import backed_up, write, written
from tests.deployment.workshop import Workshop, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("settled-restored")
    with staged(directory, seed=14, strategy="blue-green", backup=True, settleAfterHours=0) as made:
        up(made)
        yield made


def test_it_takes_writes_and_has_no_way_back(workshop: Workshop) -> None:
    names = workshop.names
    until(lambda: backed_up(workshop), "the first backup")
    assert write(workshop, "before it was settled")
    with application(workshop) as connection:
        (moment,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
    up(workshop, cutover="settled")
    assert write(workshop, "after it was settled")
    execute(workshop.client.containers.get(names.backup), ["pgbackrest", "--stanza=main", "check"])
    for name in (names.postgres, names.backup):
        workshop.client.containers.get(name).kill()
    lose_data(workshop, names.backup)

    done = run(workshop, "-m", "infra.restore", workshop.stage, "--in-place", "--at", moment)
    assert done.returncode == 0, done.stderr
    up(workshop)
    until(lambda: written(workshop) == {"before it was settled"}, "the rows of that moment")
    assert write(workshop, "on what was restored")
    with application(workshop) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal), "
            "(SELECT count(*) FROM pg_class WHERE relname IN ('fence', 'reverse_log')), "
            "(SELECT count(*) FROM pg_proc WHERE proname ~ '^(guard|log_[0-9]+)$')"
        ).fetchone()
    assert found == (0, 0, 0)
    status = run(workshop, "-m", "tools.status", workshop.stage)
    assert "way back    given up by settle" in status.stdout, status.stdout + status.stderr
