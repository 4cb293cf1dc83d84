"""What an import costs, and which way imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "osml_tasks"
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
ENTRANCES = {"__main__": {"osml_tasks.cli"}, "workers": {"osml_tasks.local.broker"}}


@pytest.mark.parametrize("call", ["import osml_tasks", "from osml_tasks.cli import run; run(['--help'])"])
def test_nothing_heavy_is_loaded_before_it_is_needed(call: str) -> None:
    assert not HEAVY & _loaded_by(call)


def test_a_job_is_started_without_what_only_some_calls_need() -> None:
    assert not FOR_SOME & _loaded_by("import " + ", ".join(f"osml_tasks.{name}" for name in STARTED))


def _loaded_by(call: str) -> set[str]:
    program = f"{call}\nimport sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_no_library_module_knows_the_local_stack_or_the_command_line(module: Path) -> None:
    tree = ast.parse(module.read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.startswith(("osml_tasks.local", "osml_tasks.cli"))} - ENTRANCES.get(
        module.stem, set()
    )


def test_no_file_is_longer_than_one_can_know() -> None:
    assert {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400} == set()
