"""Jobs that are started twice, cancelled at any time, and cleaned up beside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from uuid import uuid4

from osml_tasks.celery import new_app
from osml_tasks.jobs import JobState
from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.chaos.trial import Trial
from tests.integration.faulty_way import FaultyWay

_CANCELLED = 1
_LITTLE_AGE = {"ASYNC_SM_MAX_WAIT_TIME": "20", "ASYNC_SM_CLEANUP_LEFTOVER_SECONDS": "20"}


@fault("two clients start the same job at once, a third while it runs", quick=True, wastes=False)
def same_job(rig: Rig) -> Row:
    trial, task_id = rig.new_trial(200), str(uuid4())
    trial.start_by_name(task_id, clients=2)
    trial.fetch()
    trial.reach(0.5)
    trial.start_by_name(task_id, clients=1)
    trial.struck()
    return trial.row(times=2)


@fault("a job is cancelled while it submits", quick=True)
def cancelled_submitting(rig: Rig) -> Row:
    with FaultyWay(rig.fleet.endpoints_url) as endpoints:
        endpoints.delay = 0.3
        rig.change_workers("submit-1", "submit-2", AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=endpoints.url)
        trial = rig.start_job(200)
        trial.reach(0.05)
        return _cancel(trial)


@fault("a job is cancelled while it polls")
def cancelled_polling(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.until(lambda: trial.parts() >= 3)
    return _cancel(trial)


@fault("a job is cancelled while it assembles")
def cancelled_assembling(rig: Rig) -> Row:
    with FaultyWay(rig.store.endpoint_url) as s3:
        rig.change_workers("assemble", AWS_ENDPOINT_URL_S3=s3.url)
        trial = rig.start_job(60)
        trial.until(lambda: trial.parts() >= 2)
        s3.delay = 2.0
        trial.until(lambda: rig.state(trial.job_id) is JobState.ASSEMBLING)
        row = _cancel(trial)
        s3.delay = 0.0
        return row


def _cancel(trial: Trial) -> Row:
    done = trial.rig.fleet.run("cancel", trial.job_id)
    assert " cancelled, " in done.stdout, done.stdout + done.stderr
    assert trial.wait() == _CANCELLED, trial.client.log_text()[-500:]
    # Nobody is promised the features of such a job.
    row = replace(trial.count(times=1), lost=0)
    assert trial.rig.in_flight() == 0
    return row


@fault("cleanup and sweeps run all the time beside a job")
def cleaned_beside(rig: Rig) -> Row:
    trial = rig.start_job(300)
    trial.reach(0.01)
    with _cleaning(rig) as rounds:
        trial.wait()
    return trial.row(times=len(rounds))


@contextmanager
def _cleaning(rig: Rig) -> Iterator[list[str]]:
    """Clean up again and again, in both ways; yields what each ``osml-tasks cleanup`` has said."""
    app, over, rounds = new_app(rig.broker.url, rig.broker.url), Event(), list[str]()

    def sweep() -> None:
        while not over.wait(1.0):
            app.send_task("osml_tasks.cleanup", expires=10)

    def clean_up() -> None:
        while not over.is_set():
            done = rig.fleet.run("cleanup", "--force", **_LITTLE_AGE)
            rounds.append(done.stdout + done.stderr)

    threads = [Thread(target=work) for work in (sweep, clean_up)]
    for thread in threads:
        thread.start()
    try:
        yield rounds
    finally:
        over.set()
        for thread in threads:
            thread.join()
