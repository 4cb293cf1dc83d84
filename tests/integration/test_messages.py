"""Messages that this program would never write, sent to real workers: each is a line in the log, and nothing more."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Producer

from osml_tasks.celery_settings import QUEUES
from osml_tasks.jobs import JobState, Shard, new_job_id
from osml_tasks.redis_keys import PREFIX
from tests.integration.crew import ALL, Crew, Worker, crew, numbered
from tests.integration.endpoints import ELSEWHERE, OUTPUTS
from tests.integration.fleet import INPUTS, PATIENCE, Fleet, names, strange_app, wait_until, write_tiles

SECRET = "sesame-4711"
REFUSED = re.compile(r"^.* WARNING message refused: (.*)$", re.MULTILINE)
SHARD = Shard("job-1", 0, 0, 1, 0, 9).to_message()
# What Celery keeps for itself, and what a caller of the detect task waits for.
CELERYS = re.compile(re.escape(PREFIX).encode() + rb"(_kombu\.|unacked|celery-task-meta-|cleanup:(due:worker|counts))")


@dataclass(frozen=True)
class Gate:
    """A worker, and what can be seen of it from outside."""

    crew: Crew
    worker: Worker

    @property
    def log(self) -> str:
        return self.worker.process.log_text()

    @property
    def refusals(self) -> list[str]:
        return REFUSED.findall(self.log)

    def keys(self) -> set[bytes]:
        return {key for key in self.crew.broker.scan_iter() if not CELERYS.match(key)}

    def is_idle(self) -> bool:
        """Whether no message waits, and none is held."""
        return not any(self.crew.broker.exists(PREFIX + key) for key in (*QUEUES, "unacked", "unacked_index"))

    def refuses(self, send: Callable[[], Any]) -> str:
        """Send a message; says why it was refused, once there is nothing left of it."""
        keys, log, objects = self.keys(), self.log, self.crew.fleet.objects()
        send()
        wait_until(lambda: len(REFUSED.findall(self.log[len(log) :])) > 0)
        wait_until(self.is_idle)
        said = self.log[len(log) :]
        (reason,) = REFUSED.findall(said)
        assert len([line for line in said.splitlines() if "DEBUG" not in line]) == 1, said
        assert len(reason) < 1000
        assert SECRET not in said
        assert not self.worker.has_ended
        assert self.keys() <= keys
        assert self.crew.fleet.objects() == objects
        return reason


@pytest.fixture(scope="module")
def _gate(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with crew(_fleet, tmp_path_factory.mktemp("gate")) as made:
        yield Gate(made, made.start("gate", ALL, 2, ASYNC_SM_TILE_BUCKETS=f"s3://{ELSEWHERE}/tiles"))


@pytest.fixture
def gate(_gate: Gate, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Gate:
    for name, value in _gate.crew.fleet.env.items():
        monkeypatch.setenv(name, value)
    return _gate


def headers(task: str = "osml_tasks.poll", **more: Any) -> dict[str, Any]:
    identity = str(uuid4())
    return {"lang": "py", "task": task, "id": identity, "root_id": identity, "retries": 0} | more


def item(body: Any = None, **parts: Any) -> dict[str, Any]:
    """A message as kombu puts it into a list of Redis."""
    text = body if isinstance(body, bytes) else json.dumps([[], SHARD, None] if body is None else body).encode()
    info = {"exchange": "", "routing_key": "osml.poll"}
    properties = {"delivery_tag": str(uuid4()), "delivery_info": info, "body_encoding": "base64", "priority": 0}
    return {
        "body": base64.b64encode(text).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers(),
        "properties": properties,
    } | parts


def nested(depth: int) -> Any:
    value: Any = SECRET
    for _ in range(depth):
        value = [value]
    return value


def signature(task: str, **more: Any) -> dict[str, Any]:
    return {"task": task, "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": True} | more


ASSEMBLE = signature("osml_tasks.assemble", kwargs={"job": "job-1"})
NO_MESSAGES = {
    "no JSON at all": SECRET.encode(),
    "bytes": b"\x80\x04\xff\xfe",
    "a number": b"7",
    "a list": json.dumps([1, SECRET]).encode(),
    "deep JSON": b"[" * 100_000,
    "no properties": json.dumps({"body": SECRET, "headers": {}}).encode(),
    "no delivery tag": json.dumps(item(properties={"delivery_info": {}})).encode(),
    "headers as a list": json.dumps(item(headers=[SECRET])).encode(),
    "a body that is no base64": json.dumps(item(body="x") | {"body": "\u20ac"}).encode(),
    "compressed": json.dumps(item(gzip.compress(b"0" * 10_000_000), headers=headers(compression="gzip"))).encode(),
    "a strange kind of JSON": b'{"__type__": "decimal", "__value__": "x"}',
    "another protocol": json.dumps(
        item({"task": "osml_tasks.cleanup", "id": "1", "args": [], "kwargs": {}}, headers={})
    ).encode(),
    "no arguments": json.dumps(item({"kwargs": SECRET})).encode(),
    "null": json.dumps(item(b"null")).encode(),
    "a short list": json.dumps(item([[], {}])).encode(),
    "arguments as a text": json.dumps(item([SECRET, {}, None])).encode(),
    "keywords as a list": json.dumps(item([[], [SECRET], None])).encode(),
    "text that is no JSON": json.dumps(item(SECRET.encode())).encode(),
    "5 MB": json.dumps(item([[], SHARD | {"job": SECRET * 500_000}, None])).encode(),
    "deep arguments": json.dumps(item([[nested(700)], SHARD, None])).encode(),
    "very deep arguments": json.dumps(item(b"[[" + b"[" * 50_000)).encode(),
    "a task that there is not": json.dumps(item(headers=headers("somebody.elses", note=SECRET))).encode(),
    "a task that is a list": json.dumps(item(headers=headers() | {"task": [SECRET]})).encode(),
    "no id": json.dumps(item(headers={"task": "osml_tasks.poll"})).encode(),
    "another content type": json.dumps(item() | {"content-type": "application/x-python-serialize"}).encode(),
    "an unknown content type": json.dumps(item() | {"content-type": "x"}).encode(),
    "a time that is none": json.dumps(item(headers=headers(eta="tomorrow"))).encode(),
    "a time far ahead": json.dumps(item(headers=headers(eta="2999-01-01T00:00:00+00:00"))).encode(),
    "an expiry that is none": json.dumps(item(headers=headers(expires=[1]))).encode(),
    "time limits that are none": json.dumps(item(headers=headers(timelimit=["x"]))).encode(),
    "retries that are none": json.dumps(item(headers=headers(retries="1"))).encode(),
    "stamps": json.dumps(item(headers=headers(stamped_headers=["queue"], stamps={"queue": "x"}))).encode(),
    "callbacks in its headers": json.dumps(item(headers=headers(callbacks=[ASSEMBLE]))).encode(),
    "from a queue of others": json.dumps(
        item(properties=item()["properties"] | {"delivery_info": {"exchange": "", "routing_key": "roots"}})
    ).encode(),
}


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_what_is_no_message_of_this_program_is_one_line(gate: Gate, name: str) -> None:
    gate.refuses(lambda: gate.crew.broker.lpush(f"{PREFIX}osml.poll", NO_MESSAGES[name]))


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack", "raw"])
def test_other_content_than_json_is_refused_unread(gate: Gate, serializer: str) -> None:
    def send() -> None:
        with gate.crew.app.connection_for_write() as connection:
            body: Any = [[], SHARD, None] if serializer != "raw" else b"\x00\x01"
            options: dict[str, Any] = {"serializer": serializer}
            if serializer in ("raw", "msgpack"):
                options = {"content_type": f"application/{serializer}", "content_encoding": "binary"}
                body = b"\x93\x90\x80\xc0"
            Producer(connection).publish(body, exchange="", routing_key="osml.poll", headers=headers(), **options)

    assert "its content is application/" in gate.refuses(send)


@pytest.mark.parametrize(
    ("following", "reason"),
    [
        ({"callbacks": [signature("celery.backend_cleanup")]}, "no task of this program"),
        ({"errbacks": [signature("celery.chord", kwargs={"header": [], "body": {}})]}, "no task of this program"),
        ({"chain": [signature("celery.starmap")]}, "no task of this program"),
        ({"chord": signature("celery.group", subtask_type="group")}, "several messages"),
        ({"chain": [ASSEMBLE | {"immutable": False}]}, "the result of what it follows"),
        ({"chain": [ASSEMBLE | {"options": {"queue": "somebody-elses"}}]}, "to be sent to"),
        ({"chain": [ASSEMBLE | {"options": {"connection": "redis://evil.example:6379/0"}}]}, "no option"),
        ({"chain": [ASSEMBLE | {"options": {"serializer": "pickle"}}]}, "no option"),
        ({"chain": [ASSEMBLE | {"options": {"headers": {"x": SECRET}}}]}, "headers of its own"),
        ({"chain": [ASSEMBLE | {"options": {"link": signature("celery.map")}}]}, "no task of this program"),
        ({"chain": [ASSEMBLE] * 9}, "no list of a few"),
        ({"chord": SECRET}, "is no message"),
        ({"else": [ASSEMBLE]}, "none of Celery's"),
        ({"chord": ASSEMBLE | {"kwargs": {"job": "../../etc"}}}, "is not a job id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_message_would_have_follow_it_is_looked_at_too(gate: Gate, following: Any, reason: str) -> None:
    text = json.dumps(item([[], SHARD, following]))
    assert reason in gate.refuses(lambda: gate.crew.broker.lpush(f"{PREFIX}osml.poll", text))


@pytest.mark.parametrize("task", ["celery.chord", "celery.map", "celery.starmap", "celery.chunks", "celery.group"])
def test_celerys_own_tasks_are_nobodys_to_call(gate: Gate, task: str) -> None:
    arguments = {"task": signature("osml_tasks.cleanup"), "it": [{"job": SECRET}]}
    said = gate.refuses(lambda: gate.crew.app.send_task(task, kwargs=arguments, queue="osml.poll"))
    assert said.startswith(f"{task}: it is for no task of this program")


ARGUMENTS: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("submit", [], {}, "each of them, and no other"),
    ("submit", [], SHARD | {"host": "evil.example"}, "each of them, and no other"),
    ("submit", ["job-1", 0], {}, "too many positional arguments"),
    ("submit", [], SHARD | {"job": "../../other"}, "is not a job id"),
    ("submit", [], SHARD | {"tiles": 0}, "empty, too large, or back to front"),
    ("submit", [], SHARD | {"end": 1e9}, "no count"),
    ("poll", [], SHARD | {"idle": -1}, "idle is no count"),
    ("poll", [], SHARD | {"seen": 2}, "seen is no count"),
    ("poll", [], SHARD | {"seen": True}, "seen is no count"),
    ("assemble", [], {"job": "job-1", "rounds": 0}, "rounds is no count"),
    ("assemble", [], {"job": "job-1", "assume_role_arn": "arn:aws:iam::1:role/x"}, "unexpected keyword argument"),
    ("assemble", ["job-1"], {}, "too many positional arguments"),
    ("cleanup", [], {"job": f"{SECRET}/../"[12:]}, "is not a job id"),
    ("cleanup", [], {"job": ["job-1"]}, "is not a job id"),
    ("cleanup", [], {"job": "job-of-nobody"}, "no record of job"),
    ("cleanup", [], {"uris": ["s3://fleet-out/x"]}, "unexpected keyword argument"),
]


@pytest.mark.parametrize(("task", "positional", "keywords", "reason"), ARGUMENTS, ids=str)
def test_arguments_that_a_task_does_not_take_are_one_line(
    gate: Gate, task: str, positional: list[Any], keywords: dict[str, Any], reason: str
) -> None:
    name = f"osml_tasks.{task}"
    said = gate.refuses(lambda: gate.crew.app.send_task(name, args=positional, kwargs=keywords))
    assert said.startswith(f"{name}: ")
    assert reason in said


CALLS: list[tuple[Any, dict[str, Any], str]] = [
    ("/etc/passwd", {}, "ASYNC_SM_TILE_ROOTS"),
    (f"s3://{OUTPUTS}/output/", {}, "ASYNC_SM_TILE_BUCKETS"),
    (f"s3://{ELSEWHERE}/tiles-of-others/", {}, "ASYNC_SM_TILE_BUCKETS"),
    (f"s3://{ELSEWHERE}/tiles/../others/", {}, "ASYNC_SM_TILE_BUCKETS"),
    (f"s3://{INPUTS}/somebody-elses/", {}, "ASYNC_SM_TILE_BUCKETS"),
    (f"s3://{INPUTS}/async-inference/input-of-others/", {}, "ASYNC_SM_TILE_BUCKETS"),
    ("s3://", {}, "not an S3 URI"),
    ([], {}, "sources are a text, or a list"),
    ([["/etc"]], {}, "a source is no text"),
    (["x"] * 10_001, {}, "sources are a text, or a list"),
    ("x" * 5000, {}, "a source is no text"),
    ("a\0b", {}, "NUL"),
    ("s3://fleet-in/x", {"endpoint": "http://evil.example/"}, "no endpoint's name"),
    ("s3://fleet-in/x", {"endpoint": "../../x"}, "no endpoint's name"),
    ("s3://fleet-in/x", {"endpoint": None}, "no endpoint's name"),
    ("s3://fleet-in/x", {"endpoint_url": "http://evil.example"}, "not an option of a job"),
    ("s3://fleet-in/x", {"assume_role_arn": "arn:aws:iam::123456789012:role/x"}, "not an option of a job"),
    ("s3://fleet-in/x", {"max_retries": [1]}, "no number and no short text"),
    ("s3://fleet-in/x", {"cleanup_policy": SECRET * 100}, "no number and no short text"),
]


@pytest.mark.parametrize(("sources", "options", "reason"), CALLS, ids=lambda value: str(value)[:40])
def test_a_call_for_what_the_workers_may_not_is_their_answer_and_one_line(
    gate: Gate, sources: Any, options: dict[str, Any], reason: str
) -> None:
    url = gate.crew.fleet.env["CELERY_BROKER_URL"]
    with strange_app(url) as stranger:
        keywords = {"endpoint": "scripted"} | options
        sent: list[Any] = []

        def send() -> None:
            sent.append(stranger.send_task("osml_tasks.detect", [sources], keywords, queue="osml.submit"))

        assert reason in gate.refuses(send)
        with pytest.raises(Exception, match=re.escape(reason)):
            sent[0].get(timeout=PATIENCE)
        sent[0].forget()


def test_tiles_of_a_client_lie_where_its_workers_allow(gate: Gate, tmp_path: Path) -> None:
    places = {"tiles/a": "a", "others/b": "b"}
    for key in places:
        gate.crew.fleet.s3.put_object(Bucket=ELSEWHERE, Key=key, Body=json.dumps({"name": key}))
    outcome = gate.crew.fleet.detect(*(f"s3://{ELSEWHERE}/{key}" for key in places), "-e", "scripted", folder=tmp_path)
    assert names(outcome.features) == ["tiles/a"]
    (failure,) = outcome.report["failures"]
    assert (failure["reason"], "ASYNC_SM_TILE_BUCKETS" in failure["error"]) == ("input", True)
    for key in places:
        gate.crew.fleet.s3.delete_object(Bucket=ELSEWHERE, Key=key)


def of_another_plan(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Messages about a shard of a job that are not quite its own."""
    return {
        "a number that the job does not have": shard | {"shard": 99},
        "tiles of another shard": shard | {"first": shard["first"] + 1},
        "fewer tiles": shard | {"tiles": shard["tiles"] - 1},
        "bytes of another shard": shard | {"start": shard["start"] + 200, "end": shard["end"] + 200},
        "a piece of a line": shard | {"start": shard["start"] + 3},
        "more lines": shard | {"end": shard["end"] + 10_000},
        "bytes beyond the manifest": shard | {"start": 1 << 39, "end": 1 << 40},
    }


def test_a_message_that_is_not_quite_a_jobs_own_leaves_the_job_alone(gate: Gate, tiles: Path) -> None:
    release = tiles / "release"
    write_tiles(tiles, numbered(12) | {"t0000": {"after": str(release)}})
    app = gate.crew.app
    with gate.crew.job(tiles, "scripted", max_concurrent_jobs=100) as handle:
        job = handle.status().job
        assert job.shards == 1
        manifest = f"{job.prefix}tiles.jsonl"
        size = gate.crew.fleet.s3.head_object(Bucket=INPUTS, Key=manifest)["ContentLength"]
        right = Shard(job.job_id, 0, 0, 12, 0, size).to_message()
        before = len(gate.refusals)
        sent = 0
        for wrong in of_another_plan(right).values():
            app.send_task("osml_tasks.submit", kwargs=wrong)
            app.send_task("osml_tasks.poll", kwargs=wrong)
            sent += 2
        app.send_task("osml_tasks.assemble", kwargs={"job": job.job_id, "rounds": 5})
        wait_until(lambda: len(gate.refusals) - before >= 7)
        release.touch()
        assert handle.wait(timeout=PATIENCE).state is JobState.COMPLETED
        assert len(handle.result()["features"]) == 12
        wait_until(gate.is_idle)
        # A poll reads no bytes before all is there, and a submit none when nothing is due.
        planned = len(gate.refusals) - before
        assert 7 <= planned <= sent + 1
        assert "Traceback" not in gate.log
        assert not gate.crew.broker.exists(f"{PREFIX}claim:{job.job_id}/00000/submit")


@pytest.mark.parametrize("name", ["bytes of another shard", "a piece of a line", "bytes beyond the manifest"])
def test_bytes_that_are_not_a_shards_invoke_nothing_and_hold_nothing(gate: Gate, tiles: Path, name: str) -> None:
    write_tiles(tiles, numbered(12))
    fleet = gate.crew.fleet
    with gate.crew.job(tiles, "scripted") as handle:
        wait_until(lambda: handle.status().state is JobState.COMPLETED)
        # As if the fleet had just been given it: nothing is known of its tiles.
        job, broker = handle.status().job, gate.crew.broker
        broker.hdel(f"{PREFIX}job:{job.job_id}", "ended", "finished", "assembled")
        broker.hset(f"{PREFIX}job:{job.job_id}", "state", "running")
        broker.delete(f"{PREFIX}progress:{job.job_id}")
        lines = "".join(json.dumps([n, str(tiles / f"t{n:04d}"), f"t{n:04d}"]) + "\n" for n in range(12))
        fleet.s3.put_object(Bucket=INPUTS, Key=job.manifest_key, Body=lines)
        right = Shard(job.job_id, 0, 0, 12, 0, len(lines)).to_message()
        before = len(fleet.invocations("scripted"))
        wrong = of_another_plan(right)[name]
        assert "other bytes" in gate.refuses(lambda: gate.crew.app.send_task("osml_tasks.submit", kwargs=wrong))
        assert len(fleet.invocations("scripted")) == before
        assert not broker.hlen(f"{PREFIX}capacity:scripted:held")
        assert handle.status().state is JobState.RUNNING


def test_whatever_the_ledger_names_only_what_may_be_ours_is_deleted(gate: Gate) -> None:
    dead = new_job_id(time.time())
    foreign = [
        f"{ELSEWHERE}/{dead}/a.out",
        f"{INPUTS}/async-inference/input-evil/a",
        f"{INPUTS}/somebody-elses/{dead}/a",
        f"{OUTPUTS}/output/report.pdf",
    ]
    ours = [f"{INPUTS}/async-inference/input/{dead}/payloads/a", f"{OUTPUTS}/output/{dead}/00000/a", f"{OUTPUTS}/b.out"]
    for name in foreign + ours:
        bucket, _, key = name.partition("/")
        gate.crew.fleet.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    entries = [*foreign, *ours, f"{INPUTS}/async-inference/input/../../{SECRET}"]
    rubbish = ["no URI", "s3://", b"\xff"[:0] or "s3:/x"]
    gate.crew.broker.zadd(
        f"{PREFIX}cleanup:due:s3_object", dict.fromkeys([*(f"s3://{n}" for n in entries), *rubbish], 0)
    )
    gate.crew.app.send_task("osml_tasks.cleanup")
    wait_until(lambda: sorted(gate.crew.fleet.objects()) == sorted(foreign))
    wait_until(gate.is_idle)
    left = {name.decode() for name in gate.crew.broker.zrange(f"{PREFIX}cleanup:due:s3_object", 0, -1)}
    assert left.isdisjoint(rubbish)
    gate.crew.broker.delete(f"{PREFIX}cleanup:due:s3_object", f"{PREFIX}cleanup:failures:s3_object")
    for name in foreign:
        bucket, _, key = name.partition("/")
        gate.crew.fleet.s3.delete_object(Bucket=bucket, Key=key)


def test_wherever_a_record_has_outputs_only_what_may_be_ours_is_deleted(gate: Gate, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    s3, broker = gate.crew.fleet.s3, gate.crew.broker
    with gate.crew.job(tiles, "scripted") as handle:
        handle.wait(timeout=PATIENCE)
        wait_until(gate.is_idle)
        foreign = {ELSEWHERE: f"output/{handle.job_id}/00000/a.out", INPUTS: "somebody-elses/a", OUTPUTS: "report.pdf"}
        for bucket, key in foreign.items():
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        broker.hset(f"{PREFIX}job:{handle.job_id}", "output_path", f"s3://{ELSEWHERE}/output")
        broker.sadd(f"{PREFIX}locations:{handle.job_id}", *(f"s3://{bucket}/{key}" for bucket, key in foreign.items()))
        gate.crew.app.send_task("osml_tasks.cleanup", kwargs={"job": handle.job_id})
        wait_until(lambda: len(gate.crew.fleet.objects()) == len(foreign))
        wait_until(gate.is_idle)
        assert set(gate.crew.fleet.objects()) == {f"{bucket}/{key}" for bucket, key in foreign.items()}
        for bucket, key in foreign.items():
            s3.delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize("field", ["input_bucket", "input_prefix", "output_bucket", "assume_role_arn", "job_id"])
def test_a_record_that_leads_elsewhere_is_not_followed(gate: Gate, tiles: Path, field: str) -> None:
    write_tiles(tiles, {"a": {}})
    broker, other = gate.crew.broker, new_job_id(time.time())
    with gate.crew.job(tiles, "scripted") as handle:
        handle.wait(timeout=PATIENCE)
        wait_until(gate.is_idle)
        record = json.loads(broker.hget(f"{PREFIX}job:{handle.job_id}", "job")) | {"job_id": other}
        elsewhere = {"assume_role_arn": "arn:aws:iam::123456789012:role/x", "job_id": "", "input_prefix": "else/"}
        forged = record | {field: elsewhere.get(field, ELSEWHERE)}
        ended = {"state": "completed", "ended": "1", "finished": "1", "fetched": "1"}
        broker.hset(f"{PREFIX}job:{other}", mapping={"job": json.dumps(forged)} | ended)
        gate.refuses(lambda: gate.crew.app.send_task("osml_tasks.cleanup", kwargs={"job": other}))
        broker.delete(f"{PREFIX}job:{other}")


def test_what_is_parked_is_published_only_if_it_is_a_submit_task(gate: Gate) -> None:
    broker = gate.crew.broker
    broker.sadd(f"{PREFIX}endpoints", "nobodys")
    parked = [
        "no JSON",
        json.dumps(signature("celery.backend_cleanup")),
        json.dumps(signature("osml_tasks.cleanup")),
        json.dumps(signature("osml_tasks.submit", kwargs=SHARD, options={"queue": "somebody-elses"})),
        json.dumps(signature("osml_tasks.submit", kwargs=SHARD, options={"connection": "redis://evil.example"})),
    ]
    prefix = f"{PREFIX}capacity:nobodys"
    for number, message in enumerate(parked):
        entry = {
            "shard": f"job-1/{number}",
            "need": 1,
            "limit": 99,
            "job": f"j{number}",
            "message": message,
            "ticket": "",
        }
        line = {"first": 1, "last": 1, "1": json.dumps(entry)}
        broker.hset(f"{prefix}:waiting", mapping={f"j{number} {name}": value for name, value in line.items()})
        broker.rpush(f"{prefix}:turns", f"j{number}")
    before = len(gate.refusals)
    gate.crew.app.send_task("osml_tasks.cleanup")
    wait_until(lambda: len(gate.refusals) == before + len(parked))
    wait_until(gate.is_idle)
    assert not broker.exists("somebody-elses")
    broker.delete(f"{PREFIX}endpoints", *broker.keys(f"{prefix}*"))


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_every_kind_of_pool_is_behind_the_same_door(workers: Crew, pool: str) -> None:
    gate = Gate(workers, workers.start("gate", ALL, 2, "-P", pool))
    for name in ("no JSON at all", "null", "compressed", "a task that is a list", "deep arguments"):
        gate.refuses(partial(gate.crew.broker.lpush, f"{PREFIX}osml.poll", NO_MESSAGES[name]))
    gate.refuses(lambda: gate.crew.app.send_task("osml_tasks.poll", kwargs=SHARD | {"idle": -1}))


def test_what_is_no_order_to_a_worker_does_not_end_it(gate: Gate) -> None:
    orders = [*NO_MESSAGES.values(), json.dumps(item({"method": "shutdown", "arguments": SECRET})).encode()]
    for order in orders:
        gate.crew.broker.publish("/0.celery.pidbox", order)
    wait_until(lambda: gate.crew.ask("ping", gate.worker.node) is not None)
    assert not gate.worker.has_ended
