"""What a docstring refers to by ``:func:``, ``:class:``, ``:mod:`` and the like is there.

Everything is read from the text, so no module has to be importable on this machine.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("migration_job", "infra", "tools", "policy", "example_app", "benchmarks", "model"),
    "tests",
)
REFERENCE = re.compile(r":(?:mod|func|class|meth|data|attr|exc):`([^`]+)`")


@dataclass(slots=True)
class Space:
    """The names of a module or a class: each with what it leads to."""

    names: dict[str, Space | str | None] = field(default_factory=dict)
    """A class is a space, an imported name a dotted one, everything else None."""
    bases: list[str] = field(default_factory=list)


def file_of(module: str) -> Path | None:
    """Where the module is, None where this project has no such module."""
    path = ROOT.joinpath(*module.split("."))
    if module and (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if module and path.with_suffix(".py").is_file() else None


@cache
def space_of(module: str) -> Space:
    """The names at the top of one of this project's modules."""
    path = file_of(module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return read_space(ast.parse(path.read_text(encoding="utf-8")), package)


def read_space(node: ast.AST, package: str) -> Space:
    """The names that the module or class defines, those under an ``if`` or ``try`` as well."""
    found = Space()
    if isinstance(node, ast.ClassDef):
        found.bases = [ast.unparse(base) for base in node.bases]
    for child in ast.walk(node) if isinstance(node, ast.ClassDef) else top(node):
        match child:
            case ast.ClassDef() if child is not node:
                found.names[child.name] = read_space(child, package)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.names[child.name] = None
            case ast.Name(ctx=ast.Store()):
                found.names[child.id] = None
            case ast.Attribute(ctx=ast.Store(), value=ast.Name(id="self")):
                found.names[child.attr] = None
            case ast.Import():
                found.names |= {(a.asname or a.name): a.name for a in child.names}
            case ast.ImportFrom():
                base = within(package, child.level, child.module or "")
                found.names |= {(a.asname or a.name): f"{base}.{a.name}" for a in child.names}
    return found


def top(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a module outside of its functions and classes, and these themselves."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from top(child)


def within(package: str, level: int, module: str) -> str:
    """The absolute name of what ``level`` dots and ``module`` say in ``package``."""
    if level == 0:
        return module
    above = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*above, module] if module else above)


def leads(space: Space, parts: list[str], package: str) -> bool:
    """Whether the names, one after the other, are found from that space on."""
    if not parts:
        return True
    if parts[0] in space.names:
        there = space.names[parts[0]]
        if isinstance(there, Space):
            return leads(there, parts[1:], package) or inherited(space, there, parts[1:], package)
        if isinstance(there, str):
            return absolute(".".join([there, *parts[1:]]))
        return True  # a function or a value: what it has is not read
    return False


def inherited(space: Space, one: Space, parts: list[str], package: str) -> bool:
    """Whether a base of the class has the names."""
    return any(leads(space, [*base.split("."), *parts], package) for base in one.bases if parts)


def absolute(name: str) -> bool:
    """Whether a dotted name leads to something, in this project or in another's package."""
    parts = name.split(".")
    if parts[0] not in ROOMS:
        return True
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        if file_of(module) is not None:
            return leads(space_of(module), parts[cut:], module)
    return (ROOT / parts[0]).is_dir() and len(parts) == 1


def found(target: str, module: str, classes: tuple[Space, ...]) -> bool:
    """Whether ``target`` leads somewhere from a docstring in that module and those classes."""
    space = space_of(module)
    path = file_of(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    name = target.removeprefix("~").partition("(")[0]
    dots = len(name) - len(name.lstrip("."))
    if dots:
        return absolute(within(package, dots, name[dots:]))
    parts = name.split(".")
    return (
        any(leads(one, parts, package) or inherited(space, one, parts, package) for one in classes)
        or leads(space, parts, package)
        or (parts[0] in ROOMS and absolute(name))
    )


def references(
    node: ast.AST, package: str, classes: tuple[Space, ...] = ()
) -> Iterator[tuple[int, str, tuple[Space, ...]]]:
    """Each reference of a docstring: its line, its target and the classes around it, inmost
    first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            for target in REFERENCE.findall(str(child.value.value)):
                yield child.lineno, re.sub(r".*<(.+)>", r"\1", target), classes
        around = classes
        if isinstance(child, ast.ClassDef):
            around = (read_space(child, package), *classes)
        yield from references(child, package, around)


def dead(module: str, text: str) -> list[str]:
    """The references in the module's docstrings that lead nowhere."""
    if not REFERENCE.search(text):
        return []
    path = file_of(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    return [
        f"line {line}: {target}"
        for line, target, classes in references(ast.parse(text), package)
        if not found(target, module, classes)
    ]


def modules() -> Mapping[str, Path]:
    """Every module of the project by its dotted name."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


@pytest.mark.parametrize("room", ROOMS)
def test_what_docstrings_refer_to_is_there(room: str) -> None:
    gone = {
        name: wrong
        for name, path in modules().items()
        if name.split(".")[0] == room
        if (wrong := dead(name, path.read_text(encoding="utf-8")))
    }
    assert gone == {}


@pytest.mark.parametrize(
    "target",
    [
        *("nothing", ".nothing", "tools.nothing", "tools.sentences.nothing", "Space.nothing"),
        *("tests.nothing", "~tests.unit.test_references.Space.nothing", "nothing.nothing"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found(target: str) -> None:
    here = "tests.unit.test_references"
    assert dead(here, f'"""See :func:`{target}`."""') == [f"line 1: {target}"]


@pytest.mark.parametrize(
    "target",
    [
        *("Space", "Space.names", "modules", "~tools.sentences.pages", ".test_sentences.LONG"),
        *("Path", "pytest", "dead()", "tests.unit.test_references", ".test_sentences"),
    ],
)
def test_a_reference_that_leads_somewhere_is_passed_over(target: str) -> None:
    assert dead("tests.unit.test_references", f'"""See :func:`{target}`."""') == []
