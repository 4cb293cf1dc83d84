"""Processes that are killed."""

from __future__ import annotations

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row


@fault("nothing", quick=True)
def nothing(rig: Rig) -> Row:
    trial = rig.start_job(200)
    return trial.row(times=0)


@fault("a submit worker is killed")
def submit_worker(rig: Rig) -> Row:
    trial = rig.start_job(200)
    trial.reach(0.3)
    rig.workers["submit-1"].kill()
    trial.struck()
    return trial.row(times=1)
