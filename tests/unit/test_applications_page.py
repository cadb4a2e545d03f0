"""The page of applications keeps a line for each, and takes a new one in its place."""

from __future__ import annotations

from tests.applications.page import HEAD, of_go, of_node, of_python, with_line

PAGE = f"# Title\n\n{HEAD}\n|---|\n| b (x) | 1 |\n| d | 2 |\n\nMore.\n\nEnd.\n"


def test_a_line_takes_the_place_of_its_application() -> None:
    changed = with_line(with_line(PAGE, "| b (y, z) | 3 |"), "| c | 4 |")
    assert changed == (
        f"# Title\n\n{HEAD}\n|---|\n| b (y, z) | 3 |\n| c | 4 |\n| d | 2 |\n\nMore.\n\nEnd.\n"
    )


def test_versions_are_those_that_are_pinned() -> None:
    assert of_python("requirements-peewee.txt", "peewee").startswith("peewee ")
    assert of_node("knex", "pg").count(",") == 1
    assert of_go("gorm", "gorm.io/gorm").startswith("gorm.io/gorm 1.")
