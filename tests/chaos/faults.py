"""Every fault there is. One is a plain function from a rig to a row, with a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.chaos.row import Row

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

MODULES = ("processes", "broker", "messages", "clocks", "jobs", "s3_faults", "endpoint_faults")
"""Named after what they break."""

Inject = Callable[["Rig"], Row]
_faults: dict[str, Fault] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to break.

    :ivar name: what the table calls it.
    :ivar quick: whether it is among those that every test run has.
    """

    name: str
    quick: bool
    inject: Inject

    def run(self, rig: Rig) -> Row:
        """Break it, count, and bring the rig back to what it was."""
        try:
            return replace(self.inject(rig), fault=self.name)
        finally:
            rig.mend()


def fault(name: str, *, quick: bool = False) -> Callable[[Inject], Inject]:
    """Enter a function among the faults."""

    def enter(inject: Inject) -> Inject:
        assert name not in _faults, f"two faults are called {name!r}"
        _faults[name] = Fault(name, quick, inject)
        return inject

    return enter


def all_faults() -> list[Fault]:
    """All of them, in the order of their modules."""
    for module in MODULES:
        if find_spec(f"tests.chaos.{module}"):
            import_module(f"tests.chaos.{module}")
    return list(_faults.values())
