"""The fleet that the integration tests share, and what they ask it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
from celery import Celery

from osml_tasks.child_process import ChildProcess
from osml_tasks.redis_keys import PREFIX
from tests.integration.forked import ForkedProcess, run
from tests.waiting import PATIENCE, wait_until

INPUTS = "fleet-in"
REPOSITORY = Path(__file__).parents[2]
ENDPOINTS_READY = re.compile(r"^ready (http://\S+)$", re.MULTILINE)
WORKERS_READY = re.compile(r"^ready$", re.MULTILINE)


def clean_environment() -> dict[str, str]:
    """Ours, less what would lead a process to another fleet than the one it is given, or have it trust another."""
    foreign = re.compile(r"(AWS|ASYNC_SM|CELERY|SSL_CERT|GDAL)_|ARTIFACT_BUCKET|\w*_CA_BUNDLE|(?i:\w+_proxy)")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


def start_python(
    running: ExitStack,
    name: str,
    arguments: Sequence[str],
    directory: Path,
    env: Mapping[str, str],
    ready: re.Pattern[str],
) -> ChildProcess:
    """Run Python until ``running`` ends; returns when its output matches ``ready``."""
    whole = clean_environment() | {"PYTHONPATH": str(REPOSITORY)} | dict(env)
    child = ForkedProcess(name, [sys.executable, *arguments], directory=directory, env=whole)
    child.start()
    running.callback(child.stop, grace=0)
    child.wait_ready(lambda: ready.search(child.log_text()) is not None, within=PATIENCE)
    return child


def strange_app(url: str) -> Celery:
    """An application that does not know this package: it has the broker, and how its keys begin."""
    app = Celery("stranger", broker=url, backend=url, set_as_current=False)
    app.conf.broker_transport_options = app.conf.result_backend_transport_options = {"global_keyprefix": PREFIX}
    return app


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line left: exit status, output, result and report."""

    status: int
    out: str
    err: str
    features: list[dict[str, Any]]
    report: dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    """Real servers and workers.

    :ivar env: the variables that lead a client to them.
    :ivar tiles: a directory whose files workers may read.
    :ivar worker_log: what the workers have written.
    """

    env: Mapping[str, str]
    endpoints_url: str
    tiles: Path
    worker_log: Callable[[], str]

    @cached_property
    def s3(self) -> Any:
        """A boto3 client: one, because it is made in the time of twenty calls."""
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_REGION"],
        )

    def objects(self) -> list[str]:
        """All objects of all buckets."""
        buckets = [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]
        pages = ((bucket, self.s3.list_objects_v2(Bucket=bucket)) for bucket in buckets)
        return [f"{bucket}/{found['Key']}" for bucket, page in pages for found in page.get("Contents", ())]

    def wait_empty(self) -> None:
        """Wait until no bucket holds anything. What one test leaves all the same is not the next one's fault."""
        try:
            wait_until(lambda: not self.objects())
        except AssertionError:
            left = self.objects()
            for bucket, _, key in (name.partition("/") for name in left):
                self.s3.delete_object(Bucket=bucket, Key=key)
            raise AssertionError(f"left behind: {left}") from None

    def stats(self, endpoint: str) -> dict[str, Any]:
        """What an endpoint counts."""
        with urlopen(f"{self.endpoints_url}/stats") as answer:
            return dict(json.load(answer)[endpoint])

    def invocations(self, endpoint: str) -> list[str]:
        """The inference ids that an endpoint has accepted."""
        with urlopen(f"{self.endpoints_url}/invocations?endpoint={endpoint}") as answer:
            return list(json.load(answer))

    def command(self, *arguments: str | Path, **variables: str | None) -> tuple[list[str], dict[str, str]]:
        """A call of ``osml-tasks`` and its environment; a variable that is None is left out."""
        env = clean_environment() | dict(self.env) | {name: value for name, value in variables.items() if value}
        for name in (name for name, value in variables.items() if value is None):
            env.pop(name, None)
        return [sys.executable, "-m", "osml_tasks", *map(str, arguments)], env

    def start(self, *arguments: str | Path, **variables: str | None) -> subprocess.Popen[str]:
        """Start ``osml-tasks`` and leave it running."""
        command, env = self.command(*arguments, **variables)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=env, **pipes)  # type: ignore[call-overload, no-any-return]

    def run(self, *arguments: str | Path, **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run ``osml-tasks`` to its end."""
        _, env = self.command(*arguments, **variables)
        return run([*map(str, arguments)], env)

    def detect(self, *arguments: str | Path, folder: Path, **variables: str | None) -> Outcome:
        """Run ``osml-tasks detect`` and read the files that it wrote into a folder."""
        result, report = folder / "out.geojson", folder / "report.json"
        done = self.run("detect", *arguments, "-o", result, "--report", report, **variables)
        features = json.loads(result.read_text())["features"] if result.exists() else []
        return Outcome(
            done.returncode,
            done.stdout,
            done.stderr,
            features,
            json.loads(report.read_text()) if report.exists() else {},
        )


def write_tiles(directory: Path, scripts: Mapping[str, Mapping[str, Any]]) -> Path:
    """Tiles for the scripted model: a file for each name."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, script in scripts.items():
        (directory / name).write_text(json.dumps({"name": name} | dict(script)))
    return directory


_TORN = """
import sys
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import open_connections
from osml_tasks.detection import create_job
from osml_tasks.publishing import publish_job
from osml_tasks.sources import find_tiles
connections = open_connections(AsyncEndpointConfig())
job, shards = create_job(connections, find_tiles(sys.argv[1:]), "scripted", stage=True)
connections.s3.put(connections.input_uri(job.manifest_key), b"{" * 500)
publish_job(connections.app, job, shards)
print(job.job_id)
"""


def start_torn_job(fleet: Fleet, tiles: Path) -> str:
    """Start a job whose manifest no worker can read; says its id."""
    _, env = fleet.command()
    command = [sys.executable, "-c", _TORN, str(tiles)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def names(features: list[dict[str, Any]]) -> list[str]:
    """Which tile each feature of the scripted model came from."""
    return [feature["properties"]["featureClasses"][0]["iri"] for feature in features]
