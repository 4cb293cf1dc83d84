"""Clocks that are wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.chaos.trial import Trial
from tests.integration.fleet import wait_until

TEN_MINUTES = 600
_NOTE = "5 tiles fail at first"


@fault("a poll worker's clock jumps 10 minutes ahead")
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


@fault("the only assembling worker's clock jumps 10 minutes ahead, until it is set right")
def assemble_fast(rig: Rig) -> Row:
    with _wrong_clock(rig, "assemble") as clock:
        trial = _start(rig, endpoint="slow")
        trial.reach(0.1)
        clock.write_text(str(TEN_MINUTES))
        trial.until(lambda: _refuses(rig, "assemble"))
        clock.unlink()
        trial.struck()
        return trial.row(times=1, note=_NOTE)


@fault("a poll worker's clock is 10 minutes fast from its start")
def started_fast(rig: Rig) -> Row:
    with _wrong_clock(rig, "poll-1", TEN_MINUTES):
        wait_until(lambda: _refuses(rig, "poll-1"), 60)
        trial = _start(rig)
        trial.struck()
        return trial.row(times=1, note=_NOTE)


@fault("the broker's clock jumps 4,000 s ahead for 20 s")
def broker_fast(rig: Rig) -> Row:
    with rig.broker.own_clock() as set_ahead:
        trial = rig.start_job(300)
        trial.reach(0.3)
        set_ahead(4000)
        time.sleep(20)
        set_ahead(0)
        trial.struck()
        return trial.row(times=1)


def _jump(rig: Rig, worker: str, seconds: int) -> Row:
    with _wrong_clock(rig, worker) as clock:
        trial = _start(rig)
        trial.reach(0.2)
        clock.write_text(str(seconds))
        trial.struck()
        return trial.row(times=1, note=_NOTE)


@contextmanager
def _wrong_clock(rig: Rig, worker: str, seconds: int = 0) -> Iterator[Path]:
    """Give a worker a clock that is wrong by what is in the file that this yields."""
    clock = rig.directory / "clock"
    clock.write_text(str(seconds))
    rig.change_workers(worker, by=(sys.executable, "-m", "tests.chaos.clock", str(clock)), wait=not seconds)
    rig.workers[worker].may_end = True
    try:
        yield clock
    finally:
        clock.unlink(missing_ok=True)


def _refuses(rig: Rig, worker: str) -> bool:
    """Whether a worker has said that it does not start with such a clock."""
    return "osml-tasks: this machine's clock is 60" in rig.workers[worker].log_text()


def _start(rig: Rig, endpoint: str = "steady") -> Trial:
    # Some tiles fail at first: they wait for a second attempt, which is a countdown, too.
    failing = {f"t{number:04d}": {"fail_first": 1} for number in range(0, 200, 40)}
    return rig.start_job(200, endpoint=endpoint, scripts=failing)
