"""What merging costs: 1,000,000 detections, a fifth of them a second look, from lines to lines."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.errors import BenchmarkError
from benchmarks.row import Row, at_most, on_terminal
from benchmarks.run import Ground
from benchmarks.scale import FULL, Scale

CPU_SECONDS = 10
PEAK_MB = 1000

_TILE_PX = 512
_PITCH_PX = 457  # an object is seen by (512 / 457)² = 1.255 tiles, less at the image's edges
_LINES_PER_OBJECT = 1.25
_PX2_PER_OBJECT = 2000
_IMAGE = "port.tif"
_SEED = 20170522

_MERGE = """
import json, sys, time
from pathlib import Path
from osml_tasks.imagery.merge import merge
from osml_tasks.imagery.merge_options import MergeOptions
from osml_tasks.imagery.seen import Seen
path, on, image, side = sys.argv[1:]
stays = 0
with open(path, "rb") as lines:
    seen = (Seen.from_line(line.rstrip(b"\\n")) for line in lines)
    for line in merge(seen, MergeOptions(on=on), {image: (int(side), int(side))}):
        stays += 1
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"cpu": time.process_time(), "peak": int(status["VmHWM"].split()[0]) / 1000, "stays": stays}))
"""


@dataclass(frozen=True, slots=True)
class Merged:
    """What one run has cost.

    :ivar lines: how many went in, with ``line_bytes`` each on average.
    :ivar objects: how many things they are detections of.
    :ivar stays: how many came out.
    :ivar cpu: CPU seconds of the whole process.
    :ivar peak: MB of memory that it had at most.
    """

    lines: int
    line_bytes: float
    objects: int
    stays: int
    cpu: float
    peak: float


def measure(_ground: Ground | None = None, scale: Scale = FULL) -> dict[str, Merged]:
    """Merge on boxes and on polygons, each in a process of its own; it needs no fleet."""
    objects = round(scale.merged / _LINES_PER_OBJECT)
    side = round((objects * _PX2_PER_OBJECT) ** 0.5 / _PITCH_PX) * _PITCH_PX + _TILE_PX - _PITCH_PX
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "lines")
        with path.open("wb") as file:
            written = sum(1 for line in _lines(objects, side) if file.write(line))
        size = path.stat().st_size / written
        return {on: Merged(written, size, objects, **_merge(path, on, side)) for on in ("box", "polygon")}


def rows(measured: dict[str, Merged]) -> list[Row]:
    """The figures with their bars."""
    return [row for on, merged in measured.items() for row in _rows(on, merged)]


def _rows(on: str, merged: Merged) -> list[Row]:
    what = f"merging {merged.lines:,} lines of {merged.line_bytes:.0f} bytes on their {on}"
    stays = f"{merged.stays:,} stay of {merged.objects:,} objects"
    return [
        at_most(f"{what}: CPU", merged.cpu, CPU_SECONDS, f"{merged.cpu:.1f} s, {stays}", " s"),
        at_most(f"{what}: peak memory", merged.peak, PEAK_MB, f"{merged.peak:.0f} MB", " MB"),
    ]


def _merge(path: Path, on: str, side: int) -> dict[str, Any]:
    call = [sys.executable, "-c", _MERGE, str(path), on, _IMAGE, str(side)]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchmarkError(f"merging on {on} ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")
    cost: dict[str, Any] = json.loads(ended.stdout)
    return cost


def _lines(objects: int, side: int) -> Iterator[bytes]:
    """Detections of objects at random places, by rows of tiles: each is seen by every tile that has half of it."""
    random = np.random.default_rng(_SEED)
    centres = random.uniform(0, side, (objects, 2))
    halves = random.uniform(8, 16, (objects, 2))
    order = np.argsort(centres[:, 1])
    centres, halves = centres[order], halves[order]
    for top in range(0, side - _TILE_PX + 1, _PITCH_PX):
        first, end = np.searchsorted(centres[:, 1], (top, top + _TILE_PX))
        row = slice(int(first), int(end))
        for left in range(0, side - _TILE_PX + 1, _PITCH_PX):
            across = centres[row, 0]
            within = (across >= left) & (across < left + _TILE_PX)
            yield from _tile(random, left, top, centres[row][within], halves[row][within])


def _tile(
    random: np.random.Generator, left: int, top: int, centres: NDArray[np.float64], halves: NDArray[np.float64]
) -> Iterator[bytes]:
    """What one tile sees: a pixel off, and cut at its edges."""
    tile = (left, top, left + _TILE_PX, top + _TILE_PX)
    boxes = np.hstack((centres - halves, centres + halves)) + random.uniform(-1, 1, (len(centres), 4))
    boxes = np.clip(boxes, [tile[:2] * 2], [tile[2:] * 2]).round(2)
    scores, leans = random.uniform(0.4, 1, len(boxes)).round(4), random.uniform(0.05, 0.45, len(boxes))
    for box, score, lean in zip(boxes.tolist(), scores.tolist(), leans.tolist(), strict=True):
        yield _line(box, score, tile, lean)


def _line(box: list[float], score: float, tile: tuple[int, ...], lean: float) -> bytes:
    """A feature as a worker places it, with a leaning box in its box: as models draw what is not upright."""
    left, top, right, bottom = box
    across, down = lean * (right - left), lean * (bottom - top)
    corners = [(left + across, top), (right, top + down), (right - across, bottom), (left, bottom - down)]
    ring = [(round(x, 2), round(y, 2)) for x, y in (*corners, corners[0])]
    west, north, east, south = (_degrees(value) for value in box)
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[(_degrees(x), -_degrees(y)) for x, y in reversed(ring)]]},
        "bbox": [west, -south, east, -north],
        "properties": {
            "imageGeometry": {"type": "Polygon", "coordinates": [ring]},
            "imageBBox": box,
            "featureClasses": [{"iri": "ship", "score": score}],
            "inferenceMetadata": {"jobId": "20251124-190000-0a1b2c3d", "inferenceDT": "2025-11-24T19:00:00Z"},
            "sourceMetadata": [{"location": _IMAGE, "format": "GTIFF", "tileBBox": tile}],
        },
    }
    return orjson.dumps(feature, option=orjson.OPT_APPEND_NEWLINE)


def _degrees(pixels: float) -> float:
    return round(pixels * 4e-6, 7)


if __name__ == "__main__":
    Console(width=160).print(on_terminal(rows(measure())))
