"""docs/operations.md from an empty host to a finished job: its files as they stand, but for ports and paths."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
import redis
from moto.server import ThreadedMotoServer

from osml_tasks.child_process import ChildProcess
from osml_tasks.local.broker import server_binary
from osml_tasks.local.server import free_port
from tests.integration.documented import documented
from tests.integration.files import files, settings
from tests.integration.fleet import PATIENCE, REPOSITORY, WORKERS_READY, clean_environment, wait_until
from tests.integration.snippets import Block, blocks, one_session, run_python, run_shell

DOCUMENT = REPOSITORY / "docs/operations.md"
FILES = files(DOCUMENT)


@dataclass(frozen=True)
class Host:
    """A host that was set up by the document.

    :ivar env: the variables of its file of settings.
    :ivar folder: where the tiles are.
    """

    env: dict[str, str]
    folder: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder, etc = tmp_path_factory.mktemp("host"), tmp_path_factory.mktemp("etc")
    shutil.copy(REPOSITORY / "celeryconfig.py", etc)
    with ExitStack() as running:
        cloud = running.enter_context(documented(folder, workers=False))
        broker = start_broker(running, etc)
        env = settings(FILES["/etc/osml-tasks/environment"])
        env["CELERY_BROKER_URL"] = env["CELERY_BROKER_URL"].replace(":6379/", f":{broker}/")
        env |= {"FLOWER_PORT": str(free_port()), "ASYNC_SM_POLLING_INTERVAL": "0.5", **cloud.env}
        worker = start_unit(running, "osml-tasks-worker", etc, env)
        worker.wait_ready(lambda: WORKERS_READY.search(worker.log_text()) is not None, within=PATIENCE)
        flower = start_unit(running, "osml-tasks-flower", etc, env)
        flower.wait_ready(lambda: "Visit me at" in flower.log_text(), within=PATIENCE)
        yield Host(env, folder)


def start_broker(running: ExitStack, etc: Path) -> int:
    """A broker of the document's settings; says its port."""
    port = free_port()
    configuration = etc / "redis.conf"
    configuration.write_text(FILES["/etc/redis/redis.conf"])
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(etc)]
    broker = ChildProcess("broker", [str(server_binary()), str(configuration), *place], directory=etc)
    running.callback(broker.stop, grace=10.0)
    broker.start()
    broker.wait_ready(lambda: "Ready to accept connections" in broker.log_text(), within=PATIENCE)
    return port


def start_unit(running: ExitStack, unit: str, etc: Path, env: dict[str, str]) -> ChildProcess:
    """What systemd would start."""
    (command,) = re.findall(r"^ExecStart=(.+)$", FILES[f"/etc/systemd/system/{unit}.service"], re.MULTILINE)
    there = command.replace("/opt/osml-tasks/bin", str(Path(sys.executable).parent))
    whole = clean_environment() | {"PYTHONPATH": str(REPOSITORY)} | env
    process = ChildProcess(unit, shlex.split(there), directory=etc, env=whole, working_directory=etc)
    running.callback(process.stop, grace=60.0)
    process.start()
    return process


def block(language: str, words: str) -> Block:
    """The one block that contains these words."""
    (found,) = [one for one in blocks(DOCUMENT) if one.language == language and words in one.code]
    return found


def run(host: Host, code: str) -> subprocess.CompletedProcess[str]:
    done = run_shell(code, host.env, host.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_host_does_its_first_job(host: Host) -> None:
    done = run(host, block("sh", "osml-tasks check --endpoint ships").code)
    assert "FAIL" not in done.stdout
    assert re.search(r"\d+ features from (\d+) of \1 tiles", done.stdout)
    report = json.loads((host.folder / "report.json").read_text())
    assert (report["state"], report["failed"]) == ("completed", 0)
    assert json.loads((host.folder / "ships.geojson").read_text())["features"]


def test_a_job_that_nobody_waits_for_is_fetched_later(host: Host) -> None:
    (host.folder / "ships.geojson").unlink(missing_ok=True)
    done = run(host, block("sh", "--no-wait").code)
    assert re.search(r"^osml\.submit +\d+ waiting$", done.stdout, re.MULTILINE)
    assert json.loads((host.folder / "ships.geojson").read_text())["features"]


def test_the_broker_keeps_what_it_has_and_lets_nobody_in_without_the_password(host: Host) -> None:
    url = host.env["CELERY_BROKER_URL"]
    with redis.Redis.from_url(url) as server:
        assert server.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert server.config_get("appendonly") == {"appendonly": "yes"}
    with (
        redis.Redis.from_url(re.sub("//.*@", "//", url)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_flower_has_the_columns_that_the_document_names(host: Host) -> None:
    login = base64.b64encode(host.env["FLOWER_BASIC_AUTH"].encode()).decode()
    url = f"http://{host.env['FLOWER_ADDRESS']}:{host.env['FLOWER_PORT']}"

    def page(path: str) -> str:
        with urlopen(Request(url + path, headers={"Authorization": f"Basic {login}"}), timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    columns = re.findall(r'data-column="(\w+)"', page("/tasks"))
    assert columns == host.env["FLOWER_TASKS_COLUMNS"].split(",")
    run(host, "osml-tasks detect tiles/ --endpoint ships -o seen.geojson")
    wait_until(lambda: "osml_tasks.assemble" in page("/api/tasks"))


def test_queue_lengths_come_to_cloudwatch(host: Host) -> None:
    cloud = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    cloud.start()
    try:
        url = "http://{}:{}".format(*cloud.get_host_and_port())
        env = host.env | {"AWS_ENDPOINT_URL_CLOUDWATCH": url}
        done = run_python(one_session([block("python", "put_metric_data")]), "publish", env, host.folder)
        assert done.returncode == 0, done.stderr
        keys = {name: host.env[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
        client = boto3.client("cloudwatch", endpoint_url=url, region_name=host.env["AWS_DEFAULT_REGION"], **keys)
        there = client.list_metrics(Namespace="OSML/Tasks")["Metrics"]
    finally:
        cloud.stop()
    (policy,) = [json.loads(one.code) for one in blocks(DOCUMENT) if one.language == "json"]
    tracked = policy["CustomizedMetricSpecification"]["Metrics"][0]["MetricStat"]["Metric"]
    assert len(there) == 4
    assert tracked in there
