"""Any message: either its task's own, or refused in one line, with nothing left of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import boto3
import fakeredis
import pytest
from celery.exceptions import Ignore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from osml_tasks.admission import MOST_BYTES, check_message
from osml_tasks.capacity import Capacity
from osml_tasks.claims import Claims
from osml_tasks.cleanup import ResourceManager
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections
from osml_tasks.errors import JobNotFoundError, MessageRefusedError, NotAllowedError
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.jobs import Job, JobOptions, Round, Shard, new_job_id, plan
from osml_tasks.ledger import RedisLedger
from osml_tasks.losses import Losses
from osml_tasks.messages import TASKS, check_arguments, check_planned, check_rounds, check_signature, parked_message
from osml_tasks.pace import Paces
from osml_tasks.read_ahead import ReadAhead
from osml_tasks.records import JobRecords
from osml_tasks.s3 import S3Uri
from osml_tasks.submission import submit_shard
from osml_tasks.tasks import app
from osml_tasks.tile import Tile

SHARD = Shard("job-1", 0, 0, 4, 0, 90).to_message()
RIGHT: dict[str, dict[str, Any]] = {
    "osml_tasks.detect": {"sources": ["s3://tiles/a/"], "endpoint": "ships", "max_retries": 1},
    "osml_tasks.submit": SHARD,
    "osml_tasks.poll": SHARD | {"idle": 3, "seen": 4},
    "osml_tasks.assemble": {"job": "job-1", "rounds": 2},
    "osml_tasks.cleanup": {"job": "job-1"},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=12,
)
spoilt = st.sampled_from([None, "", "../x", "a" * 41, -1, 1 << 60, 1.0, True, [], {}, "\n", "job-1\n", "s3://x"])


def refusal(task: str, positional: Any, keywords: Any) -> str | None:
    """Why a message is refused, in one line; None if it is not."""
    try:
        check_arguments(task, positional, keywords)
    except MessageRefusedError as error:
        assert str(error).isprintable() or "\n" not in str(error)
        assert len(str(error)) <= 301
        return str(error)
    return None


def is_well_formed(task: str, positional: list[Any], keywords: dict[str, Any]) -> bool:
    """Whether a task could do nothing with these arguments but what it is for."""
    if task == "osml_tasks.detect":
        sources = positional[0] if positional else keywords["sources"]
        named = [sources] if isinstance(sources, str) else sources
        texts = all(isinstance(source, str) and source for source in named)
        return texts and bool(named) and keywords["endpoint"].replace("-", "").isalnum()
    numbers = {name: value for name, value in keywords.items() if name != "job"}
    job = keywords.get("job", "job-1")
    named = isinstance(job, str) and 0 < len(job) <= 40 and job.replace("-", "").replace("_", "").isalnum()
    return not positional and (named or job is None) and all(type(value) is int for value in numbers.values())


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_the_program_writes_itself_is_let_in(task: str) -> None:
    assert refusal(task, [], RIGHT[task]) is None


@pytest.mark.parametrize("task", sorted(TASKS))
@given(data=st.data())
def test_any_argument_is_well_formed_or_refused_in_one_line(task: str, data: st.DataObject) -> None:
    keywords = dict(RIGHT[task])
    name = data.draw(st.sampled_from([*keywords, "surplus", "endpoint_url"]))
    if data.draw(st.booleans()):
        keywords[name] = data.draw(json_values | spoilt)
    else:
        keywords.pop(name, None)
    positional = data.draw(st.lists(json_values, max_size=2))
    if refusal(task, positional, keywords) is None:
        assert is_well_formed(task, positional, keywords)


@given(task=st.sampled_from(sorted(TASKS)) | st.text(), positional=json_values, keywords=json_values)
def test_arguments_of_any_shape_are_refused_in_one_line(task: str, positional: Any, keywords: Any) -> None:
    if refusal(task, positional, keywords) is None:
        assert is_well_formed(task, positional, keywords)


@pytest.mark.parametrize("name", ["-a", "a-", "a_b", "a.b", "a/b", "a" * 64, "", "ä", "a\n", "evil.example/x", 1, None])
def test_an_endpoint_is_called_as_sagemaker_calls_them(name: object) -> None:
    assert "no endpoint's name" in str(refusal("osml_tasks.detect", ["x"], {"endpoint": name}))
    assert refusal("osml_tasks.detect", ["x"], {"endpoint": "a--1" + "b" * 59}) is None


@given(text=st.text() | json_values.map(json.dumps) | st.just("[" * 100_000))
def test_what_redis_has_kept_for_a_message_is_one_or_refused(text: str) -> None:
    with pytest.raises(MessageRefusedError):
        parked_message(text)


@given(message=json_values, name=st.sampled_from(["task", "args", "kwargs", "options", "subtask_type", "immutable"]))
def test_what_follows_a_message_is_one_of_ours_or_refused(message: Any, name: str) -> None:
    ours = {"task": "osml_tasks.submit", "args": [], "kwargs": SHARD, "options": {}, "immutable": True}
    check_signature(ours)
    for forged in (message, ours | {name: message}):
        try:
            check_signature(forged)
        except MessageRefusedError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert forged["kwargs"] == SHARD


def received(**parts: Any) -> Any:
    """A message as Celery's consumer is handed it."""
    body = json.dumps([[], SHARD, None])
    headers = {"task": "osml_tasks.submit", "id": "1"}
    whole = {"headers": headers, "content_type": "application/json", "body": body} | parts
    info = {"exchange": "", "routing_key": "osml.submit"}
    payload = whole.pop("payload", None) or json.loads(whole["body"])
    return SimpleNamespace(**{"delivery_info": info, "payload": payload} | whole)


@given(data=st.data())
def test_a_message_of_any_shape_is_let_in_or_refused(data: st.DataObject) -> None:
    check_message(received())
    headers = data.draw(json_values | st.dictionaries(st.sampled_from(["task", "id", "eta", "retries"]), json_values))
    payload = data.draw(json_values | st.tuples(json_values, json_values, json_values).map(list))
    for forged in ({"headers": headers}, {"payload": payload}, {"content_type": data.draw(json_values)}):
        try:
            check_message(received(**forged))
        except MessageRefusedError as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("name", ["kwargs", "callbacks", "chord", "is_eager", "_children", "delivery_info"])
def test_headers_may_not_take_the_place_of_what_was_looked_at(name: str) -> None:
    with pytest.raises(MessageRefusedError, match=f"header {name}"):
        check_message(received(headers={"task": "osml_tasks.submit", "id": "1", name: {}}))
    check_message(received(headers={"task": "osml_tasks.submit", "id": "1", "traceparent": "00-1-1-01"}))


def test_a_chain_is_a_list_for_its_task_waits_with_the_last_of_it() -> None:
    poll = {"task": "osml_tasks.poll", "args": [], "kwargs": SHARD, "options": {}, "immutable": True}
    check_message(received(payload=[[], SHARD, {"chain": [poll]}]))
    with pytest.raises(MessageRefusedError, match="its chain is no list"):
        check_message(received(payload=[[], SHARD, {"chain": poll}]))


def test_a_large_body_is_not_even_read() -> None:
    with pytest.raises(MessageRefusedError, match="more than 1,000,000 bytes"):
        check_message(received(body="x" * (MOST_BYTES + 1), payload=[[], {}, None]))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_task_begins_only_with_its_own_arguments(task: str) -> None:
    registered = app.tasks[task]
    registered.before_start("1", [], RIGHT[task])
    with pytest.raises(MessageRefusedError if task == "osml_tasks.detect" else Ignore):
        registered.before_start("1", [], {"job": "../x"})


def test_celerys_own_tasks_never_begin() -> None:
    app.finalize()
    for name in sorted(app.tasks.keys() - TASKS):
        with pytest.raises(Ignore):
            app.tasks[name].before_start("1", [], {})


OPTIONS = JobOptions(60.0, 1.0, 1.0, 1.5, 3, 1000, 0, "immediate")
rounds = st.lists(st.builds(Round, st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=4)


@given(rounds=rounds, data=st.data())
def test_a_job_has_the_shards_of_its_plan_and_no_other(rounds: list[Round], data: st.DataObject) -> None:
    job = Job("job-1", "ships", tuple(rounds), 0.0, "tiles", "in/", "outputs", OPTIONS)
    shards = list(plan(job, [b"[]\n"] * job.lines))
    for shard in shards:
        check_planned(job, shard)
    shard = data.draw(st.sampled_from(shards))
    name = data.draw(st.sampled_from(["shard", "first", "tiles"]))
    forged = replace(shard, **{name: data.draw(st.integers(0, 200))})
    if not any((forged.shard, forged.first, forged.tiles) == (one.shard, one.first, one.tiles) for one in shards):
        with pytest.raises(MessageRefusedError):
            check_planned(job, forged)
    check_rounds(job, len(rounds))
    with pytest.raises(MessageRefusedError):
        check_rounds(job, len(rounds) + 1)


@pytest.mark.parametrize("job_id", ["", "a/b", "..", None, 3])
def test_a_record_that_is_called_like_no_job_is_none(job_id: object) -> None:
    job = Job("job-1", "ships", (Round(1, 1),), 0.0, "tiles", "in/", "outputs", OPTIONS)
    assert Job.from_json(job.to_json()) == job
    with pytest.raises(NotAllowedError):
        Job.from_json(json.dumps(json.loads(job.to_json()) | {"job_id": job_id}).encode())


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_record_that_is_none_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(NotAllowedError):
        Job.from_json(text)


CONFIG = AsyncEndpointConfig(input_bucket="tiles", output_bucket="outputs", input_prefix="in/")


@given(st.text(alphabet="inout./-evl", max_size=12))
def test_a_deletion_stays_within_buckets_and_prefixes(key: str) -> None:
    resources = ResourceManager(CONFIG, Mock(), RedisLedger(fakeredis.FakeRedis()))
    odd = not {"", ".", ".."}.isdisjoint(key.removesuffix("/").split("/")) and bool(key)
    assert resources.may_delete(S3Uri("tiles", key)) == (key.startswith("in/") and not odd)
    assert resources.may_delete(S3Uri("outputs", key)) == (key.endswith(".out") and not odd)
    assert not resources.may_delete(S3Uri("others", key))


class _Manifest:
    """S3 that has nothing but a manifest."""

    def __init__(self, lines: list[bytes]) -> None:
        self.text = b"".join(lines)

    def get(self, uri: S3Uri) -> bytes:
        return self.text

    def get_range(self, uri: S3Uri, start: int, end: int, *, least: int = 0) -> bytes:
        return self.text[start:end]

    def put(self, uri: S3Uri, data: bytes) -> None:
        """Nobody asks for it."""

    def list(self, prefix: S3Uri) -> list[Any]:
        return []

    def head(self, uri: S3Uri) -> None:
        return None


class ForgedMessages(RuleBasedStateMachine):
    """A job at work, and messages that are not quite its own: what Redis has of it stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = fakeredis.FakeRedis()
        self.job = Job(new_job_id(1e9), "ships", (Round(12, 4),), 0.0, "tiles", "in/", "outputs", OPTIONS)
        lines = [Tile(index, f"s3://tiles/in/{index}", str(index)).to_json() for index in range(12)]
        self.shards = list(plan(self.job, lines))
        self.invoked: list[str] = []
        s3: Any = _Manifest(lines)
        self.here = Connections(
            app=Mock(),
            config=CONFIG.model_copy(update={"metrics_enabled": False}),
            s3=s3,
            read_ahead=ReadAhead(s3),
            runtime=SimpleNamespace(invoke_endpoint_async=self._invoke),
            records=JobRecords(self.redis),
            claims=Claims(self.redis),
            losses=Losses(self.redis),
            capacity=Capacity(self.redis),
            paces=Paces(self.redis),
            resources=ResourceManager(CONFIG, s3, RedisLedger(self.redis)),
            image_tiles=ImageTiles(CONFIG, s3, boto3.Session()),
            pool=ThreadPoolExecutor(2),
        )
        self.here.records.create(self.job)

    def _invoke(self, **request: Any) -> dict[str, str]:
        self.invoked.append(request["InferenceId"])
        return {"OutputLocation": f"s3://outputs/o/{request['S3OutputPathExtension']}/{request['Filename']}"}

    def teardown(self) -> None:
        self.here.close()

    @property
    def kept(self) -> dict[bytes, Any]:
        """All that Redis has, less the ends of leases."""
        read = {b"hash": self.redis.hgetall, b"string": self.redis.get, b"set": self.redis.smembers}
        keys = [key for key in self.redis.scan_iter() if not key.endswith(b":leases")]
        listed = {key: read.get(self.redis.type(key)) for key in keys}
        return {key: one(key) if one else self.redis.type(key) for key, one in listed.items()}

    @rule(number=st.integers(0, 2))
    def submit(self, number: int) -> None:
        assert submit_shard(self.here, self.shards[number], "{}", "honest", list) is not None
        assert len(self.invoked) == len(set(self.invoked))

    @rule(
        number=st.integers(0, 2),
        field=st.sampled_from(["shard", "first", "tiles", "start", "end"]),
        by=st.integers(1, 99),
    )
    def forged_submit(self, number: int, field: str, by: int) -> None:
        shard = self.shards[number]
        forged = replace(shard, **{field: getattr(shard, field) + by})
        before, invoked = self.kept, len(self.invoked)
        in_flight = {index: record for index, record in self.here.records.tiles(shard).items() if record.in_flight}
        try:
            submit_shard(self.here, forged, "{}", "forged", list)
        except MessageRefusedError:
            assert self.kept == before
        else:
            # Its bytes are looked at when they are read: nothing is due of this shard, or they are its own.
            same = (
                self.here.s3.get_range(S3Uri("tiles", ""), forged.start, forged.end).split()
                == self.here.s3.get_range(S3Uri("tiles", ""), shard.start, shard.end).split()
            )
            assert field in ("start", "end")
            assert len(in_flight) == shard.tiles or same
            assert len(self.invoked) == invoked or same

    @rule(number=st.integers(0, 2), field=st.sampled_from(["shard", "first", "tiles"]), by=st.integers(1, 99))
    def forged_poll(self, number: int, field: str, by: int) -> None:
        shard = self.shards[number]
        before = self.kept
        with pytest.raises(MessageRefusedError):
            collect_shard(
                self.here, replace(shard, **{field: getattr(shard, field) + by}), idle=0, seen=0, publish=list
            )
        assert self.kept == before

    @rule()
    def foreign(self) -> None:
        before = self.kept
        with pytest.raises(JobNotFoundError):
            submit_shard(self.here, replace(self.shards[0], job="job-2"), "{}", "forged", list)
        assert self.kept == before


ForgedMessages.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestForgedMessages = ForgedMessages.TestCase
