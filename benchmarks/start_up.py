"""What an import and ``--help`` cost, and what they load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.arena import Arena
from benchmarks.errors import BenchmarkError
from benchmarks.row import Row
from benchmarks.run import Ground
from benchmarks.scale import Scale

CPU_SECONDS = 0.4
HEAVY = {
    *("aiobotocore", "boto3", "botocore", "obstore", "s3transfer", "aws_embedded_metrics"),
    *("rasterio", "osgeo", "PIL", "skimage", "cv2", "tifffile"),
    *("numpy", "scipy", "pandas", "geopandas", "shapely", "pyproj", "geojson", "matplotlib"),
}
"""AWS, raster and scientific modules."""

_LIST = "import sys; print(*sys.modules, file=sys.stderr)"
CALLS = {
    "import osml_tasks": (["-c", "import osml_tasks"], f"import osml_tasks; {_LIST}"),
    "osml-tasks --help": (["-m", "osml_tasks", "--help"], f"from osml_tasks.cli import run; run(['--help']); {_LIST}"),
}
"""By its name: the call that is measured, and the same with what it has loaded on standard error."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a start has cost.

    :ivar cpu: CPU seconds of the whole process, the best of several.
    :ivar heavy: which heavy modules it has loaded.
    """

    cpu: float
    heavy: tuple[str, ...]


def measure(ground: Ground, scale: Scale) -> dict[str, Start]:
    """Measure each call."""
    return {name: _measure(ground.arena, *call, scale.starts) for name, call in CALLS.items()}


def _measure(arena: Arena, call: Sequence[str], listing: str, times: int) -> Start:
    cpu = min(_cpu_seconds(arena, call) for _ in range(times))
    shown = subprocess.run([sys.executable, "-c", listing], env=arena.env, capture_output=True, text=True, check=True)
    return Start(cpu, tuple(sorted(HEAVY & set(shown.stderr.split()))))


def _cpu_seconds(arena: Arena, call: Sequence[str]) -> float:
    process = subprocess.Popen([sys.executable, *call], env=arena.env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"{' '.join(call)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def rows(measured: dict[str, Start]) -> list[Row]:
    """The figures with their bars."""
    bar = f"at most {CPU_SECONDS:g} s, no AWS, raster or scientific module"
    return [
        Row(f"`{name}`: CPU, and what it loads", _text(start), bar, start.cpu <= CPU_SECONDS and not start.heavy)
        for name, start in measured.items()
    ]


def _text(start: Start) -> str:
    return f"{start.cpu:.2f} s, {', '.join(start.heavy) or 'none'}"
