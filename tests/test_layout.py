"""The rooms of the package: the table in CONTRIBUTING.md is true, and imports run one way."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "o3_lightning"
MOST_ROOMS = 20


def rooms_in_order():
    layout = (ROOT / "CONTRIBUTING.md").read_text().split("## Layout")[1].split("\n## ")[0]
    return re.findall(r"^\| `o3_lightning/(\w+)/`", layout, flags=re.MULTILINE)


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path, package="o3_lightning", *, at_start=False):
    """Yields the modules of a package that a file imports; at_start leaves out those inside functions."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_start else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def test_the_table_names_every_room_and_nothing_lies_loose():
    rooms = rooms_in_order()
    assert sorted(rooms) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert len(rooms) <= MOST_ROOMS
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py"}


def test_rooms_import_only_from_rooms_above_them():
    order = {room: place for place, room in enumerate(rooms_in_order())}
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if room_of(name) in order
        for other in imports(path)
        if room_of(other) in order and order[room_of(other)] > order[room_of(name)]
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(imports(path, at_start=True)) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_the_package_does_not_import_studies_and_the_kernels_import_nothing_of_ours():
    assert not [name for name, path in MODULES.items() if list(imports(path, "benchmarks"))]
    kernels = (ROOT / "kernels" / "o3_kernels").rglob("*.py")
    assert not [path for path in kernels if [*imports(path), *imports(path, "benchmarks")]]


def test_tests_lie_in_the_folder_of_their_room():
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("**/test_*.py"))}
    assert folders - {"kernels", "benchmarks", "distributed"} <= set(rooms_in_order())
