"""Disks that are full."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row

# The log goes through another process, which has room.
_LOG_ELSEWHERE = ("/bin/sh", "-c", '"$@" 2>&1 | cat', "log-elsewhere")
_NO_ROOM = ("/bin/sh", "-c", '(ulimit -f 0; exec "$@") 2>&1 | cat', "no-room", sys.executable, "-m")
_NO_OUTPUT = ("/bin/sh", "-c", 'exec "$@" >/dev/full', "no-output", sys.executable, "-m", "osml_tasks")


@fault("the disks of all workers fill up")
def workers(rig: Rig) -> Row:
    rig.change_workers(by=(*_LOG_ELSEWHERE, sys.executable, "-m", "celery"))
    trial = rig.start_job(200)
    trial.reach(0.1)
    with _no_file_grows(rig):
        trial.struck()
        return trial.row(times=5)


@fault("the disks of all workers fill up, those of their logs, too")
def logs(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.1)
    with _no_file_grows(rig):
        trial.struck()
        return trial.row(times=5)


@contextmanager
def _no_file_grows(rig: Rig) -> Iterator[None]:
    """Let no process of a worker write a byte to any file."""
    _limit(rig, 0)
    try:
        yield
    finally:
        _limit(rig, resource.RLIM_INFINITY)


def _limit(rig: Rig, most: int) -> None:
    for worker in rig.workers.values():
        parent = psutil.Process(worker.pid)
        for process in (parent, *parent.children(recursive=True)):
            if process.name().startswith("python"):
                _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (most, hard))


@fault("the client's disk is full; the result is fetched to another")
def client(rig: Rig) -> Row:
    trial = rig.start_job(200, command=(*_NO_ROOM, "osml_tasks"))
    trial.wait()
    said = trial.client.log_text()
    assert f"fetch it with: osml-tasks result {trial.job_id}" in said, said
    assert "Traceback" not in said, said
    trial.fetch()
    return trial.row(times=1)


@fault("the client's standard output is full (/dev/full)")
def output(rig: Rig) -> Row:
    trial = rig.start_job(200, command=_NO_OUTPUT)
    status, said = trial.wait(), trial.client.log_text()
    assert status == 2, said
    assert "osml-tasks: standard output cannot be written" in said, said
    return trial.count(times=1, note="exit 2 with one line, the result is whole")
