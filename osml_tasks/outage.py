"""A server with the fleet's state that is away, or refuses: what passes by itself, and waiting for that.

It refuses while it starts, is full, has lost its replicas, its disk or its master, or is moved.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from kombu.exceptions import OperationalError
from redis._parsers.base import BaseParser
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoAnswerError

from osml_tasks.errors import JobNotFoundError
from osml_tasks.stopping import Stop

OUTAGE_SECONDS = 60.0
"""How long a task waits for such a server before it returns its message, s; it then comes back by itself."""
CLIENT_PATIENCE = 600.0
"""How long a client that follows a job bears that nothing is heard of it, s."""


class RefusedError(ResponseError):
    """A server's refusal that passes by itself, and for which redis-py has no class."""


REFUSALS = (RefusedError, OutOfMemoryError, ReadOnlyError, TryAgainError, ClusterDownError)
"""What a server that answers may refuse now, and take soon; that its master is down is one of these."""
PASSING = (NoConnectionError, NoAnswerError, *REFUSALS, OperationalError)
"""What Redis and kombu raise of a server that may be well again soon; that it is starting is a lost connection."""

# Redis 6.2 has what a script was refused at the end of the script's error.
_CODES = "NOREPLICAS|MISCONF|OOM|READONLY|MASTERDOWN|UNBLOCKED|CLUSTERDOWN|TRYAGAIN|LOADING|BUSY"
_REFUSAL = re.compile(rf"(?:ERR Error running script .*-)?((?:{_CODES})\b.*)", re.DOTALL)

# These are lost connections to redis-py.
_DENIED = (AuthenticationError, AuthorizationError)
_LOOK_EVERY = 1.0

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


def recognise_refusals() -> None:
    """Have redis-py tell refusals that pass from other answers; they stay what they are to everybody else."""
    if getattr(BaseParser.parse_error, "recognises", False):
        return
    parse: Callable[[str], RedisError] = BaseParser.parse_error

    def parse_error(response: str) -> RedisError:
        error = parse(response)
        refusal = _REFUSAL.match(response)
        if refusal is None or isinstance(error, PASSING):
            return error
        return RefusedError(refusal[1])

    parse_error.recognises = True  # type: ignore[attr-defined]
    BaseParser.parse_error = staticmethod(parse_error)  # type: ignore[method-assign]


def insist(step: Callable[[], Answer], stop: Stop, seconds: float = OUTAGE_SECONDS) -> Answer:
    """Do a step again and again until the server takes it.

    :param step: one that may be done twice.
    :param stop: ends the wait early.
    :raises RedisError: the server has not taken it in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return step()
        except PASSING:
            if time.monotonic() > deadline or stop.has_begun:
                raise
        time.sleep(_LOOK_EVERY)


class Patience:
    """Bears with a server, or a job's records, that are not there for a while.

    :param what: goes into the one line of log at the beginning of each stretch.
    :param seconds: for how long at a stretch.
    """

    def __init__(self, what: str, seconds: float = CLIENT_PATIENCE) -> None:
        self._what = what
        self._seconds = seconds
        self._deadline: float | None = None
        self._has_answered = False

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer, or None while there is none. What has never been answered is not waited for.

        :raises RedisError: the server has given none for too long.
        :raises JobNotFoundError: there are no records of a job, and none came back.
        """
        try:
            answer = question()
        except (*PASSING, JobNotFoundError) as error:
            if not self._has_answered or isinstance(error, _DENIED):
                raise
            if self._deadline is None:
                logger.warning("%s: waiting, for nothing is heard of it: %s", self._what, error)
                self._deadline = time.monotonic() + self._seconds
            if time.monotonic() > self._deadline:
                raise
            return None
        self._deadline, self._has_answered = None, True
        return answer
