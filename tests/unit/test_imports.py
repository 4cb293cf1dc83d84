"""What an import costs, and which way imports point."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "osml_tasks"
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"
HEAVY = {
    *("boto3", "botocore", "obstore", "numpy", "rasterio", "skimage", "celery", "pydantic", "rich"),
    *(
        "aiohttp",
        "aws_embedded_metrics",
        "geojson",
        "scipy",
        "PIL",
        "shapely",
        "pyproj",
        "geopandas",
        "pyarrow",
        "pyogrio",
    ),
    *("s3transfer", "urllib3", "redis", "kombu", "orjson", "asyncio"),
}
# What `osml-tasks detect` loads to start a job and to follow it, and what only some of its calls need.
STARTED = ("cli.detect", "connections", "detection", "job_handle", "preflight", "sources")
FOR_SOME = {
    *("rich", "aws_embedded_metrics", "osml_tasks.assembly", "osml_tasks.resume", "osml_tasks.retry"),
    *("osml_tasks.tasks", "osml_tasks.collection", "osml_tasks.submission", "numpy", "skimage", "aiohttp"),
}
# The pool of a caller without a broker starts one; nothing else may lean on the extra "local".
ENTRANCES = {"__main__": {"cli"}, "workers": {"local.broker"}}


@pytest.mark.parametrize("call", ["import osml_tasks", "from osml_tasks.cli import run; run(['--help'])"])
def test_nothing_heavy_is_loaded_before_it_is_needed(call: str) -> None:
    assert not HEAVY & _loaded_by(call)


def test_a_job_is_started_without_what_only_some_calls_need() -> None:
    assert not FOR_SOME & _loaded_by("import " + ", ".join(f"osml_tasks.{name}" for name in STARTED))


def _loaded_by(call: str) -> set[str]:
    program = f"{call}\nimport sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


def _name(path: Path) -> str:
    """As imports have it, without the package's own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {_name(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that one imports, at its beginning or later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == PACKAGE.name:
            module = str(node.module).removeprefix(PACKAGE.name).lstrip(".")
            names = (f"{module}.{alias.name}".lstrip(".") for alias in node.names)
            yield from {name if name in MODULES else module for name in names}
        elif isinstance(node, ast.Import):
            names = (alias.name.removeprefix(f"{PACKAGE.name}.") for alias in node.names)
            yield from (name for name in names if name in MODULES)


def test_no_import_leads_back_to_where_it_began() -> None:
    order = TopologicalSorter({name: set(_imported(tree)) - {name} for name, tree in MODULES.items()})
    assert set(order.static_order()) >= set(MODULES)


def test_imports_point_the_way_that_contributing_says() -> None:
    line = re.search(r"^- Imports point one way, [^:]+: (.+?)\. No library", CONTRIBUTING.read_text(), re.MULTILINE)
    assert line is not None
    places = {
        name: place for place, group in enumerate(line[1].split("←")) for name in re.findall(r"`([\w.]+)`", group)
    }
    assert {name for name in places if name not in MODULES} == set()

    def place(name: str) -> int | None:
        named = [known for known in places if name == known or name.startswith(f"{known}.")]
        return places[max(named, key=len)] if named else None

    pairs = [(name, other) for name, tree in MODULES.items() for other in _imported(tree)]
    placed = [(name, other) for name, other in pairs if place(name) is not None and place(other) is not None]
    assert len(placed) > 200
    assert [(name, other) for name, other in placed if (place(other) or 0) > (place(name) or 0)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(("local", "cli"))])
def test_no_library_module_knows_the_local_stack_or_the_command_line(name: str) -> None:
    known = {other for other in _imported(MODULES[name]) if other.startswith(("local", "cli"))}
    assert known <= ENTRANCES.get(name, set())


def test_pixels_and_shapes_are_for_imagery_alone() -> None:
    text = {name: ast.unparse(tree) for name, tree in MODULES.items() if not name.startswith(("imagery.", "local."))}
    users = {name for name, code in text.items() if re.search(r"^ *(import|from) (rasterio|shapely|numpy)", code, re.M)}
    assert users == {"result_files.vector_file"}


def test_no_file_is_longer_than_one_can_know() -> None:
    assert {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400} == set()
