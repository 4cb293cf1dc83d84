"""Every fault there is. One is a plain function from a rig to a row, with a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.chaos.row import Row
from tests.chaos.trial import TrialOverError

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

MODULES = ("processes", "broker", "messages", "clocks", "disks", "jobs", "s3_faults", "endpoint_faults")
"""Named after what they break."""

Inject = Callable[["Rig"], Row]
_faults: dict[str, Fault] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to break.

    :ivar name: what the table calls it.
    :ivar quick: whether it is among those that every test run has.
    :ivar wastes: whether it may cost invocations above one a tile.
    """

    name: str
    quick: bool
    wastes: bool
    inject: Inject

    def run(self, rig: Rig) -> Row:
        """Break it, and count what that costs."""
        before = rig.ends()
        try:
            row = self.inject(rig)
        except TrialOverError as over:
            if over.trial.wait() == 0:
                raise
            # That is what the fault has cost.
            row = over.trial.row(times=len(over.trial.struck_at))
        ended = rig.ends() - before
        names = [f"{name} ended by itself" for name in sorted(ended)]
        return replace(row, fault=self.name, ended=ended.total(), note=", ".join([row.note, *names]).removeprefix(", "))

    def is_survived(self, row: Row) -> bool:
        """Whether the figures are what is promised."""
        return row.is_whole and (self.wastes or not row.wasted)


def fault(name: str, *, quick: bool = False, wastes: bool = True) -> Callable[[Inject], Inject]:
    """Enter a function among the faults."""

    def enter(inject: Inject) -> Inject:
        assert name not in _faults, f"two faults are called {name!r}"
        _faults[name] = Fault(name, quick, wastes, inject)
        return inject

    return enter


def all_faults() -> list[Fault]:
    """All of them, in the order of their modules."""
    for module in MODULES:
        if find_spec(f"tests.chaos.{module}"):
            import_module(f"tests.chaos.{module}")
    return list(_faults.values())
