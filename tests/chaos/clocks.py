"""Clocks that are wrong."""

from __future__ import annotations

import sys

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.chaos.trial import Trial
from tests.integration.fleet import wait_until

TEN_MINUTES = 600
_NOTE = "5 tiles fail at first"


@fault("a poll worker's clock jumps 10 minutes ahead", quick=True)
def poll_fast(rig: Rig) -> Row:
    return _jump(rig, "poll-1", TEN_MINUTES)


@fault("a poll worker's clock jumps 10 minutes back")
def poll_slow(rig: Rig) -> Row:
    return _jump(rig, "poll-1", -TEN_MINUTES)


@fault("a submit worker's clock jumps 10 minutes ahead")
def submit_fast(rig: Rig) -> Row:
    return _jump(rig, "submit-1", TEN_MINUTES)


@fault("a submit worker's clock jumps 10 minutes back")
def submit_slow(rig: Rig) -> Row:
    return _jump(rig, "submit-1", -TEN_MINUTES)


@fault("the assembling worker's clock jumps 10 minutes ahead")
def assemble_fast(rig: Rig) -> Row:
    return _jump(rig, "assemble", TEN_MINUTES)


@fault("a worker is started whose clock is 10 minutes fast")
def started_fast(rig: Rig) -> Row:
    file = rig.directory / "clock"
    file.write_text(str(TEN_MINUTES))
    rig.change_workers("poll-1", by=_with_clock(rig), wait=False)
    wait_until(lambda: "clock is 600 s fast" in rig.workers["poll-1"].log_text(), 60)
    trial = _start(rig)
    trial.struck()
    row = trial.row(times=1, note=_NOTE)
    file.unlink()
    return row


def _jump(rig: Rig, worker: str, seconds: int) -> Row:
    file = rig.directory / "clock"
    rig.change_workers(worker, by=_with_clock(rig))
    trial = _start(rig)
    trial.reach(0.2)
    file.write_text(str(seconds))
    trial.struck()
    row = trial.row(times=1, note=_NOTE)
    file.unlink()
    return row


def _with_clock(rig: Rig) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.chaos.clock", str(rig.directory / "clock"))


def _start(rig: Rig) -> Trial:
    # Some tiles fail at first: they wait for a second attempt, which is a countdown, too.
    return rig.start_job(200, scripts={f"t{number:04d}": {"fail_first": 1} for number in range(0, 200, 40)})
