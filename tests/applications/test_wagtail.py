"""A Wagtail site: pages, images, revisions, forms, workflows, and a search that each engine holds
in its own way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.applications.environment import HERE, command, python_with
from tests.applications.life import there_and_back
from tests.applications.page import Shown, of_python, tell

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

TEMPLATES = ("article", "contact", "contact_landing")

LATER = (
    ("max_length=60)", "max_length=90)\n    memo = models.CharField(max_length=30, default='-')"),
    ("max_digits=8", "max_digits=12"),
    ('rate__gte=0), name="author_rate_positive"', 'rate__gte=-5), name="author_rate_low"'),
    ('["name", "born"], name="author_once"', '["name", "born", "uid"], name="author_once_each"'),
    ('models.Index(fields=["-rate", "name"], name="author_by_rate")', ""),
)
"""What a later version of the models changes: types, a column, a named CHECK and a named UNIQUE
replaced by others, a named index dropped."""

REBUILD = "manage.py update_index"
"""What the finding has to name; the site's step ``rebuild`` runs it."""


def site(folder: Path, python: Path) -> None:
    """The project in a folder, with its first migration."""
    parts = HERE / "wagtail"
    for name in ("settings", "urls", "steps"):
        shutil.copyfile(parts / f"{name}.py.txt", folder / f"{name}.py")
    (folder / "pages" / "migrations").mkdir(parents=True)
    for package in ("pages", "pages/migrations"):
        (folder / package / "__init__.py").touch()
    shutil.copyfile(parts / "models.py.txt", folder / "pages" / "models.py")
    (folder / "templates" / "pages").mkdir(parents=True)
    for name in TEMPLATES:
        (folder / "templates" / "pages" / f"{name}.html").write_text("<h1>{{ page.title }}</h1>")
    django(python, folder, "makemigrations", "pages")


def django(python: Path, folder: Path, *arguments: str) -> str:
    return command(python, folder, "-m", "django", *arguments, DJANGO_SETTINGS_MODULE="settings")


def next_version(folder: Path, python: Path) -> None:
    """The site's next models, with the migration that leads to them."""
    models = folder / "pages" / "models.py"
    text = models.read_text()
    for old, new in LATER:
        assert old in text, old
        text = text.replace(old, new, 1)
    models.write_text(text)
    django(python, folder, "makemigrations", "pages", "--name", "later")


def test_there_and_back(postgres: str, tmp_path: Path) -> None:
    python = python_with("requirements-wagtail.txt")
    site(tmp_path, python)
    parts = {name: str(value) for name, value in conninfo_to_dict(postgres).items()}
    keys = ("dbname", "user", "password", "host", "port")
    there = json.dumps(
        {"ENGINE": "django.db.backends.postgresql"}
        | {{"dbname": "NAME"}.get(key, key.upper()): parts[key] for key in keys}
    )

    def steps(side: str, *names: str) -> str:
        if "upgrade" in names:
            next_version(tmp_path, python)
        variables = {"SITE_DATABASE": side} if side else {}
        return command(python, tmp_path, "steps.py", *names, **variables)

    found: list[dict[str, str]] = []

    def watched(side: str, *names: str) -> str:
        if "write" in names:  # the report of the migration, before the switch writes its own
            found.extend(json.loads((tmp_path / "report" / "report.json").read_text())["findings"])
        return steps(side, *names)

    there_and_back(watched, "", there, postgres, tmp_path, rebuild=("rebuild",))
    told = {(one["code"], one["table"]): one["message"] for one in found}
    index = told["search-table", "wagtailsearch_indexentry"]
    assert re.search(rf"`{REBUILD}` .*after the switch, and on SQLite after a rollback", index)
    assert REBUILD in told["virtual-table-not-carried", "wagtailsearch_indexentry_fts"]
    assert not [one for one in found if one["severity"] == "error"]
    tell(
        Shown(
            "a Wagtail site (pages, revisions, workflows, images, forms, search; 60 tables)",
            of_python("requirements-wagtail.txt", "wagtail", "Django", "modelsearch"),
            used="every result is SQLite's, after `update_index`",
        ),
        postgres,
    )
