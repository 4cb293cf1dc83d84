"""Messages that come twice, out of order, or not at all."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from osml_tasks.celery_settings import ASSEMBLE_QUEUE, POLL_QUEUE, SUBMIT_QUEUE
from osml_tasks.redis_keys import PREFIX
from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.chaos.trial import Trial

_TWICE = (sys.executable, "-m", "tests.chaos.twice")
_GRACE = 40.0


@fault("every message is delivered twice, in any order", quick=True, wastes=False)
def twice(rig: Rig) -> Row:
    rig.change_workers(by=(*_TWICE, "celery"))
    trial = rig.start_job(200, command=(*_TWICE, "osml-tasks"))
    return trial.row(times=1)


@fault("a submit message is lost")
def lost_submit(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.2)
    _lose_one(trial, SUBMIT_QUEUE, ("submit-1", "submit-2"))
    return trial.row(times=1)


@fault("a poll message is lost")
def lost_poll(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.2)
    _lose_one(trial, POLL_QUEUE, ("poll-1", "poll-2"))
    return trial.row(times=1)


@fault("the assemble message is lost")
def lost_assemble(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.2)
    _lose_one(trial, ASSEMBLE_QUEUE, ("assemble",))
    return trial.row(times=1)


def _lose_one(trial: Trial, queue: str, workers: Sequence[str]) -> None:
    """Delete a message that waits in its queue, which is the case while nobody serves it."""
    rig, broker = trial.rig, trial.rig.broker.client
    stopped = [rig.workers[name] for name in workers]
    for worker in stopped:
        worker.stop(grace=_GRACE)
    key = PREFIX + queue
    trial.until(lambda: bool(broker.llen(key)))
    waiting = broker.lrange(key, 0, -1)
    assert broker.lrem(key, 1, random.choice(waiting)) == 1
    for worker in stopped:
        worker.start()
    trial.struck()
