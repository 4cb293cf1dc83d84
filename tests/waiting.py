"""How tests wait: for a condition, with a bound that only a failure reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""How long to wait for what an idle machine does in seconds, s. A machine that is busy takes twenty times as long."""


def wait_until(condition: Callable[[], bool], within: float = PATIENCE) -> None:
    """Wait for a condition, with a bound in seconds. It is looked at ever more seldom, because each look costs CPU."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < within, "the condition did not come true in time"
        time.sleep(min(0.25, 0.02 + waited / 20))
