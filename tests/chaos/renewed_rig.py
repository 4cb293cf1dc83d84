"""A rig for one fault after the other, and another one where a fault has left it in pieces."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.faults import Fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row


class RenewedRig:
    """Starts a rig when it is needed. A context manager.

    :param directory: for the directories of its rigs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rigs = 0
        self._rig: Rig | None = None

    def run(self, fault: Fault) -> Row:
        """Try a fault, and give the rig up if it cannot be brought back to what it was."""
        rig = self._rig or self._new()
        try:
            row = fault.run(rig)
            mended = rig.mend()
        except BaseException:
            self._end()
            raise
        if not mended:
            self._end()
        return row

    def _new(self) -> Rig:
        self._rigs += 1
        directory = self._directory / str(self._rigs)
        directory.mkdir(parents=True)
        self._rig = Rig(directory)
        return self._rig.__enter__()

    def _end(self) -> None:
        rig, self._rig = self._rig, None
        if rig is not None:
            rig.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
