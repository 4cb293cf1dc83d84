"""What reaches into kombu: a worker's own process, and beat's, wait out what a Redis broker refuses.

kombu knows a broker that is away; a refusal would end the process. Here it is waited out where it comes, for
:data:`~osml_tasks.outage.OUTAGE_SECONDS`, so that no acknowledgement is lost by it; after that it counts as a lost
connection. Processes of the pool do not wait here: what they publish has a retry policy, and their tasks have theirs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport import redis as transport
from redis.backoff import NoBackoff
from redis.exceptions import WatchError
from redis.retry import Retry

from osml_tasks.outage import OUTAGE_SECONDS, REFUSALS
from osml_tasks.stopping import WORKER

_LOOK_EVERY = 1.0

_waiting: set[int] = set()


class Insistence(Retry):
    """How often a command is tried: again and again while it is refused, in a process that waits."""

    def __init__(self) -> None:
        # What is not refused is tried as often as by kombu: once.
        super().__init__(NoBackoff(), 0)

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *rest: Any, **options: Any) -> Any:
        """Have a command taken.

        :param do: sends it, and reads the answer.
        :param fail: lets go of the connection that it was refused over: the next may lead to another server.
        """

        def insist() -> Any:
            deadline = time.monotonic() + OUTAGE_SECONDS
            failure = (1,) if options.get("with_failure_count") else ()
            while True:
                try:
                    return do()
                except REFUSALS as error:
                    if not _waits() or time.monotonic() > deadline:
                        raise
                    time.sleep(_LOOK_EVERY)
                    # What was watched may have changed: a message then comes twice, which does no harm.
                    with suppress(WatchError):
                        fail(error, *failure)

        return super().call_with_retry(insist, fail, *rest, **options)


def _waits() -> bool:
    return os.getpid() in _waiting and not WORKER.has_begun


def wait_out_refusals(**_: Any) -> None:
    """Have all connections of this process to Redis brokers wait; to be called before there is one."""
    if not _waiting:
        _patch()
    _waiting.add(os.getpid())


def _patch() -> None:
    transport.Transport.connection_errors += REFUSALS
    channel_class: Any = transport.Channel
    connection_options, read = channel_class._connparams, channel_class._brpop_read
    insistence = Insistence()

    def _connparams(channel: Any, asynchronous: bool = False) -> dict[str, Any]:
        return {**connection_options(channel, asynchronous), "retry": insistence}

    def _brpop_read(channel: Any, **options: Any) -> Any:
        try:
            return read(channel, **options)
        except REFUSALS as error:
            # Asked for again at the next turn of the event loop.
            time.sleep(_LOOK_EVERY)
            raise Empty from error

    channel_class._connparams, channel_class._brpop_read = _connparams, _brpop_read
