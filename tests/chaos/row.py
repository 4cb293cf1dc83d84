"""What one fault has cost: a row of the table in ``docs/reliability.md``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one fault.

    :ivar fault: what was broken.
    :ivar times: how often.
    :ivar tiles: how many the job had, or the jobs together.
    :ivar lost: features that are in no result.
    :ivar doubled: features that are in a result more than once, each time after the first.
    :ivar wasted: invocations above one a tile.
    :ivar left: objects in any bucket after the sweep.
    :ivar ended: processes of the fleet that ended by themselves and were not to.
    :ivar seconds_until_work: the longest time in which nothing of the job moved, once the fault was there, or
        was over, s; None where that has no meaning.
    :ivar note: what else is to be said, as a caller would see it.
    """

    fault: str
    times: int
    tiles: int
    lost: int
    doubled: int
    wasted: int
    left: int
    ended: int = 0
    seconds_until_work: float | None = None
    note: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost, doubled or left, and no process has ended by itself."""
        return not (self.lost or self.doubled or self.left or self.ended)
