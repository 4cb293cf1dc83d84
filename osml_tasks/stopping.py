"""That a worker is to stop, as its tasks see it, in whichever process of its pool they run.

From SIGTERM on no task begins. One that is at work goes on for :data:`GRACE_SECONDS`; then it returns its
message at its next step, for another worker to go on. The process of a task that waits for an answer of AWS
even :data:`CALL_SECONDS` later is killed.
"""

from __future__ import annotations

import struct
import time
from mmap import mmap

from osml_tasks.errors import WorkerStoppingError

GRACE_SECONDS = 20.0
"""How long a task may go on after SIGTERM, s."""
CALL_SECONDS = 5.0
"""How long the AWS call that is under way by then may still take, s."""
STOP_SECONDS = GRACE_SECONDS + CALL_SECONDS + 5.0
"""Until when a worker has exited, s after SIGTERM. One that is killed earlier may cost up to two minutes."""

_DEADLINE = struct.Struct("d")


class Stop:
    """Whether a worker is to stop, and until when its tasks may go on. Shared with processes forked later.

    :ivar grace: how long tasks may go on after the order to stop, s.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self._shared = mmap(-1, _DEADLINE.size)

    @property
    def limit(self) -> float:
        """When the process of a task that has not returned is killed, s after the order to stop."""
        return self.grace + CALL_SECONDS

    def begin(self) -> None:
        """Have all tasks end; a second order changes nothing. Safe in a signal handler."""
        if not self.has_begun:
            # One clock for all processes of a machine, which never steps.
            _DEADLINE.pack_into(self._shared, 0, time.monotonic() + self.grace)

    @property
    def _deadline(self) -> float:
        return float(_DEADLINE.unpack_from(self._shared)[0])

    @property
    def has_begun(self) -> bool:
        """Whether no task may begin any more."""
        return self._deadline > 0

    @property
    def is_due(self) -> bool:
        """Whether no task may begin another step."""
        return 0 < self._deadline < time.monotonic()

    def check(self) -> None:
        """To be called between two steps of a task, where it can be left and taken up again.

        :raises WorkerStoppingError: it is to be left here.
        """
        if self.is_due:
            raise WorkerStoppingError(f"this worker stops, and {self.grace:g} s were not enough for this task")


WORKER = Stop()
"""The one of the worker that this process is, or belongs to."""
