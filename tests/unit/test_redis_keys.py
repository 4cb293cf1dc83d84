"""Every key of the package's own has the fleet's hash tag, and scripts touch only keys that they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from osml_tasks.capacity import Capacity
from osml_tasks.claims import Claims
from osml_tasks.consumers import Consumers
from osml_tasks.jobs import Job, JobOptions, JobState, Progress, Round, Shard
from osml_tasks.ledger import Outcome, RedisLedger, ResourceType
from osml_tasks.losses import Losses
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.pace import Paces
from osml_tasks.polling import TileRecord
from osml_tasks.records import JobRecords, OutputPaths
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3 import S3Uri

PACKAGE = Path(__file__).parents[2] / "osml_tasks"
OPTIONS = JobOptions(3600.0, 5.0, 60.0, 1.5, 3, 100, 128_000, "immediate")
JOB = Job("job-1", "ships", (Round(30, 10),), 1e9, "tiles", "in/", "outputs", OPTIONS)
SHARDS = [Shard("job-1", number, number * 10, 10, 0, 0) for number in range(3)]

# As Redis in cluster mode, and ElastiCache Serverless for all of it, may answer a key that was not declared.
DECLARED_ONLY = """
local server, declared = redis, {}
for _, key in ipairs(KEYS) do declared[key] = true end
local redis = {call = function(name, key, ...)
    if name == 'TIME' then return server.call(name) end
    if not declared[key] then error(name .. ' of a key that is not declared: ' .. tostring(key)) end
    return server.call(name, key, ...)
end}
"""


class StrictRedis(fakeredis.FakeRedis):
    """A server whose scripts may touch only the keys that they declare."""

    def register_script(self, script: Any) -> Any:
        return super().register_script(DECLARED_ONLY + script)


@pytest.fixture
def redis() -> Iterator[Any]:
    with StrictRedis() as strict:
        yield strict


def keep_records(redis: Any) -> None:
    """Lead a job from its beginning to its second round."""
    records = JobRecords(redis)
    records.create(JOB)
    records.restore(JOB)
    records.start(JOB.job_id, 1.0)
    records.learn_paths(JOB.job_id, OutputPaths("s3://out/a", None))
    for shard in SHARDS:
        records.set_tiles(shard, {shard.first: TileRecord()})
        records.set_progress(shard, Progress(10, 0, 0, 0, 1))
    metrics = AsyncMetricsTracker()
    metrics.count("Invocations")
    records.add_metrics(SHARDS[0], metrics)
    records.note_locations(JOB.job_id, [S3Uri("out", "a")])
    records.set_state(JOB.job_id, JobState.ASSEMBLING)
    records.mark_assembled(JOB.job_id, 1)
    assert records.end(JOB.job_id, JobState.COMPLETED)
    records.mark_fetched(JOB.job_id)
    records.close(JOB.job_id, 2.0)
    assert records.reopen(replace(JOB, rounds=(*JOB.rounds, Round(1, 1))), {0: Progress()})


def keep_claims(redis: Any) -> None:
    """Claim, note, time."""
    claims = Claims(redis)
    claims.claim("work", "me", 60)
    claims.claim("other", "me", 60)
    claims.unclaim("other", "me")
    claims.note("name", "value")
    claims.lasts("numbers", [1], 60)
    claims.trouble_lasts("work", 60)
    with suppress(ZeroDivisionError), Losses(redis).at_work("work") as attempt, attempt.at_tile(1):
        raise ZeroDivisionError


def keep_capacity(redis: Any) -> None:
    """Hold, park, grant, run out and forget."""
    capacity = Capacity(redis)
    for shard in SHARDS:
        capacity.request("ships", shard, 10, 10, shard.name)
    assert capacity.keep("ships", SHARDS[0], 0).messages == (SHARDS[1].name,)
    capacity.grant("ships")
    assert set(capacity.forget("ships", JOB.job_id).messages) == {SHARDS[1].name, SHARDS[2].name}
    for shard in SHARDS:
        capacity.request("ships", shard, 10, 10, shard.name)


def keep_ledger(redis: Any) -> None:
    """Owe deletions, and count them."""
    ledger = RedisLedger(redis)
    ledger.schedule(ResourceType.S3_OBJECT, {"a": 1.0, "b": 1.0})
    ledger.hold(ResourceType.S3_OBJECT, ["b"])
    ledger.note_failure(ResourceType.S3_OBJECT, "a", 1, "denied")
    ledger.count(ResourceType.S3_OBJECT, Outcome.FAILED)


def keep_the_rest(redis: Any) -> None:
    """Note a worker and an endpoint's pace."""
    consumers = Consumers(redis)
    consumers.note("one@a", ["osml.poll"])
    assert consumers.counts()["osml.poll"] == 1
    Paces(redis).learn("ships", 2.0)


@pytest.mark.parametrize("use", [keep_records, keep_claims, keep_capacity, keep_ledger, keep_the_rest])
def test_keys_have_the_tag_and_scripts_declare_them(redis: Any, use: Callable[[Any], None]) -> None:
    use(redis)
    keys = [key.decode() for key in redis.scan_iter()]
    assert len(keys) > 1
    assert [key for key in keys if not key.startswith(PREFIX)] == []


def test_no_key_is_written_out_elsewhere() -> None:
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".lua")]
    named = [path.name for path in sources if "osml:" in path.read_text() or "osml}" in path.read_text()]
    assert named == ["redis_keys.py"]
