"""The plot: tiles a second and CPU a tile against the number of tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.growth import Curves
from benchmarks.ways import OSML


def draw(curves: Curves, path: Path) -> None:
    """Write the plot as a PNG."""
    # Without a display; and only here, since the quick run does without it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    speed, cpu = figure.subplots(1, 2)
    for title, runs in curves.items():
        tiles = [run.tiles for run in runs]
        style: dict[str, Any] = {"marker": "o", "label": title, "linewidth": 3 if title == OSML.title else 1.3}
        speed.plot(tiles, [run.tiles_per_second for run in runs], **style)
        cpu.plot(tiles, [run.cpu_ms for run in runs], **style)
    for axes, what in ((speed, "tiles/s, whole life of the client"), (cpu, "CPU ms/tile, client and workers")):
        axes.set(xscale="log", yscale="log", xlabel="tiles", ylabel=what)
        axes.grid(visible=True, which="both", alpha=0.25)
    speed.legend(fontsize="small")
    figure.savefig(path, dpi=110)
