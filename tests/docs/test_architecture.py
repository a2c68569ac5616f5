"""The diagram of the packages is generated from the import contracts and from the actual imports."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping

import grimp
import pytest
from tests.docs.generated import ROOT, compare

PAGE = "architecture/README.md"
BEGIN, END = "<!-- begin: written by tests/docs/test_architecture.py -->\n", "<!-- end -->\n"
Imports = Mapping[str, frozenset[str]]


def test_diagram_matches_the_contracts_and_the_imports() -> None:
    page = (ROOT / PAGE).read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    compare(PAGE, f"{before}{BEGIN}{diagram()}{END}{after}")


@pytest.mark.parametrize("package", ["images", "container", "targets"])
def test_package_is_in_no_import_cycle(package: str) -> None:
    imports = package_imports()
    assert all(package not in reached(imports, other) for other in reached(imports, package))


def diagram() -> str:
    """A flowchart with one row per layer, and a table that describes each package."""
    imports = package_imports()
    lines = ["```mermaid", "flowchart TB"]
    for number, row in enumerate(layers()):
        lines += [f'    subgraph layer{number}[" "]', *(f"        {name}" for name in row), "    end"]
    for name in sorted(imports):
        lines += [f"    {name} --> {other}" for other in sorted(direct(imports, name))]
    lines += ["```", "", "| layer | package | holds |", "|---|---|---|"]
    for number, row in enumerate(layers(), 1):
        lines += [f"| {number} | `{name}` | {first_line(name)} |" for name in row]
    return "\n".join(lines) + "\n"


def layers() -> list[list[str]]:
    """The layers of the import contract, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(each["layers"] for each in contracts if each.get("exhaustive"))
    return [[name.strip(" ()") for name in row.split("|")] for row in rows]


def package_imports() -> Imports:
    """By top-level package or module, the others that it imports, including imports for types."""
    graph, imports = grimp.build_graph("likewise"), dict[str, set[str]]()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, other = module.split(".")[1:2], imported.split(".")[1:2]
            if importer and other and importer != other:
                imports.setdefault(importer[0], set()).add(other[0])
    return {name: frozenset(others) for name, others in imports.items()}


def direct(imports: Imports, name: str) -> set[str]:
    """The imports of `name` that no other of its imports implies: the arrows in the diagram."""
    others = imports.get(name, frozenset())
    return {each for each in others if not any(each in reached(imports, other) for other in others)}


def reached(imports: Imports, name: str) -> set[str]:
    """All that `name` imports, directly or indirectly."""
    seen, waiting = set[str](), list(imports.get(name, ()))
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += imports.get(each, ())
    return seen


def first_line(name: str) -> str:
    """The first line of a package's or module's docstring."""
    folder = ROOT / "src" / "likewise"
    path = folder / name / "__init__.py" if (folder / name).is_dir() else folder / f"{name}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0].rstrip(".")
