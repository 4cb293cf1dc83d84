"""Access to other accounts, on a server that hands out credentials and checks signatures and rights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import pytest
import redis
from celery import Celery

from osml_tasks.accounts import session_assuming, session_name, session_of, session_with
from osml_tasks.assembly import assemble_job, end_job
from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from osml_tasks.collection import collect_shard
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import create_job
from osml_tasks.detectors import AsyncSMDetector
from osml_tasks.endpoint import Invocation, invoke
from osml_tasks.errors import (
    ExtensionConfigurationError,
    NotAllowedError,
    RoleRefusedError,
    S3AccessError,
    S3OperationError,
    ThrottledError,
)
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState, Shard
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from osml_tasks.preflight import examine
from osml_tasks.runtime import runtime_client
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.sources import find_tiles
from osml_tasks.submission import submit_shard
from osml_tasks.workers import AsyncTileWorkerPool
from tests.integration.cloud import EXTERNAL_ID, REGION, Cloud, cloud
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import INPUTS, PATIENCE, REPOSITORY, clean_environment, names, wait_until, write_tiles

PROBE = S3Uri(INPUTS, "accounts/probe")
INVOCATION = Invocation("scripted", "job-1.0000000.1", "job-1/00000", "0000000-1.out", "image/png", 3600, 900)


@pytest.fixture(scope="module")
def _aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def aws(_aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The server, with an environment that leads there and holds the caller's keys."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    for name, value in (_aws.env | {name.upper(): value for name, value in _aws.caller.items()}).items():
        monkeypatch.setenv(name, value)
    return _aws


def signing_key(service: str, call: Callable[[], object]) -> str:
    """The access key that the last request to a service in a call was signed with, whoever sent it."""
    seen: list[str] = []
    put_header = HTTPConnection.putheader

    def note(self: HTTPConnection, header: Any, *values: Any) -> None:
        if str(header) == "Authorization":
            seen.extend(value if isinstance(value, str) else value.decode() for value in values)
        put_header(self, header, *values)

    with patch.object(HTTPConnection, "putheader", note):
        call()
    keys = [found[1] for one in seen if (found := re.search(rf"Credential=(\w+)/\d+/[\w-]+/{service}/", one))]
    return keys[-1]


def access_key(session: boto3.Session) -> str:
    credentials = session.get_credentials()
    assert credentials is not None
    return str(credentials.get_frozen_credentials().access_key)


def of_role(aws: Cloud, external_id: str | None = EXTERNAL_ID, **options: Any) -> AsyncEndpointConfig:
    return AsyncEndpointConfig(
        input_bucket=INPUTS,
        output_bucket=OUTPUTS,
        assume_role_arn=aws.role_arn,
        external_id=external_id,
        **options,
    )


def test_what_sts_answers_serves_s3_and_the_runtime(aws: Cloud) -> None:
    answer = boto3.client("sts").assume_role(RoleArn=aws.role_arn, RoleSessionName="test", ExternalId=EXTERNAL_ID)
    for given in (answer, answer["Credentials"]):
        session = session_with(given)
        assert session.region_name == REGION
        s3 = S3Manager(session)
        s3.put(PROBE, b"ours")
        assert [found.uri for found in s3.list(PROBE.parent)] == [PROBE]
        assert s3.get(PROBE) == b"ours"
        s3.delete([PROBE])
        client = session.client("s3")
        key = signing_key("s3", lambda client=client: client.head_bucket(Bucket=INPUTS))
        assert key == answer["Credentials"]["AccessKeyId"]


def test_the_role_is_assumed_when_it_is_needed_and_under_our_name(aws: Cloud) -> None:
    session = session_assuming(aws.role_arn, EXTERNAL_ID)
    with pytest.raises(S3AccessError, match="AccessDenied"):
        S3Manager(boto3.Session()).put(PROBE, b"the caller's own")
    s3 = S3Manager(session)
    s3.put(PROBE, b"the role's")
    assert s3.get(PROBE) == b"the role's"
    s3.delete([PROBE])
    assert session.region_name == REGION
    assert session.client("sts").get_caller_identity()["Arn"].endswith(f"assumed-role/detector/{session_name()}")


def test_credentials_are_renewed_before_they_expire(aws: Cloud) -> None:
    # 15 minutes before the end botocore begins to renew, so that these are due at each look.
    short = session_assuming(aws.role_arn, EXTERNAL_ID, duration=900)
    s3, client = S3Manager(short), short.client("s3")
    keys = {signing_key("s3", lambda: client.head_bucket(Bucket=INPUTS)) for _ in range(3)}
    assert len(keys) == 3
    for _ in range(3):
        s3.put(PROBE, b"again")
    s3.delete([PROBE])
    long = session_assuming(aws.role_arn, EXTERNAL_ID)
    assert access_key(long) == access_key(long)


def test_another_session_than_the_environments_may_assume_the_role(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in aws.caller:
        monkeypatch.delenv(name.upper())
    with pytest.raises(RoleRefusedError, match="no AWS credentials found to assume role arn:"):
        access_key(session_of(of_role(aws)))
    source = boto3.Session(**aws.caller, region_name="eu-west-1")  # type: ignore[arg-type]
    session = session_of(of_role(aws), source)
    assert access_key(session).startswith("ASIA")
    assert session.region_name == "eu-west-1"
    assert session_of(of_role(aws), session) is session


@pytest.mark.parametrize("who", ["stranger", "wrong external id", "unknown keys"])
def test_a_role_that_cannot_be_assumed_is_one_line_wherever_it_shows(
    aws: Cloud, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {
        "stranger": aws.stranger,
        "unknown keys": {"aws_access_key_id": "AKIA0000000000000000", "aws_secret_access_key": "none"},
    }.get(who, aws.caller)
    config = of_role(aws, "not-that-one-0815" if who == "wrong external id" else EXTERNAL_ID)
    session = session_of(config, aws.session(keys))
    s3, runtime, listing = S3Manager(session), runtime_client(session, 1), session.client("s3")
    complaints = [
        complaint(lambda: s3.put(PROBE, b"")),
        complaint(lambda: list(s3.list(PROBE))),
        complaint(lambda: invoke(runtime, INVOCATION, b"tile")),
        complaint(lambda: find_tiles([f"s3://{INPUTS}/a/"], session)),
        complaint(lambda: listing.head_bucket(Bucket=INPUTS)),
    ]
    assert len(set(complaints)) == 1
    line = complaints[0]
    assert line.startswith(f"role {aws.role_arn} cannot be assumed: ")
    assert ("AccessDenied" in line) is (who != "unknown keys")
    logged = caplog.text + repr(config)
    for text in (line, logged):
        assert EXTERNAL_ID not in text
        assert "not-that-one-0815" not in text
    assert "Traceback" not in logged


def test_deleting_with_a_refused_role_leaves_all_of_it_and_raises_nothing(aws: Cloud) -> None:
    s3 = S3Manager(session_of(of_role(aws), aws.session(aws.stranger)))
    (undeleted,) = s3.delete([PROBE])
    assert (undeleted.uri, "cannot be assumed" in undeleted.error) == (PROBE, True)


def complaint(call: Any) -> str:
    with pytest.raises(RoleRefusedError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_a_silent_sts_is_asked_again(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    session = session_of(of_role(aws))
    with pytest.raises(S3OperationError, match="no credentials") as caught:
        S3Manager(session).put(PROBE, b"")
    assert not isinstance(caught.value, S3AccessError)
    with pytest.raises(ThrottledError, match="out of reach"):
        invoke(runtime_client(session, 1), INVOCATION, b"tile")


def test_preflight_assumes_the_role(aws: Cloud) -> None:
    good, bad = (next(examine(of_role(aws, given), None, thorough=False)) for given in (EXTERNAL_ID, "wrong"))
    assert (good.ok, good.detail) == (True, f"role {aws.role_arn} assumed, region {REGION}")
    assert (bad.name, bad.ok) == ("credentials", False)
    assert bad.detail.startswith(f"role {aws.role_arn} cannot be assumed: AccessDenied")


def test_the_command_line_says_a_refused_role_in_one_line(aws: Cloud, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a tile")
    buckets = {"ARTIFACT_BUCKET": INPUTS, "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS}
    role = {"ASYNC_SM_ASSUME_ROLE_ARN": aws.role_arn, "ASYNC_SM_EXTERNAL_ID": "wrong"}
    for source in (f"s3://{INPUTS}/tiles/", str(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-m", "osml_tasks", "detect", source, "-e", "ships", "-o", str(tmp_path / "out.geojson")],
            env=dict(os.environ) | buckets | role,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"osml-tasks: role {aws.role_arn} cannot be assumed: AccessDenied.*\n", done.stderr)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def _endpoints_url(_aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    env = {name.upper(): value for name, value in _aws.owner.items()}
    ready = re.compile(r"^ready (http://\S+)$", re.MULTILINE)
    endpoints = ChildProcess(
        "endpoints",
        [sys.executable, "-m", "tests.integration.endpoints"],
        directory=tmp_path_factory.mktemp("endpoints"),
        env=clean_environment() | _aws.env | env | {"PYTHONPATH": str(REPOSITORY)},
    )
    endpoints.start()
    try:
        endpoints.wait_ready(lambda: ready.search(endpoints.log_text()) is not None, within=PATIENCE)
        yield ready.findall(endpoints.log_text())[0]
    finally:
        endpoints.stop()


@pytest.fixture
def state(broker: Broker) -> Iterator[Any]:
    client = redis.Redis.from_url(broker.url)
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def app(aws: Cloud, broker: Broker) -> Celery:
    return new_app(broker.url)


@pytest.fixture
def connections(
    aws: Cloud, app: Celery, state: Any, _endpoints_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Connections:
    """A worker of the role."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", _endpoints_url)
    return connect(of_role(aws, tile_roots=(tmp_path,), polling_interval=0.1), app)


def ignore(messages: Iterable[str]) -> None:
    """Publish nothing."""


def make_job(connections: Connections, tmp_path: Path, *, stage: bool) -> Shard:
    tiles = write_tiles(tmp_path / "tiles", {f"t{number}": {} for number in range(6)})
    return create_job(connections, find_tiles([str(tiles)]), "scripted", stage=stage)[1][0]


def test_a_worker_of_the_role_completes_the_job(aws: Cloud, connections: Connections, tmp_path: Path) -> None:
    shard = make_job(connections, tmp_path, stage=True)
    key = signing_key(
        "sagemaker", lambda: submit_shard(connections, shard, json.dumps(shard.to_message()), "test", ignore)
    )
    assert key.startswith("ASIA")
    assert key not in aws.caller.values()
    wait_until(lambda: collect_shard(connections, shard, idle=0, seen=0, publish=ignore).poll_in is None)
    assemble_job(connections, shard.job)
    handle = JobHandle(connections, shard.job)
    assert names(handle.result()["features"]) == [f"t{number}" for number in range(6)]
    handle.discard()
    left = aws.session(aws.owner).client("s3").list_objects_v2(Bucket=INPUTS)
    assert left["KeyCount"] == 0


def test_a_worker_of_no_role_or_another_refuses_the_job(
    aws: Cloud, connections: Connections, state: Any, tmp_path: Path
) -> None:
    shard = make_job(connections, tmp_path, stage=False)
    other = f"{aws.role_arn}-2"
    for role in (None, other):
        config = AsyncEndpointConfig(input_bucket=INPUTS, output_bucket=OUTPUTS, assume_role_arn=role)
        stranger = connect(config, connections.app)
        with pytest.raises(NotAllowedError, match="give client and workers the same ASYNC_SM_ASSUME_ROLE_ARN"):
            submit_shard(stranger, shard, "", "test", ignore)
        with pytest.raises(NotAllowedError, match=rf"done as {aws.role_arn}, this worker .* {role or 'no role'}"):
            collect_shard(stranger, shard, idle=0, seen=0, publish=ignore)
    end_job(stranger, shard.job, JobState.FAILED, "refused", misconfigured=True)
    assert JobHandle(connections, shard.job).status().finished is not None
    kept = b" ".join(value for key in state.scan_iter() for value in everything(state, key))
    assert aws.role_arn.encode() in kept
    assert EXTERNAL_ID.encode() not in kept
    JobHandle(connections, shard.job).discard()


def everything(state: Any, key: bytes) -> list[bytes]:
    """All bytes under a key."""
    return [state.dump(key) or b""] if state.type(key) != b"hash" else [*state.hgetall(key).values()]


def test_a_job_whose_role_is_refused_ends_all_the_same(aws: Cloud, connections: Connections, tmp_path: Path) -> None:
    shard = make_job(connections, tmp_path, stage=True)
    locked_out = connect(connections.config, connections.app, aws.session(aws.stranger))
    with pytest.raises(RoleRefusedError) as caught:
        submit_shard(locked_out, shard, "", "test", ignore)
    end_job(locked_out, shard.job, JobState.FAILED, str(caught.value), misconfigured=True)
    handle = JobHandle(connections, shard.job)
    status = handle.status()
    assert (status.state, status.finished is not None) == (JobState.FAILED, True)
    assert aws.role_arn in str(status.error)
    handle.discard()


@pytest.fixture
def assumed(aws: Cloud, _endpoints_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncSMDetector:
    """A detector with what STS answered; the caller's own keys may do nothing but assume the role."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", _endpoints_url)
    answer = boto3.client("sts").assume_role(RoleArn=aws.role_arn, RoleSessionName="test", ExternalId=EXTERNAL_ID)
    config = AsyncEndpointConfig(
        input_bucket=INPUTS, output_bucket=OUTPUTS, polling_interval=0.1, inline_payload_max_bytes=0
    )
    return AsyncSMDetector("scripted", config, answer["Credentials"])


def test_a_detector_uses_assumed_credentials_for_s3_and_sagemaker_alike(aws: Cloud, assumed: AsyncSMDetector) -> None:
    found: list[Any] = []
    key = signing_key("sagemaker", lambda: found.extend(assumed.find_features(b'{"name": "a"}')["features"]))
    assert names(found) == ["a"]
    assert key.startswith("ASIA")
    assert key not in aws.caller.values()
    assert aws.session(aws.owner).client("s3").list_objects_v2(Bucket=INPUTS)["KeyCount"] == 0


def test_a_pools_own_workers_have_them_too_and_no_message_does(aws: Cloud, assumed: AsyncSMDetector) -> None:
    pool = AsyncTileWorkerPool(assumed)
    assert pool.process_tiles_async([b'{"name": "a"}', b'{"name": "b"}']) == (2, 0)
    assert names(pool.features["features"]) == ["a", "b"]


def test_expired_credentials_are_refused_before_anything_is_sent() -> None:
    old = {"AccessKeyId": "ASIA", "SecretAccessKey": "x", "SessionToken": "y", "Expiration": "2020-01-01T00:00:00Z"}
    with pytest.raises(ExtensionConfigurationError, match="expired at 2020-01-01"):
        AsyncSMDetector("scripted", AsyncEndpointConfig(input_bucket=INPUTS, output_bucket=OUTPUTS), old)
    with pytest.raises(ExtensionConfigurationError, match="AccessKeyId"):
        AsyncSMDetector("scripted", AsyncEndpointConfig(input_bucket=INPUTS, output_bucket=OUTPUTS), {})
