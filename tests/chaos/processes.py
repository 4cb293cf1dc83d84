"""Processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import time

from osml_tasks.jobs import JobState
from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.chaos.trial import Trial
from tests.integration.faulty_way import FaultyWay
from tests.integration.fleet import wait_until

KILL_EVERY = 10.0
_MANY = 10
_MEGABYTE = 1 << 20


@fault("a submit worker is killed, parent and children")
def submit_worker(rig: Rig) -> Row:
    with FaultyWay(rig.fleet.endpoints_url) as endpoints:
        endpoints.delay = 0.3
        rig.change_workers("submit-1", AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=endpoints.url)
        trial = rig.start_job(200)
        trial.reach(0.2)
        _kill_at_work(trial, "submit-1")
        return trial.row(times=1)


@fault("a poll worker is killed, parent and children", quick=True)
def poll_worker(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.2)
    _kill_at_work(trial, "poll-1")
    return trial.row(times=1)


def _kill_at_work(trial: Trial, worker: str) -> None:
    """Kill a worker that has taken messages, parent and children."""
    trial.until(lambda: trial.rig.holds_message(worker))
    trial.rig.workers[worker].kill()
    trial.struck()


@fault("a child of a poll worker is killed at work")
def child(rig: Rig) -> Row:
    with FaultyWay(rig.store.endpoint_url) as s3:
        rig.change_workers("poll-1", AWS_ENDPOINT_URL_S3=s3.url)
        trial = rig.start_job(200)
        trial.reach(0.2)
        s3.delay = 0.5
        children: list[int] = []

        def at_work() -> bool:
            children[:] = rig.at_work("poll-1")
            return bool(children)

        trial.until(at_work)
        os.kill(children[0], signal.SIGKILL)
        trial.struck()
        s3.delay = 0.0
        return trial.row(times=1)


@fault("the assembling worker is killed in the middle of the result")
def assembling(rig: Rig) -> Row:
    with FaultyWay(rig.store.endpoint_url) as s3:
        rig.change_workers("assemble", AWS_ENDPOINT_URL_S3=s3.url)
        trial = rig.start_job(150, scripts={f"t{number:04d}": {"features": 600} for number in range(150)})
        trial.until(lambda: rig.state(trial.job_id) is JobState.ASSEMBLING)
        s3.delay, before = 0.3, s3.sent
        trial.until(lambda: s3.sent > before + _MEGABYTE)
        assert rig.state(trial.job_id) is JobState.ASSEMBLING
        rig.workers["assemble"].kill()
        trial.struck()
        s3.delay = 0.0
        return trial.row(times=1)


@fault("beat is killed")
def beat(rig: Rig) -> Row:
    trial = rig.start_job(200)
    for share in (0.2, 0.4, 0.6):
        trial.reach(share)
        starts = rig.beat.starts
        rig.beat.kill()
        trial.struck()
        wait_until(lambda starts=starts: rig.beat.starts > starts)  # type: ignore[misc]
    return trial.row(times=3)


@fault("the client is killed while it stages, and started again")
def staging_client(rig: Rig) -> Row:
    with FaultyWay(rig.store.endpoint_url) as s3:
        s3.delay = 0.5
        trial = rig.start_job(200, AWS_ENDPOINT_URL_S3=s3.url)
        trial.until(lambda: sum("/payloads/" in name for name in rig.objects()) > 20)
        trial.client.stop(grace=0)
    trial.start_again()
    return trial.row(times=1)


@fault("the client is killed while it waits; another fetches the result", quick=True)
def waiting_client(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.3)
    trial.client.stop(grace=0)
    trial.struck()
    trial.fetch()
    return trial.row(times=1)


@fault("a worker at random is killed every 10 s")
def again_and_again(rig: Rig) -> Row:
    dice = random.Random(5)
    trial = rig.start_job(400, endpoint="slow")
    trial.reach(0.1)
    for _ in range(_MANY):
        rig.workers[dice.choice(sorted(rig.workers))].kill()
        trial.struck()
        time.sleep(KILL_EVERY)
    return trial.row(times=_MANY)
