"""One bed for each process of the test run, with workers of a user behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.aws.bed import Bed, bed
from tests.integration.aws.callers import removed
from tests.integration.fleet import Fleet, wait_until


@pytest.fixture(scope="session")
def _bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with bed(tmp_path_factory.mktemp("bed")) as running:
        yield running


@pytest.fixture(scope="session")
def _workers(_bed: Bed) -> Iterator[Fleet]:
    with _bed.fleet() as running:
        yield running


@pytest.fixture
def aws(_bed: Bed) -> Iterator[Bed]:
    """The bed; a test fails that leaves an object in any bucket, or has asked for a host that is none of AWS's."""
    front = _bed.front
    front.asked.clear()
    yield _bed
    front.faults.clear()
    front.regions.clear()
    front.requester_pays.clear()
    front.keys.lifetime = 3600.0
    try:
        wait_until(lambda: not _bed.seen.objects())
    finally:
        # What one test has left is not to fail the next.
        removed(_bed, *(f"s3://{name}" for name in _bed.seen.objects()))
    assert front.strangers == []
    assert {host.partition(":")[2] for host in _bed.proxy.hosts} <= {"443"}


@pytest.fixture
def fleet(aws: Bed, _workers: Fleet) -> Fleet:
    """Workers behind the proxy, and a client beside them."""
    return _workers
