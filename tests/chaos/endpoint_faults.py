"""An endpoint that refuses, fails, keeps silent, or answers what it should not, when it should not."""

from __future__ import annotations

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.integration.fleet import wait_until

_TILES = 200
_WAIT = "12"
"""``max_wait_time`` of jobs in which some outputs do not come in time, s."""
_MEGABYTES_100, _MEGABYTES_200 = 100_000_000, 200_000_000


@fault("the endpoint throttles every fifth call", wastes=False)
def throttles(rig: Rig) -> Row:
    return _whole(rig, "throttling", "throttled")


@fault("the endpoint answers 503 to every fifth call", wastes=False)
def out_of_order(rig: Rig) -> Row:
    return _whole(rig, "out-of-order", "unavailable")


def _whole(rig: Rig, endpoint: str, counted: str, *, reason: str = "", **variables: str) -> Row:
    """A job on one of the endpoints; how often the fault came is what the endpoint counts."""
    before = rig.fleet.stats(endpoint)[counted]
    trial = rig.start_job(_TILES, endpoint=endpoint, **variables)
    trial.wait()
    wait_until(rig.is_idle)
    return trial.row(times=rig.fleet.stats(endpoint)[counted] - before, reason=reason)


@fault("the endpoint accepts every tenth tile and never answers", quick=True, wastes=False)
def never_answers(rig: Rig) -> Row:
    return _whole(rig, "dropping", "dropped", reason="timeout", ASYNC_SM_MAX_WAIT_TIME=_WAIT)


@fault("every fifth invocation fails, with a failure object")
def fails(rig: Rig) -> Row:
    return _whole(rig, "failing", "failed", reason="model", ASYNC_SM_MAX_RETRIES="10")


@fault("every tenth output is no GeoJSON", wastes=False)
def garbles(rig: Rig) -> Row:
    trial = rig.start_job(_TILES, endpoint="garbled")
    trial.wait()
    return trial.row(times=len(trial.reported("unparsable")), reason="unparsable")


@fault("four outputs have 100 MB each", wastes=False)
def large(rig: Rig) -> Row:
    scripts = {f"t{number:04d}": {"features": 1, "feature_bytes": _MEGABYTES_100} for number in (10, 11, 12, 90)}
    trial = rig.start_job(100, scripts=scripts)
    trial.reach(1.0)
    trial.struck()
    return trial.row(times=len(scripts))


@fault("an output has 200 MB, more than is read", wastes=False)
def too_large(rig: Rig) -> Row:
    trial = rig.start_job(100, scripts={"t0010": {"features": 1, "feature_bytes": _MEGABYTES_200}})
    trial.reach(1.0)
    trial.struck()
    return trial.row(times=1, reason="unparsable")


@fault("every tenth output comes after its tile was given up", wastes=False)
def late(rig: Rig) -> Row:
    return _whole(rig, "late", "late", reason="timeout", ASYNC_SM_MAX_WAIT_TIME=_WAIT)


@fault("every output is written twice, the second time 6 s later", wastes=False)
def twice(rig: Rig) -> Row:
    before = rig.fleet.stats("twice")["twice"]
    trial = rig.start_job(_TILES, endpoint="twice")
    trial.wait()
    wait_until(lambda: rig.fleet.stats("twice")["twice"] >= before + _TILES)
    return trial.row(times=_TILES)
