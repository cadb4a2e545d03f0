"""The shape of the code in figures: ``make shape``, or ``python -m tools.shape FOLDER ...``.

Prints one table, a column for each folder; without a folder, this project's product code as one
column. A goal that is missed is marked, and the exit status is then 1.

What is counted
    Lines of a function or class from its first to its last, without decorators, docstring
    included. Complexity is McCabe's with boolean operators, as radon counts it. Parameters leave
    ``self`` and ``cls`` out. A public function has no underscore before its name or its class's.
    A method without a docstring of its own has that of the method which it overrides, as
    ``inspect.getdoc()`` has it; bases are found by their names.
    Comments are lines that begin with ``#``, of all lines that are not empty.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grimp
from radon.complexity import cc_visit
from radon.visitors import Class

ROOT = Path(__file__).resolve().parents[1]

PRODUCT = ("migration_job", "infra", "example_app", "benchmarks", "model", "policy", "tools")
"""This project's own code without its tests."""

LONGEST_FUNCTION = 60
MOST_COMPLEX = 15
MOST_PARAMETERS = 6
LONGEST_MODULE = 600
LONGEST_CLASS = 300


@dataclass(slots=True)
class Shape:
    """What was counted in one folder or several."""

    functions: list[int] = field(default_factory=list)
    """Lines of each function."""
    long_functions: list[str] = field(default_factory=list)
    many_parameters: list[str] = field(default_factory=list)
    complex_functions: list[str] = field(default_factory=list)
    long_modules: list[str] = field(default_factory=list)
    long_classes: list[str] = field(default_factory=list)
    public: int = 0
    documented: int = 0
    bases: dict[str, set[str]] = field(default_factory=dict)
    """Of each class by its name: the names of its bases."""
    promised: set[tuple[str, str]] = field(default_factory=set)
    """Classes and their methods that have a docstring."""
    unpromised: list[tuple[str, str]] = field(default_factory=list)
    """Public methods without one, each with its class."""
    comments: int = 0
    lines: int = 0
    circles: list[str] = field(default_factory=list)


GOALS: Mapping[str, tuple[Callable[[Shape], list[str]], int]] = {
    f"complexity over {MOST_COMPLEX}": (lambda s: s.complex_functions, 8),
    f"more than {MOST_PARAMETERS} parameters": (lambda s: s.many_parameters, 10),
    f"functions over {LONGEST_FUNCTION} lines": (lambda s: s.long_functions, 0),
    f"modules over {LONGEST_MODULE} lines": (lambda s: s.long_modules, 0),
    f"classes over {LONGEST_CLASS} lines": (lambda s: s.long_classes, 0),
    "import circles": (lambda s: s.circles, 0),
}
"""What is listed by name, and how many there may be at most."""


def measure(folders: Sequence[Path]) -> Shape:
    """Count what stands in the Python files below ``folders``. Raises SystemExit where a folder is
    missing or a file cannot be parsed."""
    shape = Shape()
    for folder in folders:
        if not folder.is_dir():
            raise SystemExit(f"expected a folder, found none at {folder}")
        for path in sorted(folder.rglob("*.py")):
            _measure_module(shape, path)
        if (folder / "__init__.py").exists():
            shape.circles += _circles(folder)
    shape.documented += sum(_inherits(shape, *method) for method in shape.unpromised)
    return shape


def _inherits(shape: Shape, owner: str, method: str) -> bool:
    """Whether a base of the class promises what the method does."""
    seen: set[str] = set()
    above = [owner]
    while above:
        for base in shape.bases.get(above.pop(), set()) - seen:
            seen.add(base)
            above.append(base)
    return any((base, method) in shape.promised for base in seen)


def _measure_module(shape: Shape, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > LONGEST_MODULE:
        shape.long_modules.append(f"{path.name} ({len(lines)})")
    shape.lines += sum(1 for line in lines if line.strip())
    shape.comments += sum(1 for line in lines if line.lstrip().startswith("#"))
    shape.complex_functions += _complex(path, text)
    tree = ast.parse(text, str(path))
    owners = _read_classes(shape, tree)
    for node, public in _definitions(tree, public=True):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        where = f"{path.name}:{node.name}"
        if isinstance(node, ast.ClassDef):
            if length > LONGEST_CLASS:
                shape.long_classes.append(f"{where} ({length})")
            continue
        shape.functions.append(length)
        if length > LONGEST_FUNCTION:
            shape.long_functions.append(f"{where} ({length})")
        count = _parameters(node)
        if count > MOST_PARAMETERS:
            shape.many_parameters.append(f"{where} ({count})")
        if public:
            shape.public += 1
            if ast.get_docstring(node) is not None:
                shape.documented += 1
            elif node in owners:
                shape.unpromised.append((owners[node], node.name))


def _read_classes(shape: Shape, tree: ast.Module) -> dict[ast.AST, str]:
    """Note the bases and documented methods of each class. Returns each method's class."""
    owners: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        names = {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in node.bases}
        shape.bases.setdefault(node.name, set()).update(names)
        for method in node.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                owners[method] = node.name
                if ast.get_docstring(method) is not None:
                    shape.promised.add((node.name, method.name))
    return owners


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(node: ast.AST, *, public: bool) -> Iterator[tuple[Definition, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            shown = public and not child.name.startswith("_")
            yield child, shown
            # What is defined inside a function is nobody else's.
            inside = shown and isinstance(child, ast.ClassDef)
            yield from _definitions(child, public=inside)
        else:
            yield from _definitions(child, public=public)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return sum(1 for name in names if name not in {"self", "cls"})


def _complex(path: Path, text: str) -> Iterator[str]:
    """Functions of a complexity over the limit."""
    for block in cc_visit(text):
        if not isinstance(block, Class) and block.complexity > MOST_COMPLEX:
            yield f"{path.name}:{block.name} ({block.complexity})"


def _circles(folder: Path) -> list[str]:
    """Modules that import each other, by whatever way round."""
    sys.path.insert(0, str(folder.parent))
    try:
        graph = grimp.build_graph(folder.name, cache_dir=None)
    finally:
        sys.path.pop(0)
    found = []
    for module in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(module):
            if graph.chain_exists(importer=imported, imported=module):
                found.append(f"{module} <-> {imported}")
    return found


def _rows(shape: Shape) -> Iterator[tuple[str, str]]:
    by_length = sorted(shape.functions)
    p95 = by_length[int(len(by_length) * 0.95)] if by_length else 0
    yield "functions", str(len(by_length))
    yield "lines of a function, median", f"{statistics.median(by_length or [0]):g}"
    yield "lines of a function, 95%", str(p95)
    for name, (listed, _) in GOALS.items():
        yield name, str(len(listed(shape)))
    yield "public functions documented", f"{100 * shape.documented // max(shape.public, 1)} %"
    yield "lines that are comments", f"{100 * shape.comments / max(shape.lines, 1):.1f} %"


def main(arguments: Sequence[str]) -> int:
    """Print the table. Returns 1 where this project misses a goal."""
    shapes = {name: measure([Path(name)]) for name in arguments}
    own = not shapes
    if own:
        shapes = {"this project": measure([ROOT / name for name in PRODUCT])}
    columns = [dict(_rows(shape)) for shape in shapes.values()]
    print("| | " + " | ".join([*shapes, "goal"]) + " |")
    print("|---" * (len(shapes) + 2) + "|")
    for name in columns[0]:
        goal = f"at most {GOALS[name][1]}" if name in GOALS else ""
        print(f"| {name} | " + " | ".join([*(c[name] for c in columns), goal]) + " |")
    missed = False
    for shape in shapes.values() if own else ():
        for name, (listed, most) in GOALS.items():
            if len(listed(shape)) > most:
                missed = True
                print(f"\n{name}: {', '.join(listed(shape))}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
