"""CPU and memory of processes, read from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_NODE = re.compile(r"([a-z]+)-[\d-]+@")
_ASSEMBLES = "assemble"
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, of processes and all their descendants, finished ones included."""
    return sum(_tree_cpu_seconds(pid) for pid in pids)


def _tree_cpu_seconds(root: int) -> float:
    total = 0.0
    for process in tree(root):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def tree(root: int) -> Iterator[psutil.Process]:
    """A process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(root)
        yield from (first, *first.children(recursive=True))


def own_cpu_seconds(pid: int) -> float:
    """CPU seconds so far of a process in all its threads, 0 where it has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / _TICK


def cpu_seconds_of_nodes(roots: Iterable[int]) -> dict[str, float]:
    """CPU seconds so far of living processes, by what the nodes of their workers are named after."""
    spent: dict[str, float] = {}
    for process in [process for root in roots for process in tree(root)]:
        with suppress(psutil.NoSuchProcess):
            node = _node(process)
            spent[node] = spent.get(node, 0.0) + own_cpu_seconds(process.pid)
    return spent


def peak_bytes(pid: int) -> int:
    """The most that a process ever had resident (``VmHWM``), 0 where it has ended.

    ``ru_maxrss`` would not do: it has the memory of the parent in it, from before ``exec``.
    """
    try:
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class WorkerPeaks:
    """The most that a single process of a fleet has had resident, bytes.

    :ivar of_nodes: by what the nodes of its workers are named after; processes that are no node go by their own name.
    """

    of_nodes: dict[str, int]

    @property
    def assembling(self) -> int:
        """Of the worker that assembles."""
        return self.of_nodes.get(_ASSEMBLES, 0)

    @property
    def largest_other(self) -> tuple[str, int]:
        """Which of the others had the most, and how much."""
        others = {name: peak for name, peak in self.of_nodes.items() if name != _ASSEMBLES}
        return max(others.items(), key=lambda one: one[1], default=("none", 0))

    @classmethod
    def read(cls, roots: Iterable[int]) -> WorkerPeaks:
        """Look at the trees of some processes."""
        peaks: dict[str, int] = {}
        for process in [process for root in roots for process in tree(root)]:
            with suppress(psutil.NoSuchProcess):
                node = _node(process)
                peaks[node] = max(peaks.get(node, 0), peak_bytes(process.pid))
        return cls(peaks)


def _node(process: psutil.Process) -> str:
    """What a worker's node is named after; children have the command line of their parent."""
    nodes = [found[1] for argument in process.cmdline() if (found := _NODE.match(argument))]
    return nodes[0] if nodes else str(process.name())
