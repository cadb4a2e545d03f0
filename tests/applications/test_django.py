"""A Django project: its own schema on PostgreSQL, there while it writes, used, altered by a later
migration, and back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from migration_job.embedded import EmbeddedPostgres
from tests.applications.environment import application, command, python_with
from tests.applications.life import at_work
from tests.applications.page import Shown, of_python, tell
from tests.integration.running import DONE, run
from tests.integration.test_existing import definitions

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 71
"""Of ``use.py``; two more are meant to fail, on either side, since a constraint forbids them."""

WORK = """
import os, django
os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'
django.setup()
import datetime, itertools, time
from django.db import transaction
from django.utils import timezone
from shop.models import Customer, Item, Order, Tag
tag = Tag.objects.exclude(parent=None).first()  # use.py deletes one without a parent
for number in itertools.count(1):
    if os.path.exists('stop'):
        break
    name = f'work {number:06}'
    with transaction.atomic():
        customer = Customer.objects.create(name=name, email=f'{number}@work.org', vip=number % 2,
                                           prefs={'n': number}, born='1999-01-01',
                                           wakes=datetime.time(1, 2, 3, number))
        order = Order.objects.create(customer=customer, placed=timezone.now(), amount='1.5')
        order.lines.create(item_id='SKU0002', qty=number)
        Item.objects.create(sku=name, title=name, price=number % 7, stock=1, image=b'x' * number,
                            lead=datetime.timedelta(seconds=-number)).tags.add(tag)
    Customer.objects.filter(name=f'work {number - 1:06}').update(born='2000-01-01', website='x')
    Tag.objects.create(name='passing', slug='passing').delete()
    with open('working', 'a') as log:
        print(name, file=log)
    time.sleep(0.005)
"""
"""Makes rows until there is a file ``stop``; each that was acknowledged is in ``working``."""

WORKED = """
import os, django
os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'
django.setup()
from shop.models import Customer, Item
names = Customer.objects.filter(name__startswith='work ', order__lines__item='SKU0002')
items = Item.objects.filter(sku__startswith='work ', tags__isnull=False)
assert sorted(names.values_list('name', flat=True)) == sorted(items.values_list('sku', flat=True))
print(*sorted(names.values_list('name', flat=True)), sep='\\n')
"""
"""Prints what ``WORK`` has made."""

WRITES = """
import os, django
os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'
django.setup()
import datetime
from django.utils import timezone
from shop.models import Customer, Item, Line, Order, Tag
Order.objects.create(customer=Customer.objects.first(), placed=timezone.now(), amount='7.25')
Item.objects.filter(sku='SKU0001').update(lead=datetime.timedelta(hours=-1), meta={'zz': [1.5]})
Tag.objects.create(name='live', slug='live')
Line.objects.filter(pk__lt=4).delete()
"""

LATER = (
    ("    qty = models.IntegerField()", "    qty = models.BigIntegerField(default=1)"),
    ("    qty = ", "    memo = models.CharField(max_length=30, default='')\n    qty = "),
    ("name = models.CharField(max_length=100,", "name = models.CharField(max_length=120,"),
    (", models.Index(fields=['-price','title'],name='price_title')", ""),
    (
        "models.CheckConstraint(condition=Q(price__gte=0),name='price_pos')",
        "models.CheckConstraint(condition=Q(price__gte=-5),name='price_low')",
    ),
)
"""What a later version of the models changes: types, a column, a named index and CHECK dropped."""

ONE_MORE = """
import os, django
os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'
django.setup()
from shop.models import Item, Line, Order
print(Line.objects.create(order=Order.objects.first(), item=Item.objects.first(), qty=2**40,
                          memo='later').pk)
"""


@dataclass
class Project:
    """The project in a folder of its own, its database on PostgreSQL, and the job between them."""

    folder: Path
    python: Path
    dsn: str

    @property
    def source(self) -> Path:
        return self.folder / "db.sqlite3"

    def on_sqlite(self, *arguments: str) -> str:
        return command(self.python, self.folder, *arguments)

    def on_postgres(self, *arguments: str) -> str:
        parts = {name: str(value) for name, value in conninfo_to_dict(self.dsn).items()}
        return command(
            self.python,
            self.folder,
            *arguments,
            PGDB=parts["dbname"],
            PGPORT=parts["port"],
            PGPASSWORD=parts["password"],
        )

    def job(self, name: str, *options: str | Path) -> str:
        """A command of the job's, which has to go well."""
        beside = self.folder.parent
        ended = run(
            *(name, self.source, "--target", self.dsn, "--report", beside / "report"),
            *("--state", beside / "state", *options),
        )
        assert ended.status == DONE, ended.said
        return ended.said


@pytest.fixture
def project(postgres: str, tmp_path: Path) -> Project:
    made = Project(
        application("django", tmp_path), python_with("requirements-django.txt"), postgres
    )
    made.on_postgres("manage.py", "migrate")
    made.on_postgres("manage.py", "createcachetable")
    (tmp_path / "to.json").write_text(
        '{"host": "127.0.0.1", "database": "d", "user": "u", "password": "p"}'
    )
    return made


@pytest.fixture
def schema_of(postgres_server: EmbeddedPostgres) -> Callable[[str], str]:
    """The definitions of a database, as pg_dump writes them."""

    def dump(dsn: str) -> str:
        made = subprocess.run(
            [postgres_server.program("pg_dump"), "--exclude-schema=migration", dsn],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = made.stdout.splitlines()
        return definitions("\n".join(line for line in lines if "restrict" not in line))

    return dump


def failures(said: str) -> set[str]:
    """The steps of ``use.py`` that failed."""
    return {match[1] for match in re.finditer(r"^FAIL (.*?) [A-Za-z]+Error", said, re.MULTILINE)}


FORBIDDEN = {"check constraint", "lower unique"}


def test_offline_into_the_project_s_own_schema(
    project: Project, schema_of: Callable[[str], str]
) -> None:
    before = schema_of(project.dsn)
    ended = run(
        *("migrate", project.source, "--target", project.dsn, "--schema", "existing"),
        *("--report", project.folder.parent / "report"),
    )
    assert ended.status == DONE, ended.said
    assert schema_of(project.dsn) == before
    said = project.on_postgres("use.py")
    assert failures(said) == FORBIDDEN, said
    assert f"ok {STEPS} bad 2" in said
    project.on_postgres("manage.py", "migrate", "--check")


def test_there_while_it_writes_and_back_after_a_later_migration(project: Project) -> None:
    folder = project.folder.parent
    live = ("--connection", folder / "connection", "--connect-to", folder / "to.json")
    with at_work(lambda: project.on_sqlite("-c", WORK), project.folder) as rows:
        project.job("migrate", "--schema", "existing", "--live")
    assert project.on_sqlite("-c", WORKED).splitlines() == rows
    project.on_sqlite("-c", WRITES)
    project.job("switch", *live)
    assert project.on_postgres("-c", WORKED).splitlines() == rows
    said = project.on_postgres("use.py")
    assert failures(said) == FORBIDDEN, said
    assert f"ok {STEPS} bad 2" in said

    models = project.folder / "shop" / "models.py"
    text = models.read_text()
    for old, new in LATER:
        assert old in text
        text = text.replace(old, new, 1)
    models.write_text(text)
    project.on_postgres("manage.py", "makemigrations", "shop")
    project.on_postgres("manage.py", "migrate")
    made = project.on_postgres("-c", ONE_MORE).strip()

    # Both versions of the models read the file: a column more is on SQLite, too.
    project.job("rollback", *live)
    found = project.on_sqlite(
        "-c",
        "import sqlite3; print(sqlite3.connect('db.sqlite3').execute("
        f"'SELECT qty, memo FROM shop_line WHERE id = {made}').fetchone())",
    )
    assert found.strip() == f"({2**40}, 'later')"
    # The file has what the later migration made: marked as applied, as the page says, it is kept.
    project.on_sqlite("manage.py", "migrate", "--fake")
    project.on_sqlite("manage.py", "migrate", "--check")
    assert project.on_sqlite("-c", WORKED).splitlines() == rows
    memo = f"from shop.models import Line; print(Line.objects.get(pk={made}).memo)"
    assert project.on_sqlite("manage.py", "shell", "-v", "0", "-c", memo).strip() == "later"
    said = project.on_sqlite("use.py")
    # What has been done on PostgreSQL is done: these have no second time, on either side.
    again = {"deferred fk: child before parent", "delete cascade customer", "delete user"}
    only_postgres = {"json contains2"}
    assert failures(said) <= FORBIDDEN | again | only_postgres, said
    tell(
        Shown(
            "a Django project (admin, auth, sessions, sites, flatpages, a queue, a result store; "
            "27 tables)",
            of_python("requirements-django.txt", "Django", "django-q2", "django_celery_results"),
            moved="offline, and live while it writes",
            used=f"{STEPS} of {STEPS} steps (two more are forbidden by constraints, on SQLite as "
            "well)",
        ),
        project.dsn,
    )
