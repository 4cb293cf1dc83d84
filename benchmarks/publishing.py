"""How long a client takes to publish its job: measured inside the client, read by the benchmark."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "BENCHMARK_PUBLISHING"
"""Environment variable that names the file which the client writes the measurement to."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """From having the list of tiles to everything published.

    :ivar cpu: CPU seconds of the client in all its threads.
    :ivar wall: seconds, while workers already use the same cores.
    """

    cpu: float
    wall: float


@contextmanager
def timed_publishing() -> Iterator[None]:
    """Measure a block in the client."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    took = Publishing(time.process_time() - cpu, time.perf_counter() - wall)
    Path(os.environ[VARIABLE]).write_text(json.dumps(asdict(took)))


def read_publishing(path: Path) -> Publishing | None:
    """What the client measured, None if it publishes nothing."""
    return Publishing(**json.loads(path.read_text())) if path.exists() else None
