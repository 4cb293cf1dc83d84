"""The local endpoint as its callers see it: boto3 against a real server process and a real S3."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from osml_tasks.local.object_store import ObjectStore
from tests.waiting import PATIENCE, wait_until

T = TypeVar("T")
INPUTS, OUTPUTS, FAILURES = "tiles-in", "tiles-out", "tiles-failed"
BOTH_PATHS = ("--s3-output-path", f"s3://{OUTPUTS}/o", "--s3-failure-path", f"s3://{FAILURES}/f/")
MODELS = """
import os, time

def echo(body):
    if body == b"fail":
        raise ValueError('no "tile" in there')
    if body.startswith(b"sleep"):
        time.sleep(float(body.split()[1]))
    return body

def held(body):
    while not os.path.exists(body):
        time.sleep(0.02)
    return features(body)

def features(body):
    return {"type": "FeatureCollection", "features": [], "bytes": len(body)}
"""


@dataclass(frozen=True)
class Server:
    """A server process, with clients for it and for the S3 it uses."""

    process: subprocess.Popen[str]
    url: str
    s3: Any
    environment: dict[str, str]

    def client(self, service: str = "sagemaker-runtime", *, attempts: int = 1) -> Any:
        retries = {"mode": "standard", "total_max_attempts": attempts}
        return aws_client(self.environment, service, endpoint_url=self.url, config=Config(retries=retries))

    def invoke(self, endpoint: str = "detector", **members: Any) -> dict[str, Any]:
        if "InputLocation" not in members:
            members.setdefault("Body", b"tile")
        return dict(self.client().invoke_endpoint_async(EndpointName=endpoint, **members))

    def refusal(self, **members: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            self.invoke(**members)
        return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]

    def read(self, location: str) -> bytes:
        """Return the object at ``location``, as soon as it is there."""
        bucket, _, key = location.removeprefix("s3://").partition("/")
        return poll(lambda: self._object(bucket, key))

    def failure(self, answer: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(self.read(answer["FailureLocation"])))

    def stats(self, endpoint: str = "detector") -> dict[str, Any]:
        return dict(self.get("/stats")[endpoint])

    def idle(self) -> dict[str, Any]:
        """Return the stats, as soon as nothing is in flight."""
        return poll(lambda: stats if not (stats := self.stats())["in_flight"] else None)

    def get(self, path: str) -> Any:
        with urlopen(self.url + path) as answer:
            return json.load(answer)

    def keys(self, bucket: str) -> list[str]:
        return [found["Key"] for found in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def _object(self, bucket: str, key: str) -> bytes | None:
        with contextlib.suppress(self.s3.exceptions.NoSuchKey):
            return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        return None


def poll(read: Callable[[], T | None]) -> T:
    """Return the first answer of ``read`` that is not None."""
    answers: list[T] = []

    def is_answered() -> bool:
        answer = read()
        answers.extend(() if answer is None else (answer,))
        return answer is not None

    wait_until(is_answered)
    return answers[0]


def aws_client(environment: dict[str, str], service: str, **options: Any) -> Any:
    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        **options,
    )


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    with ObjectStore(buckets=(INPUTS, OUTPUTS, FAILURES)) as store:
        yield store


@pytest.fixture(scope="module")
def environment(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("models")
    (directory / "tile_models.py").write_text(MODELS)
    path = os.pathsep.join([str(directory), str(Path(__file__).parents[2])])
    return {**os.environ, **object_store.env, "PYTHONPATH": path}


@contextlib.contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "osml_tasks.local.endpoint_server", *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("ready ").strip()
            s3 = aws_client(environment, "s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])
            yield Server(process, url, s3, environment)
        finally:
            process.kill()


def detector(model: str = "tile_models:echo") -> tuple[str, ...]:
    return ("--name", "detector", "--model", model)


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[Server]:
    with serving(environment, *detector(), "--name", "other", *BOTH_PATHS, "--concurrency", "2") as server:
        yield server


def test_an_inline_payload_gives_an_output(server: Server) -> None:
    answer = server.invoke(
        Body=b"pixels", InferenceId="inline-1", S3OutputPathExtension="job/shard", Filename="tile.json"
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "inline-1"
    assert answer["OutputLocation"] == f"s3://{OUTPUTS}/o/job/shard/tile.json"
    assert answer["FailureLocation"] == f"s3://{FAILURES}/f/job/shard/tile-error.out"
    assert server.read(answer["OutputLocation"]) == b"pixels"


@pytest.mark.parametrize("key", ["tile.png", "a b%20c/ti*le+(1).png", "größe.png"])
def test_an_input_object_gives_an_output(server: Server, key: str) -> None:
    server.s3.put_object(Bucket=INPUTS, Key=key, Body=b"from S3 " * 50_000)
    answer = server.invoke(InputLocation=f"s3://{INPUTS}/{key}")
    assert server.read(answer["OutputLocation"]) == b"from S3 " * 50_000


def test_names_are_made_up_where_none_are_given(server: Server) -> None:
    answers = [server.invoke() for _ in range(2)]
    for answer in answers:
        name = answer["OutputLocation"].removeprefix(f"s3://{OUTPUTS}/o/")
        assert uuid.UUID(name.removesuffix(".out"))
        assert answer["FailureLocation"] == f"s3://{FAILURES}/f/{name.removesuffix('.out')}-error.out"
        assert uuid.UUID(answer["InferenceId"])
    assert len({answer["OutputLocation"] for answer in answers}) == 2


def test_a_path_extension_never_makes_an_empty_segment(server: Server) -> None:
    answer = server.invoke(S3OutputPathExtension="/a//b!_.*'()-/", Filename="c")
    assert answer["OutputLocation"] == f"s3://{OUTPUTS}/o/a/b!_.*'()-/c"
    assert answer["FailureLocation"] == f"s3://{FAILURES}/f/a/b!_.*'()-/c-error.out"
    assert server.read(answer["OutputLocation"]) == b"tile"


def test_an_exception_of_the_model_gives_a_failure_object(server: Server) -> None:
    answer = server.invoke(Body=b"fail", InferenceId="fails", ContentType="image/png")
    failure = server.failure(answer)
    assert failure["failureReason"] == (
        'Received server error (500) from model with message "ValueError: no "tile" in there"'
    )
    assert failure["inferenceId"] == "fails"
    assert failure["requestParameters"]["endpointName"] == "detector"
    assert failure["requestParameters"]["contentType"] == "image/png"


def test_a_missing_input_gives_a_failure_object(server: Server) -> None:
    answer = server.invoke(InputLocation=f"s3://{INPUTS}/no/such/tile.png")
    assert "no/such/tile.png: there is no such object" in server.failure(answer)["failureReason"]


def test_a_slow_model_times_out(server: Server) -> None:
    answer = server.invoke(Body=b"sleep 1.5", InvocationTimeoutSeconds=1)
    assert "timed out" in server.failure(answer)["failureReason"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"InferenceId": "i" * 65}, "length less than or equal to 64"),
        ({"Filename": "a.b.out"}, "'filename' failed to satisfy constraint"),
        ({"S3OutputPathExtension": "a b"}, "'s3OutputPathExtension' failed to satisfy constraint"),
        ({"RequestTTLSeconds": 21_601}, "value less than or equal to 21600"),
        ({"InvocationTimeoutSeconds": 3_601}, "value less than or equal to 3600"),
        ({"InputLocation": "http://host/tile"}, "'inputLocation' failed to satisfy constraint"),
        ({"InputLocation": "s3://bucket/tile", "Body": b"tile"}, "mutually exclusive"),
        ({"Body": b""}, "One of Body and InputLocation is required"),
        ({"Body": bytes(128_001)}, "'body' failed to satisfy constraint"),
        ({"Body": bytes(5_000_000)}, "'body' failed to satisfy constraint"),
        ({"endpoint": "absent"}, "Endpoint absent of account 000000000000 not found."),
    ],
)
def test_an_invalid_request_is_a_validation_error(server: Server, members: dict[str, Any], message: str) -> None:
    code, text = server.refusal(**members)
    assert code == "ValidationError"
    assert message in text


def test_the_largest_inline_payload_is_taken(server: Server) -> None:
    answer = server.invoke(Body=bytes(128_000))
    assert server.read(answer["OutputLocation"]) == bytes(128_000)


def test_received_invocations_are_listed_by_endpoint(server: Server) -> None:
    before = server.get("/invocations?endpoint=other")
    ids = [f"listed-{number}" for number in range(3)]
    for inference_id in ids:
        server.invoke("other", InferenceId=inference_id)
    assert server.get("/invocations?endpoint=other") == before + ids
    assert not set(ids) & set(server.get("/invocations?endpoint=detector"))


def test_the_control_plane_describes_an_endpoint(server: Server) -> None:
    sagemaker = server.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName="detector")
    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["CreationTime"].year >= 2024
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    assert config["AsyncInferenceConfig"] == {
        "OutputConfig": {"S3OutputPath": f"s3://{OUTPUTS}/o", "S3FailurePath": f"s3://{FAILURES}/f/"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
    }
    assert config["ProductionVariants"][0]["InitialInstanceCount"] == 1


def test_the_control_plane_does_not_know_another_endpoint(server: Server) -> None:
    sagemaker = server.client("sagemaker")
    with pytest.raises(ClientError, match=r'Could not find endpoint ".*endpoint/absent"') as caught:
        sagemaker.describe_endpoint(EndpointName="absent")
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.describe_endpoint_config(EndpointConfigName="detector")
    with pytest.raises(ClientError, match="Unknown operation"):
        sagemaker.list_endpoints()


def test_slots_bound_what_runs_and_stats_account_for_it(environment: dict[str, str], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = str(gate).encode()
    slots = ("--instances", "2", "--concurrency", "3", "--latency", "0.1", "--latency-jitter", "0.2")
    with serving(environment, *detector("tile_models:held"), *BOTH_PATHS, *slots) as server:
        server.s3.put_object(Bucket=INPUTS, Key="slots.png", Body=body)
        answers = [server.invoke(InferenceId=f"slot-{number}", Body=body) for number in range(23)]
        answers.append(server.invoke(InputLocation=f"s3://{INPUTS}/slots.png"))
        gate.touch()
        stats = server.idle()
        expected = {"invocations": 24, "inline": 23, "s3_input": 1, "succeeded": 24, "failed": 0}
        assert {name: stats[name] for name in expected} == expected
        assert (stats["slots"], stats["running_max"], stats["running"], stats["queued"]) == (6, 6, 0, 0)
        assert stats["in_flight_max"] == 24
        assert 24 * 0.08 < stats["busy_seconds"] < 6 * (stats["last_finished"] - stats["first_accepted"] + 0.1)
        assert json.loads(server.read(answers[0]["OutputLocation"]))["bytes"] == len(body)


def test_without_a_failure_path_a_failure_leaves_nothing(environment: dict[str, str]) -> None:
    with serving(environment, *detector(), "--s3-output-path", f"s3://{OUTPUTS}/nothing") as server:
        answer = server.invoke(Body=b"fail", S3OutputPathExtension="silent")
        assert "FailureLocation" not in answer
        assert server.idle()["failed"] == 1
        assert not any("silent" in key for bucket in (OUTPUTS, FAILURES) for key in server.keys(bucket))


def test_a_region_without_inline_payloads_and_path_extensions(environment: dict[str, str]) -> None:
    flags = ("--refuse-inline", "--ignore-path-extension")
    with serving(environment, *detector(), *BOTH_PATHS, *flags) as server:
        code, message = server.refusal(Body=b"tile")
        assert code == "ValidationError"
        assert "InputLocation is required" in message
        server.s3.put_object(Bucket=INPUTS, Key="old.png", Body=b"old")
        answer = server.invoke(
            InputLocation=f"s3://{INPUTS}/old.png", S3OutputPathExtension="job/shard", Filename="old.out"
        )
        assert answer["OutputLocation"] == f"s3://{OUTPUTS}/o/old.out"
        assert answer["FailureLocation"] == f"s3://{FAILURES}/f/old-error.out"
        assert server.read(answer["OutputLocation"]) == b"old"


@pytest.mark.parametrize(
    ("fault", "code", "count"),
    [("throttle", "ThrottlingException", "throttled"), ("unavailable", "ServiceUnavailable", "unavailable")],
)
def test_a_refusing_endpoint_takes_a_repeated_call(
    environment: dict[str, str], fault: str, code: str, count: str
) -> None:
    with serving(environment, *detector(), *BOTH_PATHS, f"--{fault}-rate", "0.4", "--seed", "7") as server:
        patient = server.client(attempts=10)
        for number in range(3):
            patient.invoke_endpoint_async(EndpointName="detector", InferenceId=f"t-{number}", Body=b"tile")
        refused = [refusal for number in range(20) if (refusal := refusal_code(server, f"once-{number}"))]
        stats = server.idle()
        assert set(refused) == {code}
        assert stats[count] >= len(refused)
        assert stats["invocations"] == 3 + 20 - len(refused) == len(server.get("/invocations?endpoint=detector"))


def refusal_code(server: Server, inference_id: str) -> str | None:
    try:
        server.invoke(InferenceId=inference_id)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def test_faulty_models_fail_drop_and_write_garbage(environment: dict[str, str]) -> None:
    rates = ("--model-error-rate", "0.3", "--drop-rate", "0.3", "--garbage-rate", "0.3", "--concurrency", "4")
    with serving(environment, *detector("tile_models:features"), *BOTH_PATHS, *rates) as server:
        prefix = f"faults-{uuid.uuid4().hex}"
        for number in range(60):
            server.invoke(InferenceId=f"fault-{number}", S3OutputPathExtension=prefix)
        stats = server.idle()
        outputs = [key for key in server.keys(OUTPUTS) if prefix in key]
        failures = [key for key in server.keys(FAILURES) if prefix in key]
        assert (len(outputs), len(failures)) == (stats["succeeded"], stats["failed"])
        assert stats["dropped"] == 60 - len(outputs) - len(failures)
        assert min(stats["dropped"], len(failures)) > 0
        garbage = [key for key in outputs if not is_json(server.read(f"s3://{OUTPUTS}/{key}"))]
        assert 0 < len(garbage) < len(outputs)


def is_json(body: bytes) -> bool:
    with contextlib.suppress(ValueError):
        return bool(json.loads(body))
    return False


def test_the_server_ends_at_once_while_a_model_hangs(environment: dict[str, str]) -> None:
    with serving(environment, *detector(), *BOTH_PATHS) as server:
        server.invoke(Body=b"sleep %d" % (4 * PATIENCE))
        poll(lambda: server.stats()["running"] or None)
        server.process.terminate()
        assert server.process.wait(timeout=PATIENCE) == 0


def test_a_taken_port_is_one_line(server: Server, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "osml_tasks.local.endpoint_server", *detector(), *BOTH_PATHS]
    port = server.url.rpartition(":")[2]
    ended = subprocess.run([*command, "--port", port], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert port in ended.stderr
