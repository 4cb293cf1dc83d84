"""The plot: tiles a second and CPU a tile against the number of tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.growth import SIZES, Curves
from benchmarks.ways import OSML

_OURS = {"color": "black", "linewidth": 3, "zorder": 3}


def draw(curves: Curves, path: Path) -> None:
    """Write the plot as a PNG."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    speed, cpu = figure.subplots(1, 2)
    for title, runs in curves.items():
        tiles = [run.tiles for run in runs]
        style: dict[str, Any] = {"marker": "o", "label": title, **(_OURS if title == OSML.title else {})}
        speed.plot(tiles, [run.tiles_per_second for run in runs], **style)
        cpu.plot(tiles, [run.cpu_ms for run in runs], **style)
    for axes, what in ((speed, "tiles/s, whole life of the client"), (cpu, "CPU ms/tile, client and workers")):
        axes.set(xscale="log", xlabel="tiles", ylabel=what, ylim=(0, None))
        axes.set_xticks(SIZES, labels=[f"{size:,}" for size in SIZES])
        axes.set_xticks([], minor=True)
        axes.grid(visible=True, alpha=0.3)
    speed.legend(fontsize="small")
    figure.savefig(path, dpi=110)
