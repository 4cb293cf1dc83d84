"""The order to stop, and the times that belong together."""

from __future__ import annotations

import os
import time

import pytest

from osml_tasks.celery_settings import SHORTEST_VISIBILITY_TIMEOUT
from osml_tasks.errors import WorkerStoppingError
from osml_tasks.stopping import CALL_SECONDS, GRACE_SECONDS, STOP_SECONDS, Stop
from osml_tasks.submission import CLAIM_SECONDS


def test_a_worker_that_stops_is_gone_before_anyone_would_take_its_work_away() -> None:
    assert GRACE_SECONDS + CALL_SECONDS < STOP_SECONDS < CLAIM_SECONDS < SHORTEST_VISIBILITY_TIMEOUT


def test_work_goes_on_until_the_grace_is_over() -> None:
    stop = Stop(grace=60)
    assert (stop.has_begun, stop.is_due) == (False, False)
    stop.begin()
    assert (stop.has_begun, stop.is_due) == (True, False)
    stop.check()


def test_a_second_order_gives_no_more_time() -> None:
    stop = Stop(grace=0)
    stop.begin()
    stop.grace = 60
    stop.begin()
    time.sleep(0.001)
    with pytest.raises(WorkerStoppingError, match="this worker stops"):
        stop.check()


def test_processes_that_were_forked_before_hear_of_it() -> None:
    stop = Stop()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        os._exit(7 if stop.has_begun else 1)
    stop.begin()
    os.write(writer, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    os.close(reader)
    os.close(writer)
