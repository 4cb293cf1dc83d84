"""Disks that are full."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row

# Not a byte can be written to any file; a log still can, through a process without that limit.
_NO_ROOM = ("/bin/sh", "-c", '(ulimit -f 0; exec "$@") 2>&1 | cat', "no-room", sys.executable, "-m")
_NOWHERE = ("/bin/sh", "-c", 'exec "$@" >/dev/full', "no-output", sys.executable, "-m", "osml_tasks")


@fault("the disks of all workers are full", quick=True)
def workers(rig: Rig) -> Row:
    rig.change_workers(by=(*_NO_ROOM, "celery"))
    trial = rig.start_job(200)
    return trial.row(times=5)


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
    trial = rig.start_job(200, command=_NOWHERE)
    trial.wait()
    said = trial.client.log_text()
    assert "Traceback" not in said, said
    if not Path(trial.output).exists():
        trial.fetch()
    return trial.row(times=1)
