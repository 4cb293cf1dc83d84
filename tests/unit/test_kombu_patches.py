"""What a worker's own process does about a broker's refusals, and that kombu still is what this reaches into."""

from __future__ import annotations

import os

import pytest
from kombu.transport.redis import Channel, Transport
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import OutOfMemoryError, WatchError

from osml_tasks import kombu_patches
from osml_tasks.kombu_patches import Insistence
from tests.unit.test_outage import answers


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_patches, "_waiting", {os.getpid()})
    monkeypatch.setattr(kombu_patches, "_LOOK_EVERY", 0.01)


def ignore(*failure: object) -> None:
    """Let go of no connection."""


def lost_watch(*failure: object) -> None:
    raise WatchError("a connection that watched was let go of")


@pytest.mark.parametrize("let_go", [ignore, lost_watch])
@pytest.mark.usefixtures("waiting")
def test_a_refusal_is_waited_out(let_go: object) -> None:
    step = answers(OutOfMemoryError("full"), OutOfMemoryError("full"), "done")
    assert Insistence().call_with_retry(step, let_go, with_failure_count=True) == "done"  # type: ignore[arg-type]


@pytest.mark.usefixtures("waiting")
def test_a_refusal_is_not_waited_out_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_patches, "OUTAGE_SECONDS", 0.02)
    with pytest.raises(OutOfMemoryError):
        Insistence().call_with_retry(answers(OutOfMemoryError("full")), ignore)


@pytest.mark.usefixtures("waiting")
def test_a_lost_connection_is_left_to_kombu() -> None:
    with pytest.raises(NoConnectionError):
        Insistence().call_with_retry(answers(NoConnectionError("gone"), "done"), ignore)


def test_a_process_of_the_pool_does_not_wait() -> None:
    with pytest.raises(OutOfMemoryError):
        Insistence().call_with_retry(answers(OutOfMemoryError("full"), "done"), ignore)


def test_kombu_has_what_this_reaches_into() -> None:
    assert callable(Channel._connparams)
    assert callable(Channel._brpop_read)
    assert NoConnectionError in Transport.connection_errors
