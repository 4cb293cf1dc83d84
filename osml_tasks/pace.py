"""When what is in flight will be there: foreseen from how long an endpoint has taken lately.

A look at a shard is cheap, and one in vain is waste. What is foreseen only ever brings a look forward: the
polling options of a job stay the longest wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from osml_tasks.redis_keys import PREFIX

UNKNOWN_SECONDS = 1.0
"""How long the first look waits at an endpoint of which nothing is known, s."""
CLOSEST_SECONDS = 0.25
"""Shortest time between two looks, s."""
OVERDUE = 0.3
"""What part of the time that it has waited in vain a look waits once more."""

# A listing's times are whole seconds.
_RESOLUTION = 1.0
_PACE_SECONDS = 7 * 24 * 3600
_KEY = f"{PREFIX}pace:"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long shards of an endpoint have taken lately, from their last invocation to their last output, s.

    :ivar mean: of the latest, each of which counts twice as much as the one before it.
    :ivar spread: how far they were from that, likewise.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, seconds: float) -> Pace:
        """What a single shard tells."""
        return cls(seconds, seconds / 4)

    @classmethod
    def learned(cls, before: Pace | None, seconds: float) -> Pace:
        """With what a shard took, be it the first or one more."""
        return cls.of(seconds) if before is None else before.after(seconds)

    def after(self, seconds: float) -> Pace:
        """With one shard more, as RFC 6298 has it for round trips, but quicker: load may change with each shard."""
        return Pace((self.mean + seconds) / 2, (self.spread + abs(seconds - self.mean)) / 2)

    @property
    def likely(self) -> float:
        """After how long a shard is through, more likely than not."""
        return self.mean + self.spread


def first_look(pace: Pace | None) -> float:
    """Seconds from the last invocation to the first look."""
    return UNKNOWN_SECONDS if pace is None else max(CLOSEST_SECONDS, pace.likely)


def next_look(pace: Pace | None, *, waited: float, missing: int, arrived: Sequence[datetime], news: bool) -> float:
    """Seconds from a look that has not found everything to the next one.

    :param waited: since the last of the missing tiles was invoked, s.
    :param missing: tiles in flight.
    :param arrived: when the outputs that are there appeared.
    :param news: whether there are more of them than at the look before.
    """
    if news and arrived:
        # The rest at the rate of those before it.
        span = (max(arrived) - min(arrived)).total_seconds() + _RESOLUTION
        wait = missing * span / len(arrived)
    elif pace is not None and waited < pace.likely:
        wait = pace.likely - waited
    else:
        wait = OVERDUE * waited
    return max(CLOSEST_SECONDS, wait)


class Paces:
    """The pace of each endpoint, for the whole fleet. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def of(self, endpoint: str) -> Pace | None:
        """The pace of an endpoint, or None where nothing is known of it."""
        mean, spread = self._redis.hmget(_KEY + endpoint, "mean", "spread")
        return Pace(float(mean), float(spread)) if mean and spread else None

    def learn(self, endpoint: str, seconds: float) -> None:
        """Add what a shard took; of two at the same moment one may be lost, which does no harm."""
        pace = Pace.learned(self.of(endpoint), seconds)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_KEY + endpoint, mapping={"mean": pace.mean, "spread": pace.spread})
            pipe.expire(_KEY + endpoint, _PACE_SECONDS)
            pipe.execute()
