"""Nothing secret is in the broker, the logs, the report, S3, Flower, an error text or a list of processes.

A job of another account on workers that log at DEBUG, with all that passes written down; then one whose
role is refused.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import redis
from redis.exceptions import ConnectionError as NoConnectionError

from osml_tasks.celery import new_app
from osml_tasks.local.broker import Broker
from osml_tasks.local.server import free_port
from tests.integration.cloud import EXTERNAL_ID, Cloud, cloud
from tests.integration.crew import Crew
from tests.integration.endpoints import OUTPUTS
from tests.integration.fleet import (
    ENDPOINTS_READY,
    INPUTS,
    PATIENCE,
    Fleet,
    names,
    start_python,
    wait_until,
    write_tiles,
)
from tests.integration.forked import BY_ITSELF
from tests.integration.owned_way import OwnedWay
from tests.integration.test_flower import FLOWER_READY

BROKER_PASSWORD, FLOWER_PASSWORD = "the-brokers-own", "the-dashboards-own"
WRONG_ID = "not-that-one-0815"
LOGIN = f"operator:{FLOWER_PASSWORD}"
_IN_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_HANDED_OUT = re.compile(r"<(SecretAccessKey|SessionToken)>([^<]+)<")


class Eavesdropper(OwnedWay):
    """A way to STS that keeps the secrets which it hands out."""

    def __init__(self, target: str) -> None:
        super().__init__(target, {})
        self.secrets: set[str] = set()

    def _ask(
        self, handler: BaseHTTPRequestHandler, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        status, answered, content = super()._ask(handler, headers, body)
        self.secrets |= {value for _, value in _HANDED_OUT.findall(content.decode())}
        return status, answered, content


@dataclass
class Evidence:
    """All that was seen, by where it was.

    :ivar texts: place and text.
    """

    texts: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, text: object) -> None:
        """Keep a text, and what is in it as base64: so Celery's messages carry their bodies."""
        plain = text if isinstance(text, str) else repr(text)
        decoded = " ".join(_decoded(found) for found in _IN_BASE64.findall(plain))
        self.texts[place] = f"{self.texts.get(place, '')}\n{plain}\n{decoded}"

    def where(self, secret: str) -> list[str]:
        """The places where a secret was seen, in whatever spelling."""
        spelt = {secret, quote(secret, safe=""), repr(secret)[1:-1], base64.b64encode(secret.encode()).decode()}
        return [place for place, text in self.texts.items() if any(one in text for one in spelt)]


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4)).decode("utf-8", "replace")
    except ValueError:
        return ""


@contextmanager
def watching(evidence: Evidence, url: str) -> Iterator[None]:
    """Write down each command that the broker gets, and each process's arguments, while a block runs."""
    heard, over = Event(), Event()
    commands: list[str] = []
    arguments: set[str] = set()

    def listen() -> None:
        with redis.Redis.from_url(url) as server, server.monitor() as monitor:
            heard.set()
            try:
                while not over.is_set():
                    commands.append(str(monitor.next_command()["command"]))
            except NoConnectionError:
                return

    def look() -> None:
        while not over.wait(0.2):
            for found in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments.add(found.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue

    threads = [Thread(target=listen, daemon=True), Thread(target=look, daemon=True)]
    for thread in threads:
        thread.start()
    assert heard.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()
        with redis.Redis.from_url(url) as server:
            server.ping()  # so that the monitor has something to hear
        for thread in threads:
            thread.join(PATIENCE)
        evidence.add("commands of the broker", "\n".join(commands))
        evidence.add("arguments of processes", "\n".join(arguments))


def values(server: Any) -> Iterator[str]:
    """Every key of a Redis, with everything under it."""
    read = {
        b"string": server.get,
        b"hash": server.hgetall,
        b"set": server.smembers,
        b"list": lambda key: server.lrange(key, 0, -1),
        b"zset": lambda key: server.zrange(key, 0, -1),
    }
    for key in server.scan_iter():
        yield f"{key!r} {read[server.type(key)](key)!r}"


@dataclass(frozen=True)
class Scene:
    """A fleet of another account.

    :ivar env: of clients and workers.
    """

    aws: Cloud
    way: Eavesdropper
    crew: Crew
    env: dict[str, str]
    flower_url: str
    flower_log: Any
    url: str

    def flower(self, path: str) -> str:
        """A page of Flower."""
        secret = {"Authorization": f"Basic {base64.b64encode(LOGIN.encode()).decode()}"}
        with urlopen(Request(self.flower_url + path, headers=secret), timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def start_workers(self, external_id: str = EXTERNAL_ID) -> list[Any]:
        """Workers that log all they can, in either form."""
        json_lines = {"ASYNC_SM_LOG_FORMAT": "json"}
        env = {"ASYNC_SM_EXTERNAL_ID": external_id}
        beat = ["-B", "-s", str(self.crew.directory / "schedule")]
        launch, who = self.crew.launch, external_id[:3]
        workers = [
            launch(f"submit-{who}", "osml.submit", 1, "-l", "DEBUG", **env, **json_lines),
            launch(f"poll-{who}", "osml.poll", 1, "-l", "DEBUG", **env),
            launch(f"rest-{who}", "osml.assemble,osml.cleanup", 1, "-l", "DEBUG", *beat, **env, **json_lines),
        ]
        wait_until(lambda: all(self.crew.ask("active_queues", worker.node, 2.0) for worker in workers))
        return workers

    def collect(self, evidence: Evidence, name: str, *jobs: str) -> None:
        """All that is there afterwards."""
        with redis.Redis.from_url(self.url) as server:
            evidence.add(f"{name}: broker", "\n".join(values(server)))
        s3 = self.aws.session(self.aws.owner).client("s3", endpoint_url=self.aws.url)
        for bucket in (INPUTS, OUTPUTS):
            for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
                body = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read().decode()
                evidence.add(f"{name}: s3://{bucket}/{found['Key']}", body)
        for log in self.crew.directory.glob("*.log"):
            evidence.add(f"{name}: {log.name}", log.read_text())
        calls = [["status", job, *more] for job in jobs for more in ([], ["--json"])]
        for call in (*calls, ["jobs", "--json"], ["queues"], ["check"]):
            done = self.crew.fleet.run(*call)
            evidence.add(f"{name}: {' '.join(call)}", done.stdout + done.stderr)
        tasks = json.loads(self.flower("/api/tasks"))
        workers = json.loads(self.flower("/api/workers?refresh=1"))
        pages = ["/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/metrics"]
        pages += [f"/task/{task}" for task in tasks] + [f"/api/task/info/{task}" for task in tasks]
        pages += [f"/worker/{worker}" for worker in workers]
        for page in pages:
            evidence.add(f"{name}: Flower {page}", self.flower(page))
        evidence.add(f"{name}: Flower's log", self.flower_log())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("secrets")
    with ExitStack() as running:
        aws = running.enter_context(cloud(directory))
        way = running.enter_context(Eavesdropper(aws.url))
        broker = running.enter_context(Broker(directory / "broker"))
        with redis.Redis.from_url(broker.url) as server:
            server.config_set("requirepass", BROKER_PASSWORD)
        url = broker.url.replace("://", f"://:{BROKER_PASSWORD}@")
        owner = {name.upper(): value for name, value in aws.owner.items()}
        endpoints = ["-m", "tests.integration.endpoints"]
        served = start_python(running, "endpoints", endpoints, directory, aws.env | owner, ENDPOINTS_READY)
        endpoints_url = ENDPOINTS_READY.findall(served.log_text())[0]
        tiles = directory / "tiles"
        env = {
            **aws.env,
            **{name.upper(): value for name, value in aws.caller.items()},
            "AWS_ENDPOINT_URL_STS": way.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": endpoints_url,
            "CELERY_BROKER_URL": url,
            "ARTIFACT_BUCKET": INPUTS,
            "ASYNC_SM_OUTPUT_BUCKET": OUTPUTS,
            "ASYNC_SM_ASSUME_ROLE_ARN": aws.role_arn,
            "ASYNC_SM_EXTERNAL_ID": EXTERNAL_ID,
            "ASYNC_SM_POLLING_INTERVAL": "0.2",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "0.5",
            "ASYNC_SM_CLEANUP_POLICY": "disabled",
            **BY_ITSELF,
        }
        port = free_port()
        flower = start_python(
            running,
            "flower",
            ["-m", "celery", "-A", "osml_tasks", "flower", "--address=127.0.0.1", f"--port={port}", "--logging=debug"],
            directory,
            env | {"FLOWER_BASIC_AUTH": LOGIN},
            FLOWER_READY,
        )
        crew = Crew(Fleet(env, endpoints_url, tiles, str), running, directory, new_app(url, url))
        yield Scene(aws, way, crew, env, f"http://127.0.0.1:{port}", flower.log_text, url)


@pytest.fixture(scope="module")
def evidence(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """What a job and a refused one have left everywhere."""
    folder, found = tmp_path_factory.mktemp("jobs"), Evidence()
    scripts = {f"t{number}": {} for number in range(6)} | {"t3": {"fail_first": 1}, "t4": {"fail_first": 9}}
    tiles = write_tiles(folder / "tiles", scripts)
    with watching(found, scene.url):
        good = scene.start_workers()
        outcome = scene.crew.fleet.detect(tiles, "-e", "scripted", folder=folder)
        assert (outcome.status, len(names(outcome.features))) == (3, 5), outcome.err
        found.add("client", outcome.out + outcome.err)
        found.add("report and result", json.dumps(outcome.report) + json.dumps(outcome.features))
        scene.collect(found, "done", outcome.report["job_id"])
        for worker in good:
            worker.kill()
        scene.start_workers(WRONG_ID)
        refused = scene.crew.fleet.run("detect", tiles, "-e", "scripted", "--no-wait")
        job = refused.stdout.strip()
        ended = scene.crew.fleet.run("watch", job)
        found.add("refused: client", refused.stderr + ended.stdout + ended.stderr)
        assert "cannot be assumed: AccessDenied" in ended.stderr
        locked_out = scene.crew.fleet.run("detect", tiles, "-e", "x", "-o", folder / "x", ASYNC_SM_EXTERNAL_ID=WRONG_ID)
        assert locked_out.returncode == 2
        found.add("refused: another client", locked_out.stdout + locked_out.stderr)
        scene.collect(found, "refused", job)
    return found


def test_each_place_was_looked_at(scene: Scene, evidence: Evidence) -> None:
    places = " ".join(evidence.texts)
    for place in ("job.json", "tiles.jsonl", "submit-ext", "rest-not", "Flower /task/", "Flower /worker/", "status"):
        assert place in places, place
    # What is no secret is found in them, so that a secret would be, too: also in the bodies of messages.
    role = scene.aws.role_arn
    assert "commands of the broker" in evidence.where(role)
    assert any("Flower" in place for place in evidence.where("cannot be assumed"))
    assert '"chord"' in evidence.texts["commands of the broker"]
    assert "celery -A osml_tasks worker" in evidence.texts["arguments of processes"]
    assert len(scene.way.secrets) >= 4


def test_no_secret_is_anywhere(scene: Scene, evidence: Evidence) -> None:
    secrets = {
        "the caller's key": scene.aws.caller["aws_secret_access_key"],
        "external id": EXTERNAL_ID,
        "wrong external id": WRONG_ID,
        "broker's password": BROKER_PASSWORD,
        "Flower's password": FLOWER_PASSWORD,
        "Flower's login": LOGIN,
    } | {f"assumed {number}": secret for number, secret in enumerate(scene.way.secrets)}
    assert {name: found for name, secret in secrets.items() if (found := evidence.where(secret))} == {}
