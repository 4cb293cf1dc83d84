"""An S3 that is out of order, for workers and client alike."""

from __future__ import annotations

import time

from tests.chaos.faults import fault
from tests.chaos.rig import Rig
from tests.chaos.row import Row
from tests.integration.faulty_way import (
    Fault,
    FaultyWay,
    access_denied,
    internal_error,
    late,
    reset,
    reset_answer,
    slow,
    slow_down,
    torn,
    truncated,
)

_TILES = 200


def _on_the_way(
    rig: Rig, *faults: Fault, rate: float = 1.0, verbs: tuple[str, ...] = (), payloads: bool = False
) -> Row:
    """A job whose requests to S3 come to harm, from its beginning to its end.

    :param payloads: whether workers upload the payloads, rather than the client.
    """
    with FaultyWay(rig.store.endpoint_url) as s3:
        shown = [s3.shows(one, *verbs, rate=rate) for one in faults]
        rig.change_workers(AWS_ENDPOINT_URL_S3=s3.url)
        options = ("--no-stage",) if payloads else ()
        inline = {"ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES": "0"} if payloads else {}
        trial = rig.start_job(_TILES, *options, AWS_ENDPOINT_URL_S3=s3.url, **inline)
        trial.reach(0.1)
        trial.struck()
        trial.wait()
        return trial.row(times=sum(one.done for one in shown))


@fault("S3 answers 500 to every tenth request")
def errors(rig: Rig) -> Row:
    return _on_the_way(rig, internal_error(), rate=0.1)


@fault("S3 answers 503 SlowDown to every fifth request", quick=True, wastes=False)
def throttles(rig: Rig) -> Row:
    return _on_the_way(rig, slow_down(), rate=0.2, payloads=True)


@fault("S3 denies every fiftieth request (403)", wastes=False)
def denies(rig: Rig) -> Row:
    return _on_the_way(rig, access_denied(), rate=0.02, payloads=True)


@fault("S3 answers 503 to all requests for 20 s", wastes=False)
def out_of_order(rig: Rig) -> Row:
    return _for_a_while(rig, slow_down(), seconds=20)


@fault("S3 denies all requests for 10 s (403)", wastes=False)
def denies_all(rig: Rig) -> Row:
    return _for_a_while(rig, access_denied(), seconds=10)


def _for_a_while(rig: Rig, fault: Fault, seconds: float) -> Row:
    """A job whose workers get nothing from S3 for a time, in the middle of it."""
    with FaultyWay(rig.store.endpoint_url) as s3:
        rig.change_workers(AWS_ENDPOINT_URL_S3=s3.url)
        trial = rig.start_job(_TILES, "--no-stage", ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES="0")
        trial.reach(0.3)
        shown = s3.shows(fault)
        time.sleep(seconds)
        shown.times = 0
        trial.struck()
        return trial.row(times=shown.done)


@fault("S3 resets every tenth connection, before the request or in the answer")
def resets(rig: Rig) -> Row:
    return _on_the_way(rig, reset(), reset_answer(), rate=0.05)


@fault("S3 takes half a second more for each request", wastes=False)
def slowness(rig: Rig) -> Row:
    return _on_the_way(rig, slow(0.5))


@fault("every tenth body from S3 ends early, its connection with it")
def torn_bodies(rig: Rig) -> Row:
    return _on_the_way(rig, torn(), rate=0.1, verbs=("GET", "LIST"))


@fault("every tenth body from S3 is cut short, with a length that fits", quick=True, wastes=False)
def short_bodies(rig: Rig) -> Row:
    return _on_the_way(rig, truncated(), rate=0.1, verbs=("GET", "LIST"))


@fault("a listing of S3 shows no object younger than 5 s", wastes=False)
def late_lists(rig: Rig) -> Row:
    return _on_the_way(rig, late(5), verbs=("LIST",))
