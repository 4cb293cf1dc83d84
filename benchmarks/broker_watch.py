"""How far a broker's memory rises over a run."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import redis

LOOK_SECONDS = 0.1


def used_bytes(broker: Any) -> int:
    """``used_memory`` less the buffers of connections: these come and go by the 100 kB, whatever the job."""
    memory: Any = broker.info("memory")
    return int(memory["used_memory"] - memory["mem_clients_normal"])


class BrokerWatch:
    """Looks at a broker ten times a second for as long as a block lasts.

    :ivar rise: the most that was used above the beginning, bytes.
    """

    def __init__(self, url: str) -> None:
        self._broker = redis.Redis.from_url(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="broker-watch", daemon=True)
        self._before = 0
        self.rise = 0

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.rise = max(self.rise, used_bytes(self._broker) - self._before)

    def __enter__(self) -> Self:
        self._before = used_bytes(self._broker)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._broker.close()
