"""Messages that come twice, late or out of order: done in this process, step by step, on the real servers.

No Celery worker is involved, so that a test says which message comes when; broker and S3 are the
fleet's, in a database of their own.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.celery_settings import QUEUES
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import create_job
from osml_tasks.errors import NotAllowedError, SourceError
from osml_tasks.job_cleanup import delete_job
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState, failure_filename
from osml_tasks.ledger import ResourceType
from osml_tasks.polling import TileRecord
from osml_tasks.redis_keys import PREFIX
from osml_tasks.sources import find_tiles
from osml_tasks.submission import Submission, submit_shard
from osml_tasks.sweep import remove_job, sweep
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import PATIENCE, Fleet, names, wait_until, write_tiles
from tests.integration.steps import (
    collected,
    connected,
    empty,
    fail_and_forget,
    ignore,
    make_job,
    submitted,
    with_options,
)


@pytest.fixture
def connections(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    with connected(fleet, monkeypatch) as connections:
        yield connections


def test_every_message_twice_gives_the_same_result_and_no_second_invocation(
    fleet: Fleet, connections: Connections, tiles: Path
) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"t{number:02d}": {"features": 2} for number in range(10)}))
    before = len(fleet.invocations("scripted"))
    for shard in reversed(shards):
        for _ in range(2):
            submitted(connections, shard)
        collected(connections, shard)
        part = connections.s3.get(connections.input_uri(connections.job(shard.job).part_key(shard.shard)))
        collected(connections, shard)
        submitted(connections, shard)
        assert part == connections.s3.get(connections.input_uri(connections.job(shard.job).part_key(shard.shard)))
    handle = JobHandle(connections, shards[0].job)
    for _ in range(2):
        assemble_job(connections, handle.job_id)
    assert names(handle.result()["features"]) == [f"t{number:02d}" for number in range(10) for _ in range(2)]
    assert len(fleet.invocations("scripted")) - before == 10
    assert handle.report()["succeeded"] == 10
    handle.discard()


def test_a_submit_that_died_half_way_invokes_only_the_rest(fleet: Fleet, connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {f"t{number}": {} for number in range(4)}))
    submitted(connections, shard)
    connections.records._redis.hdel(f"{PREFIX}tiles:{shard.name}", shard.first + 1)
    before = fleet.invocations("scripted")
    submitted(connections, shard)
    again = fleet.invocations("scripted")[len(before) :]
    assert again == [connections.job(shard.job).inference_id(shard.first + 1, 1)]
    collected(connections, shard)
    fail_and_forget(connections, shard.job)


def test_assembly_that_died_after_the_result_goes_on_to_the_end(connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"a": {}}))
    submitted(connections, shard)
    collected(connections, shard)
    assemble_job(connections, shard.job)
    connections.records._redis.hdel(f"{PREFIX}job:{shard.job}", "ended", "finished")
    connections.records.set_state(shard.job, JobState.ASSEMBLING)
    assemble_job(connections, shard.job)
    handle = JobHandle(connections, shard.job)
    assert (handle.status().state, len(handle.result()["features"])) == (JobState.COMPLETED, 1)
    handle.discard()


def test_shards_that_find_no_capacity_are_published_by_those_that_free_it(
    connections: Connections, tiles: Path
) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"t{number:02d}": {} for number in range(24)}))
    first = [submitted(connections, shard) for shard in shards]
    assert [outcome.parked for outcome in first] == [False] * 4 + [True] * 2
    published: list[str] = []
    for shard in shards[:2]:
        collected(connections, shard, published.extend)
    assert [json.loads(message)["shard"] for message in published] == [4, 5]
    assert [submitted(connections, shard).parked for shard in shards[4:]] == [False, False]
    for shard in shards[2:]:
        collected(connections, shard)
    fail_and_forget(connections, shards[0].job)


def test_a_failed_job_leaves_no_object_and_no_capacity(fleet: Fleet, connections: Connections, tiles: Path) -> None:
    shards = make_job(connections, write_tiles(tiles, {f"t{number:02d}": {} for number in range(24)}))
    for shard in shards:
        submitted(connections, shard)
    # What comes later is for the sweep, which is another test.
    wait_until(lambda: fleet.stats("scripted")["in_flight"] == 0)
    end_job(connections, shards[0].job, JobState.FAILED, "the endpoint is gone", misconfigured=True, publish=ignore)
    status = JobHandle(connections, shards[0].job).status()
    assert (status.state, status.error) == (JobState.FAILED, "the endpoint is gone")
    assert submitted(connections, shards[5]) == Submission()
    assert collect_shard(connections, shards[0], idle=0, seen=0, publish=ignore).poll_in is None
    (other,) = make_job(connections, write_tiles(tiles / "other", {"a": {}}))
    assert not submitted(connections, other).parked
    collected(connections, other)
    fail_and_forget(connections, other.job)
    empty(connections)


def test_outputs_that_come_after_the_deadline_are_swept_up(
    fleet: Fleet, connections: Connections, tiles: Path, tmp_path: Path
) -> None:
    impatient, gate = with_options(connections, max_wait_time=1.0, max_retries=0), tmp_path / "gate"
    late = {name: {"after": str(gate)} for name in "abc"}
    (shard,) = make_job(impatient, write_tiles(tiles, late), "one-at-a-time")
    submitted(impatient, shard)
    collected(impatient, shard)
    assemble_job(impatient, shard.job)
    handle = JobHandle(impatient, shard.job)
    assert {failure["reason"] for failure in handle.report()["failures"]} == {"timeout"}
    handle.discard()
    gate.touch()
    wait_until(lambda: any(shard.name in key for key in fleet.objects()))
    impatient.resources.ledger.schedule(ResourceType.JOB, {shard.job: 0})
    sweep(impatient)
    wait_until(lambda: fleet.stats("one-at-a-time")["in_flight"] == 0)
    impatient.resources.ledger.schedule(ResourceType.JOB, {shard.job: 0})
    sweep(impatient)
    assert fleet.objects() == []


def test_delayed_cleanup_waits_for_the_sweep_and_disabled_for_nobody(
    fleet: Fleet, connections: Connections, tiles: Path
) -> None:
    write_tiles(tiles, {"a": {}})
    for policy, stays in (("delayed", False), ("disabled", True)):
        patient = with_options(connections, cleanup_policy=policy, cleanup_delay_seconds=0)
        (shard,) = make_job(patient, tiles)
        submitted(patient, shard)
        collected(patient, shard)
        assemble_job(patient, shard.job)
        assert len([key for key in fleet.objects() if shard.job in key]) >= 4
        JobHandle(patient, shard.job).discard()
        sweep(patient)
        assert (len([key for key in fleet.objects() if shard.job in key]) > 0) is stays
        delete_job(patient, patient.job(shard.job))


def test_what_is_in_a_jobs_directories_counts_as_deleted_once(connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"a": {}}))
    submitted(connections, shard)
    paths, records = connections.records.paths(shard.job), connections.records
    named = TileRecord(invoked_at=records.now(), failure=f"{paths.failure}/{shard.name}/{failure_filename(0, 1)}")
    records.set_tiles(shard, {0: named})
    end_job(connections, shard.job, JobState.CANCELLED, "by a test")
    wait_until(lambda: remove_job(connections, shard.job).cleaned == 0)


def test_metrics_are_one_line_a_shard_or_off(
    connections: Connections, tiles: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiles(tiles, {"a": {}})
    for enabled in (True, False):
        chosen = with_options(connections, metrics_enabled=enabled, metrics_namespace="Mine")
        (shard,) = make_job(chosen, tiles)
        submitted(chosen, shard)
        collected(chosen, shard)
        written = capfd.readouterr().out
        assert (written.count(shard.job) == 2, '"Namespace": "Mine"' in written) == (enabled, enabled)
        assert list(chosen.records._redis.scan_iter(f"{PREFIX}metrics:*")) == []
        fail_and_forget(chosen, shard.job)


def test_a_message_cannot_lead_a_worker_to_another_bucket(connections: Connections, tiles: Path) -> None:
    (shard,) = make_job(connections, write_tiles(tiles, {"a": {}}))
    elsewhere = AsyncEndpointConfig(input_bucket="somebody-elses", output_bucket=OUTPUTS)
    stranger = connect(elsewhere, connections.app)
    with pytest.raises(NotAllowedError, match="give client and workers the same"):
        submit_shard(stranger, shard, "", "test", ignore)
    fail_and_forget(connections, shard.job)


def test_messages_stay_small_however_many_tiles_there_are(connections: Connections, tiles: Path, fleet: Fleet) -> None:
    write_tiles(tiles / ("a-long-directory-name" * 5), {f"t{number:03d}": {} for number in range(60)})
    lonely = fleet.env["CELERY_BROKER_URL"].removesuffix("/0") + "/8"
    _, env = fleet.command(CELERY_BROKER_URL=lonely, ASYNC_SM_MAX_CONCURRENT_JOBS="200")
    publish = f"import osml_tasks; print(osml_tasks.detect({str(tiles)!r}, endpoint='scripted', stage=False).job_id)"
    subprocess.run([sys.executable, "-c", publish], env=env, check=True, timeout=PATIENCE)
    with redis.Redis.from_url(lonely) as broker:
        messages = [message for queue in QUEUES for message in broker.lrange(PREFIX + queue, 0, -1)]
        broker.flushdb()
    empty(connections)
    assert len(messages) == 2
    assert max(map(len, messages)) < 2000 + 50 * 100
    assert not any(b"a-long-directory-name" in message for message in map(decoded, messages))


def decoded(message: bytes) -> bytes:
    return base64.b64decode(json.loads(message)["body"])


def test_a_source_that_has_become_a_pipe_is_not_waited_for(connections: Connections, tiles: Path) -> None:
    sources = find_tiles([str(write_tiles(tiles, {"a": {}, "b": {}}))])
    pipe = tiles / "b"
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="is not a file any more"):
        create_job(connections, sources, "scripted", stage=True)
