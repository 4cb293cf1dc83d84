"""Waiting for one invocation, with a clock that the test turns."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.endpoint import Accepted
from osml_tasks.errors import AsyncInferenceTimeoutError, ModelError, ObjectNotFoundError
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.polling import AsyncInferencePoller
from osml_tasks.s3 import S3Object, S3Uri

ACCEPTED = Accepted(S3Uri("outputs", "a.out"), S3Uri("outputs", "a-error.out"))


class World:
    """A clock, and a bucket in which objects appear at their times (s)."""

    def __init__(self, appears: dict[str, float], failure: bytes = b"out of memory") -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self._appears = appears
        self._failure = failure

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def head(self, uri: S3Uri) -> S3Object | None:
        appeared = datetime.fromtimestamp(self._appears.get(uri.key, 0), UTC)
        return S3Object(uri, 1, appeared) if self._is_there(uri) else None

    def get(self, uri: S3Uri) -> bytes:
        if not self._is_there(uri):
            raise ObjectNotFoundError("no such object", uri=str(uri))
        return self._failure

    def _is_there(self, uri: S3Uri) -> bool:
        return self.now >= self._appears.get(uri.key, float("inf"))


def poller(world: World, **options: Any) -> AsyncInferencePoller:
    config = AsyncEndpointConfig(input_bucket="inputs", output_bucket="outputs", **options)
    clock: Any = {"sleep": world.sleep, "clock": lambda: world.now, "wall": lambda: world.now}
    return AsyncInferencePoller(world, config, **clock)  # type: ignore[arg-type]


def test_no_wait_is_longer_than_the_options_have_it() -> None:
    world, metrics = World({"a.out": 200}), AsyncMetricsTracker()
    options = {"polling_interval": 0.5, "max_polling_interval": 10, "exponential_backoff_multiplier": 2}
    found = poller(world, **options).poll_until_complete(ACCEPTED, metrics=metrics)
    assert found.uri == ACCEPTED.output
    for wait, longest in zip(world.sleeps, [0.5, 1, 2, 4, 8, *[10] * 20], strict=False):
        assert wait <= longest
    late = [wait for before, wait in zip(accumulate(world.sleeps), world.sleeps[1:], strict=False) if before > 40]
    assert all(wait >= 9 for wait in late)
    assert len(set(late)) > 1, "no jitter"
    assert metrics.get_metric("PollingAttempts") == len(world.sleeps)


def test_a_new_endpoint_is_looked_at_soon_and_then_ever_later() -> None:
    world = World({"a.out": 40})
    poller(world, polling_interval=60).poll_until_complete(ACCEPTED)
    assert world.sleeps[0] == 1
    assert world.sleeps[1:] == sorted(world.sleeps[1:])
    assert world.now < 55


def test_what_an_endpoint_takes_is_learned() -> None:
    one = poller(world := World({"a.out": 20}), polling_interval=60)
    for _ in range(8):
        world.now, world.sleeps[:] = 0.0, []
        one.poll_until_complete(ACCEPTED, endpoint="ships")
    assert len(world.sleeps) <= 2
    assert world.now < 22
    world.now, world.sleeps[:] = 0.0, []
    one.poll_until_complete(ACCEPTED, endpoint="planes")
    assert world.sleeps[0] == 1


def test_a_failure_object_is_the_models_error() -> None:
    world = World({"a-error.out": 5}, b'{"failureReason": "CUDA out of memory"}')
    with pytest.raises(ModelError, match=r"^CUDA out of memory$") as caught:
        poller(world).poll_until_complete(ACCEPTED, endpoint="ships", inference_id="job.1")
    error = caught.value
    assert (error.endpoint, error.inference_id, error.uri) == ("ships", "job.1", "s3://outputs/a-error.out")
    assert 4 < error.elapsed < 20


def test_an_expired_request_is_a_timeout() -> None:
    world = World({"a-error.out": 5}, b"Request expired: it queued for more than RequestTTLSeconds (60).")
    with pytest.raises(AsyncInferenceTimeoutError, match="expired"):
        poller(world).poll_until_complete(ACCEPTED)


def test_an_endpoint_without_failure_objects_is_waited_for_as_well() -> None:
    world = World({"a.out": 7})
    assert poller(world).poll_until_complete(Accepted(ACCEPTED.output, None)).uri == ACCEPTED.output


@given(st.floats(0.1, 500), st.floats(0.1, 100))
def test_nobody_waits_longer_than_the_longest_wait_and_then_looks_once_more(longest: float, interval: float) -> None:
    world = World({})
    one = poller(world, max_wait_time=longest, polling_interval=interval)
    with pytest.raises(AsyncInferenceTimeoutError, match="ASYNC_SM_MAX_WAIT_TIME") as caught:
        one.poll_until_complete(ACCEPTED)
    assert world.now == pytest.approx(longest)
    assert caught.value.elapsed == pytest.approx(longest)


def test_what_appears_at_the_last_moment_is_found() -> None:
    world = World({"a.out": 9.99})
    assert poller(world, max_wait_time=10, polling_interval=9).poll_until_complete(ACCEPTED)
