"""What time it surely is: one clock that steps must neither give up nor delete anything.

The server with the fleet's state has one clock, each worker another. A time is written down by the later of the two,
and what is late by it is late by both: by the earlier. So either may be wrong, by any amount and for any time, and
nothing is given up before its time. Both would have to be wrong, and in the same way. S3's clock is not asked: that
would be a request more for each look at a shard; it has the casting vote where a worker checks its own, see ``clock``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

APART_SECONDS = 30.0
"""How far a time that was written down may lie ahead of both clocks, s; more is the error of one that was set right."""


def earlier(server: float, wall: Callable[[], float] = time.time) -> float:
    """The time that has surely come, s since the epoch.

    :param server: what the server's clock says, s since the epoch.
    :param wall: this machine's.
    """
    return min(server, wall())


def later(server: float, wall: Callable[[], float] = time.time) -> float:
    """The time that has surely not passed, likewise."""
    return max(server, wall())
