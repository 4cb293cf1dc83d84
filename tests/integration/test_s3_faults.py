"""S3 out of order: what is read is whole or an error, and what may pass is tried again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from osml_tasks.errors import ObjectNotFoundError, S3AccessError, S3ClockSkewError, S3OperationError
from osml_tasks.s3 import S3Manager, S3Object, S3Uri
from osml_tasks.s3_settings import S3Settings
from tests.integration.faulty_way import (
    Fault,
    FaultyWay,
    access_denied,
    internal_error,
    late,
    refuse,
    reset,
    reset_answer,
    slow_down,
    torn,
    truncated,
)
from tests.integration.fleet import INPUTS, Fleet

HERE = S3Uri(INPUTS, "s3-faults")
SMALL, LARGE = HERE.child("a-small"), HERE.child("b-large")
BODY, LARGE_BODY = os.urandom(200_000), os.urandom(9_000_000)


@pytest.fixture
def way(fleet: Fleet) -> Iterator[FaultyWay]:
    with FaultyWay(fleet.env["AWS_ENDPOINT_URL_S3"]) as way:
        yield way


@pytest.fixture
def s3(fleet: Fleet, way: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Manager]:
    """With two objects, over the faulty way; without its pauses."""
    for name, value in fleet.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", way.url)
    manager = S3Manager(boto3.Session(), sleep=lambda seconds: None)
    for uri, body in ((SMALL, BODY), (LARGE, LARGE_BODY)):
        fleet.s3.put_object(Bucket=uri.bucket, Key=uri.key, Body=body)
    yield manager
    way.faults.clear()
    manager.delete(found.uri for found in manager.list(HERE))


def written(s3: S3Manager, size: int) -> bytes:
    with s3.writer(HERE.child("c-written")) as file:
        for start in range(0, size, 1_000_000):
            file.write(LARGE_BODY[:1_000_000][: size - start])
    return s3.get(HERE.child("c-written"))


def listed(s3: S3Manager) -> dict[str, S3Object]:
    return {found.uri.name: found for found in s3.list(HERE)}


REQUESTS: dict[str, tuple[Callable[[S3Manager], Any], Any]] = {
    "get": (lambda s3: s3.get(SMALL), BODY),
    "get-listed": (lambda s3: s3.get(listed(s3)["a-small"]), BODY),
    "get-range": (lambda s3: s3.get_range(SMALL, 10, 5000), BODY[10:5000]),
    "stream": (lambda s3: b"".join(s3.stream(LARGE)), LARGE_BODY),
    "put": (lambda s3: s3.put(SMALL, BODY), None),
    "writer": (lambda s3: written(s3, 30_000), LARGE_BODY[:30_000]),
    "list": (lambda s3: [*listed(s3)], ["a-small", "b-large"]),
    "folders": (lambda s3: s3.folders(S3Uri(INPUTS, ""))[-1:], ["s3-faults"]),
    "head": (lambda s3: getattr(s3.head(SMALL), "size", None), len(BODY)),
    "bucket": (lambda s3: s3.validate_bucket(INPUTS), None),
}
FAULTS = {
    "slow-down": slow_down,
    "denied": access_denied,
    "reset": reset,
    "reset-answer": reset_answer,
    "torn": torn,
    "truncated": truncated,
}
HARMLESS = {(request, fault) for request in ("put", "head", "bucket") for fault in ("torn", "truncated")}
"""Their answers have no body."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_what_fails_in_passing_is_tried_again(s3: S3Manager, way: FaultyWay, request_: str, fault: str) -> None:
    ask, answer = REQUESTS[request_]
    shown = way.shows(FAULTS[fault](), times=2)
    assert ask(s3) == answer
    assert shown.done == (1 if (request_, fault) in HARMLESS else 2)


def test_a_listing_that_asks_for_the_owner_is_tried_again_page_by_page(s3: S3Manager, way: FaultyWay) -> None:
    """boto3 makes it, not obstore."""
    owned = S3Manager(settings=S3Settings(owners={INPUTS: "111122223333"}), sleep=lambda seconds: None)
    names = [f"{number:04d}" for number in range(1001)]
    for name in names:
        s3.put(HERE.child(f"many/{name}"), b"")
    for fault in (access_denied, torn, truncated):
        found = owned.list(HERE.child("many"))
        shown = [way.shows(fault(), "LIST", times=2)]
        first = next(found)
        shown.append(way.shows(fault(), "LIST", times=2))
        assert [one.uri.name for one in (first, *found)] == names, fault.__name__
        assert [one.done for one in shown] == [2, 2], fault.__name__


def test_an_upload_in_parts_gets_through(s3: S3Manager, way: FaultyWay) -> None:
    for fault in (internal_error(), slow_down(), reset(), reset_answer()):
        way.shows(fault, "PUT", "POST", rate=0.08)
    with s3.writer(HERE.child("large")) as file:
        for _ in range(5):
            file.write(LARGE_BODY)
    way.faults.clear()
    assert b"".join(s3.stream(HERE.child("large"))) == LARGE_BODY * 5


def test_a_body_that_stays_short_is_an_error_that_says_so(s3: S3Manager, way: FaultyWay, tmp_path: Path) -> None:
    shown = way.shows(truncated(), "GET")
    with pytest.raises(S3OperationError, match=r"^GET s3://\S+ gave 100,000 of 200,000 bytes$") as error:
        s3.get(SMALL)
    assert (error.value.uri, isinstance(error.value, S3AccessError)) == (str(SMALL), False)
    shown.times = 0
    with pytest.raises(S3OperationError, match="gave 200,000 of 200,001 bytes"):
        s3.get(S3Object(SMALL, 200_001, datetime.now(UTC)))
    way.shows(truncated(), "GET")
    with pytest.raises(S3OperationError, match="gave 2,097,152 of 4,194,304 bytes"):
        s3.download(LARGE, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_of_what_is_overwritten_meanwhile_is_no_mixture(s3: S3Manager) -> None:
    chunks = s3.stream(LARGE)
    next(chunks)
    s3.put(LARGE, LARGE_BODY[::-1])
    with pytest.raises(S3OperationError, match=r"^GET s3://\S+ failed: PreconditionFailed"):
        next(chunks)


def test_what_is_denied_for_good_is_an_access_error(s3: S3Manager, way: FaultyWay) -> None:
    way.shows(access_denied())
    for name in ("get", "get-range", "stream", "put", "writer", "list", "folders", "head", "bucket"):
        with pytest.raises(S3AccessError, match=r"denied|refuses access"):
            REQUESTS[name][0](s3)


def test_a_missing_object_is_asked_for_once(s3: S3Manager, way: FaultyWay) -> None:
    seen = way.shows(Fault())
    with pytest.raises(ObjectNotFoundError):
        s3.get(HERE.child("missing"))
    assert s3.head(HERE.child("missing")) is None
    assert seen.done == 2


def test_a_wrong_clock_is_called_so(s3: S3Manager, way: FaultyWay) -> None:
    there = f"{datetime.now(UTC) - timedelta(seconds=1200):%Y-%m-%dT%H:%M:%SZ}"
    message = f"The difference is too large.</Message><ServerTime>{there}</ServerTime><Message>"
    way.shows(refuse(403, "RequestTimeTooSkewed", message))
    for name in ("get", "put", "list"):
        with pytest.raises(S3ClockSkewError, match=r"clock is off by 120\d s: set it, for instance by NTP") as error:
            REQUESTS[name][0](s3)
        assert not isinstance(error.value, S3AccessError)


def test_a_throttled_deletion_names_what_is_left(s3: S3Manager, way: FaultyWay) -> None:
    shown = way.shows(slow_down(), "DELETE")
    (undeleted,) = s3.delete([SMALL])
    assert (undeleted.uri, "SlowDown" in undeleted.error) == (SMALL, True)
    shown.times = 0
    assert s3.delete([SMALL]) == []


def test_the_way_lists_late(s3: S3Manager, way: FaultyWay) -> None:
    shown = way.shows(late(3600))
    assert listed(s3) == {}
    shown.times = 0
    assert [*listed(s3)] == ["a-small", "b-large"]
