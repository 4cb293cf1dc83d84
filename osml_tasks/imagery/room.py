"""Room in memory for pixels: so many bytes at a time, whatever the size of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Room:
    """Lets threads in as long as there is room for what they hold; one is always let in.

    :param size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._freed = Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and hold it."""
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            with self._freed:
                self._taken -= size
                self._freed.notify_all()
