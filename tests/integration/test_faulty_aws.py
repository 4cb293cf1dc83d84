"""The steps of a job while S3, or this machine's clock, is out of order; done in this process, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from osml_tasks.assembly import assemble_job
from osml_tasks.collection import collect_shard
from osml_tasks.connections import Connections
from osml_tasks.errors import ClockSkewError, S3OperationError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import Reason, Shard
from osml_tasks.polling import give_up
from osml_tasks.read_ahead import ReadAhead
from osml_tasks.sweep import clean_up_jobs
from tests.integration.faulty_way import Fault, FaultyWay, access_denied, late, slow_down, truncated
from tests.integration.fleet import Fleet, names, wait_until, write_tiles
from tests.integration.steps import collected, connected, ignore, make_job, submitted, with_options

OUTPUT, PART, MANIFEST = r"output/.*\.out$", r"/parts/", r"tiles\.jsonl$"


@pytest.fixture
def way(fleet: Fleet) -> Iterator[FaultyWay]:
    with FaultyWay(fleet.env["AWS_ENDPOINT_URL_S3"]) as way:
        yield way


@pytest.fixture
def connections(fleet: Fleet, way: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    monkeypatch.setitem(fleet.env, "AWS_ENDPOINT_URL_S3", way.url)  # type: ignore[arg-type]
    with connected(fleet, monkeypatch) as connections:
        yield connections


def answered(fleet: Fleet, connections: Connections, tiles: Path) -> Shard:
    """A shard whose tiles have all been answered, and not been collected."""
    (shard,) = make_job(connections, tiles)
    submitted(connections, shard)
    wait_until(lambda: fleet.stats("scripted")["in_flight"] == 0)
    return shard


def ended(connections: Connections, shard: Shard) -> JobHandle:
    assemble_job(connections, shard.job)
    return JobHandle(connections, shard.job)


@pytest.mark.parametrize("fault", [truncated, access_denied])
@pytest.mark.parametrize("what", [OUTPUT, MANIFEST])
def test_what_is_cut_short_or_denied_in_passing_costs_no_tile(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path, what: str, fault: Callable[[], Fault]
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}, "b": {"features": 3}}))
    shown = way.shows(fault(), "GET", key=what, times=2)
    # A worker that did not submit it, and has read nothing of the manifest.
    other = replace(connections, read_ahead=ReadAhead(connections.s3))
    collected(other, shard)
    handle = ended(other, shard)
    assert (shown.done, names(handle.result()["features"])) == (2, ["a", "b", "b", "b"])
    handle.discard()


def test_a_body_that_stays_short_leaves_the_shard_to_another_poll(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}, "b": {}}))
    shown = way.shows(truncated(), "GET", key=OUTPUT)
    with pytest.raises(S3OperationError, match=r"of .* bytes"):
        collect_shard(connections, shard, idle=0, seen=0, publish=ignore)
    assert connections.records.progress(shard).shards_finished == 0
    shown.times = 0
    collected(connections, shard)
    handle = ended(connections, shard)
    assert names(handle.result()["features"]) == ["a", "b"]
    handle.discard()


def test_a_part_that_is_cut_short_is_not_assembled(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {"features": 5}}))
    collected(connections, shard)
    shown = way.shows(truncated(), "GET", key=PART)
    with pytest.raises(S3OperationError, match=r"of .* bytes"):
        assemble_job(connections, shard.job)
    shown.times = 0
    handle = ended(connections, shard)
    assert len(handle.result()["features"]) == 5
    handle.discard()


def test_failures_are_in_the_report_whatever_a_listing_shows(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}, "b": {"raw": "no JSON"}}))
    collected(connections, shard)
    shown = way.shows(late(3600), key="/failures/")
    handle = ended(connections, shard)
    assert [failure["tile"] for failure in handle.report()["failures"]] == [str(tiles / "b")]
    shown.times = 0
    handle.discard()


def test_a_list_of_failures_that_a_dead_poll_has_left_is_not_believed(
    fleet: Fleet, connections: Connections, tiles: Path
) -> None:
    """It gave a tile up and died before the part was there; then the tile's output came after all."""
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}}))
    stale = connections.input_uri(connections.job(shard.job).failures_key(shard.shard))
    connections.s3.put(stale, b'[0,"a","timeout","nothing came",1]\n')
    (record,) = connections.records.tiles(shard).values()
    connections.records.set_tiles(shard, {0: give_up(record, Reason.TIMEOUT, "nothing came")})
    collected(connections, shard)
    assert connections.s3.head(stale) is None
    connections.s3.put(stale, b'[0,"a","timeout","nothing came",1]\n')
    handle = ended(connections, shard)
    assert (handle.report()["failed"], handle.report()["failures"]) == (0, [])
    handle.discard()


def test_an_output_above_the_limit_is_reported_and_not_read(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}, "b": {"features": 50}}))
    read = way.shows(Fault(), "GET", key=OUTPUT)
    collected(with_options(connections, max_output_bytes=2000), shard)
    handle = ended(connections, shard)
    (failure,) = handle.report()["failures"]
    assert (failure["tile"], failure["reason"], read.done) == (str(tiles / "b"), "unparsable", 1)
    assert "more than the 2,000 that are read" in failure["error"]
    assert "ASYNC_SM_MAX_OUTPUT_BYTES" in failure["error"]
    assert names(handle.result()["features"]) == ["a"]
    handle.discard()


def test_large_outputs_are_read_one_at_a_time_in_their_order(
    fleet: Fleet, connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osml_tasks.parts._READ_AHEAD_BYTES", 1000)
    monkeypatch.setattr("osml_tasks.large_output.FEATURES_AT_A_TIME", 7)
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {"features": 20}, "b": {}, "c": {"features": 14}}))
    collected(connections, shard)
    handle = ended(connections, shard)
    assert names(handle.result()["features"]) == ["a"] * 20 + ["b"] + ["c"] * 14
    handle.discard()


def test_what_s3_does_not_delete_when_it_is_throttled_the_sweep_deletes_later(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path
) -> None:
    shard = answered(fleet, connections, write_tiles(tiles, {"a": {}, "b": {}}))
    shown = way.shows(slow_down(), "DELETE")
    collected(connections, shard)
    handle = ended(connections, shard)
    assert len(handle.result()["features"]) == 2
    handle.discard()
    assert len(fleet.objects()) > 2
    shown.times = 0
    clean_up_jobs(connections, retry=True)
    assert fleet.objects() == []


@pytest.mark.parametrize("fault", [slow_down, access_denied])
def test_an_upload_that_s3_refuses_uses_up_no_attempt(
    fleet: Fleet, connections: Connections, way: FaultyWay, tiles: Path, fault: Callable[[], Fault]
) -> None:
    through_s3 = with_options(connections, inline_payload_max_bytes=0, max_retries=0)
    (shard,) = make_job(through_s3, write_tiles(tiles, {"a": {}, "b": {}}))
    shown = way.shows(fault(), "PUT", key=r"0000001$")
    with pytest.raises(S3OperationError, match=r"^PUT s3://\S+/0000001 "):
        submitted(through_s3, shard)
    assert {index: record.invoked_at is not None for index, record in through_s3.records.tiles(shard).items()} == {
        0: True
    }
    shown.times = 0
    submitted(through_s3, shard)
    collected(through_s3, shard)
    handle = ended(through_s3, shard)
    assert names(handle.result()["features"]) == ["a", "b"]
    handle.discard()


def test_a_worker_with_a_wrong_clock_uses_up_no_attempt(
    fleet: Fleet, connections: Connections, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"a": {}, "b": {}}))
    with monkeypatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: datetime.now(UTC) - timedelta(minutes=10))
        with pytest.raises(ClockSkewError, match="set it, for instance by NTP"):
            submitted(connections, shard)
    assert connections.records.tiles(shard) == {}
    submitted(connections, shard)
    assert {record.attempt for record in connections.records.tiles(shard).values()} == {1}
    collected(connections, shard)
    ended(connections, shard).discard()
