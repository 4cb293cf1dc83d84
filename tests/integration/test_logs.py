"""What workers and beat write while a job runs: a line a shard and step, and nothing that is nobody's business."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osml_tasks.celery import new_app
from osml_tasks.child_process import ChildProcess
from tests.integration.fleet import (
    INPUTS,
    PATIENCE,
    REPOSITORY,
    WORKERS_READY,
    Fleet,
    clean_environment,
    start_python,
    start_torn_job,
    wait_until,
)
from tests.integration.fleet import write_tiles as write

PAYLOAD, PASSWORD, SENT = "the-text-of-a-payload", "sesame-4711", "sent-by-mistake"
Line = dict[str, Any]


@dataclass(frozen=True)
class JsonFleet(Fleet):
    """Workers that log all there is, as JSON, on a database of their own."""

    def lines(self, job: str | None = None) -> list[Line]:
        """Their log, of one job if it is named; metrics, which go to standard output, left out."""
        written = [json.loads(line) for line in self.worker_log().splitlines() if line != "ready"]
        return [line for line in written if "_aws" not in line and job in (None, line.get("job"))]

    def steps(self, job: str) -> list[Line]:
        """The lines of a job's steps, without those for who looks for trouble."""
        return [line for line in self.lines(job) if "step" in line and line["level"] != "DEBUG"]


@pytest.fixture(scope="module")
def _json_fleet(_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonFleet]:
    url = _fleet.env["CELERY_BROKER_URL"].replace("redis://", f"redis://default:{PASSWORD}@").removesuffix("/0")
    env = dict(_fleet.env) | {"CELERY_BROKER_URL": f"{url}/6", "ASYNC_SM_LOG_FORMAT": "json"}
    with ExitStack() as running:
        workers = start_python(
            running,
            "json-workers",
            ["-m", "osml_tasks", "worker", "-l", "DEBUG"],
            tmp_path_factory.mktemp("json"),
            env | {"ASYNC_SM_TILE_ROOTS": str(_fleet.tiles)},
            WORKERS_READY,
        )
        yield JsonFleet(env, _fleet.endpoints_url, _fleet.tiles, workers.log_text)


@pytest.fixture
def json_fleet(_json_fleet: JsonFleet, fleet: Fleet) -> JsonFleet:
    """These workers, for a test that leaves no object."""
    return _json_fleet


def test_each_shard_has_one_line_a_step_and_each_job_its_ends(
    json_fleet: JsonFleet, tiles: Path, tmp_path: Path
) -> None:
    scripts: dict[str, Line] = {f"t{number:02d}": {"note": PAYLOAD, "features": 2} for number in range(56)}
    scripts |= {"t50": {"note": PAYLOAD, "fail_first": 1}, "t51": {"note": PAYLOAD, "fail_first": 99}}
    scripts |= {"t52": {"note": PAYLOAD, "raw": PAYLOAD}}
    outcome = json_fleet.detect(
        write(tiles, scripts), "-e", "scripted", "--no-stage", folder=tmp_path, ASYNC_SM_MAX_CONCURRENT_JOBS="32"
    )
    job = outcome.report["job_id"]
    wait_until(lambda: any(line["step"] == "completed" for line in json_fleet.steps(job)))
    steps = json_fleet.steps(job)
    shards = [f"{number:05d}" for number in range(7)]
    for step in ("submit", "finished"):
        assert sorted(line["shard"] for line in steps if line["step"] == step) == shards
    assert sum(line["invoked"] for line in steps if line["step"] == "submit") == 56
    assert {line["shard"] for line in steps if line["step"] == "resubmit"} == {"00006"}
    assert {line["step"] for line in steps} >= {"parked"}
    finished = {line["shard"]: line for line in steps if line["step"] == "finished"}["00006"]
    assert (finished["succeeded"], finished["failed"], finished["features"]) == (6, 2, 11)
    (completed,) = [line for line in steps if line["step"] == "completed"]
    assert (completed["tiles"], completed["failed"], completed["features"]) == (56, 2, 107)
    assert all(line["seconds"] >= 0 for line in steps if line["step"] in ("submit", "finished", "completed"))
    workers = {line["step"]: line["worker"].split("-")[0] for line in steps}
    assert (workers["submit"], workers["finished"], workers["completed"]) == ("submit", "poll", "assemble")


def test_a_defect_is_one_line_with_its_traceback_job_and_shard(json_fleet: JsonFleet, tiles: Path) -> None:
    job = start_torn_job(json_fleet, write(tiles, {"a": {}}))
    wait_until(lambda: any(line["logger"] == "celery.app.trace" for line in json_fleet.lines(job)))
    raised = [line for line in json_fleet.lines(job) if "exception" in line]
    assert {(line["level"], line["shard"]) for line in raised} == {("ERROR", "00000")}
    (task,) = [line for line in raised if line["logger"] == "celery.app.trace"]
    assert task["exception"].startswith("Traceback")
    assert [line["level"] for line in json_fleet.steps(job) if line["step"] == "failed"] == ["ERROR"]


def test_neither_payloads_nor_credentials_nor_query_strings_are_in_any_line(
    json_fleet: JsonFleet, tiles: Path, tmp_path: Path
) -> None:
    folder = write(tiles, {"inline": {"note": PAYLOAD}, "large": {"note": PAYLOAD, "padding": "x" * 200_000}})
    json_fleet.detect(folder, "-e", "scripted", "--no-stage", folder=tmp_path)
    # What a careless caller sends is in Celery's own lines: an argument as it came, and an error with its URL.
    calls = [{"credentials": {"SecretAccessKey": SENT}}, {"sources": f"s3://{INPUTS}/none?X-Amz-Signature={SENT}"}]
    caller = new_app(json_fleet.env["CELERY_BROKER_URL"])
    for call in calls:
        caller.send_task("osml_tasks.detect", kwargs={"sources": "s3://none/", "endpoint": "scripted"} | call)
    wait_until(lambda: len(re.findall(r"Task osml_tasks\.detect\S+ raised", json_fleet.worker_log())) == len(calls))
    written = json_fleet.worker_log()
    assert "TaskPool: Apply" in written
    secrets = (PAYLOAD, PASSWORD, SENT, json_fleet.env["AWS_SECRET_ACCESS_KEY"], json_fleet.env["AWS_ACCESS_KEY_ID"])
    assert [secret for secret in secrets if secret in written] == []
    assert re.findall(r"://\S*\?", written) == []


def test_people_read_the_same_and_celerys_two_lines_a_task_are_left_out(
    fleet: Fleet, tiles: Path, tmp_path: Path
) -> None:
    outcome = fleet.detect(write(tiles, {"a": {}, "b": {}}), "-e", "scripted", folder=tmp_path)
    job = outcome.report["job_id"]
    wait_until(lambda: f"INFO completed job={job}" in fleet.worker_log())
    lines = [line for line in fleet.worker_log().splitlines() if f"job={job}" in line]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    at = rf"job={job} shard=00000"
    assert re.fullmatch(
        rf"{time} INFO submit {at} tiles=2 invoked=2 refused=0 waiting=0 seconds=[\d.]+ worker=submit\S+", lines[0]
    )
    assert re.fullmatch(
        rf"{time} INFO finished {at} succeeded=2 failed=0 features=2 seconds=[\d.]+ worker=poll\S+", lines[1]
    )
    assert [
        line for line in fleet.worker_log().splitlines() if re.search(r"Task osml\S+ (received|succeeded)", line)
    ] == []


@pytest.mark.parametrize(
    ("command", "said", "origin"),
    [
        (["worker", "-n", "plain@here"], "plain@here ready.", "plain@here"),
        (["beat"], "beat: Starting...", socket.gethostname()),
    ],
    ids=["worker", "beat"],
)
def test_plain_celery_writes_to_its_file(
    fleet: Fleet, tmp_path: Path, command: list[str], said: str, origin: str
) -> None:
    log = tmp_path / "chosen.log"
    log.touch()
    env = clean_environment() | {"PYTHONPATH": str(REPOSITORY), "ASYNC_SM_LOG_FORMAT": "json"} | dict(fleet.env)
    env["CELERY_BROKER_URL"] = env["CELERY_BROKER_URL"].removesuffix("/0") + "/9"
    celery = [sys.executable, "-m", "celery", "-A", "osml_tasks", *command, "-l", "INFO", "-f", str(log)]
    process = ChildProcess("celery", celery, directory=tmp_path, env=env, working_directory=tmp_path)
    process.start()
    try:
        wait_until(lambda: said in log.read_text())
    finally:
        process.stop(grace=PATIENCE)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["level"] for line in lines} <= {"INFO", "WARNING"}
    assert all(line["worker"].startswith(origin) for line in lines)


def test_a_format_that_does_not_exist_stops_beat_with_one_line(fleet: Fleet) -> None:
    env = fleet.command(ASYNC_SM_LOG_FORMAT="xml", ARTIFACT_BUCKET=None)[1]
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-q", "-A", "osml_tasks", "beat"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "ASYNC_SM_LOG_FORMAT" in done.stderr.splitlines()[-1]
