"""Clocks that are wrong."""

from __future__ import annotations

import sys

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row

TEN_MINUTES = 600


@fault("the clock of a poll worker is 10 minutes fast", quick=True)
def poll_fast(rig: Rig) -> Row:
    return _shifted(rig, "poll-1", TEN_MINUTES)


@fault("the clock of a poll worker is 10 minutes slow")
def poll_slow(rig: Rig) -> Row:
    return _shifted(rig, "poll-1", -TEN_MINUTES)


@fault("the clock of a submit worker is 10 minutes fast")
def submit_fast(rig: Rig) -> Row:
    return _shifted(rig, "submit-1", TEN_MINUTES)


@fault("the clock of a submit worker is 10 minutes slow")
def submit_slow(rig: Rig) -> Row:
    return _shifted(rig, "submit-1", -TEN_MINUTES)


@fault("the clock of the assembling worker is 10 minutes fast")
def assemble_fast(rig: Rig) -> Row:
    return _shifted(rig, "assemble", TEN_MINUTES)


def _shifted(rig: Rig, worker: str, seconds: int) -> Row:
    rig.change_workers(worker, by=(sys.executable, "-m", "tests.chaos.clock", str(seconds)))
    # Some tiles fail at first: they wait for a second attempt, which is a countdown, too.
    scripts = {f"t{number:04d}": {"fail_first": 1} for number in range(0, 200, 40)}
    trial = rig.start_job(200, scripts=scripts)
    trial.reach(0.01)
    trial.struck()
    return trial.row(times=1)
