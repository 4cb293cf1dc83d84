"""A server with the fleet's state that is away, starting, or full: what passes by itself, and waiting for that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, AuthorizationError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoAnswerError

from osml_tasks.errors import JobNotFoundError
from osml_tasks.stopping import Stop

OUTAGE_SECONDS = 60.0
"""How long a task waits for such a server before it returns its message, s; it then comes back by itself."""
CLIENT_PATIENCE = 600.0
"""How long a client that follows a job bears that nothing is heard of it, s."""

PASSING = (NoConnectionError, NoAnswerError, OutOfMemoryError, ReadOnlyError, TryAgainError, OperationalError)
"""What Redis and kombu raise of a server that may be well again soon."""

# These are lost connections to redis-py.
_DENIED = (AuthenticationError, AuthorizationError)
_LOOK_EVERY = 1.0

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


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
