"""A job by its id: listed, looked at, cancelled, retried, and resumed after the broker was lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

import osml_tasks
from osml_tasks.celery import new_app
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError, JobNotFoundError
from osml_tasks.jobs import JobState
from osml_tasks.local.broker import Broker
from osml_tasks.worker_presence import listening
from tests.integration.fleet import INPUTS, PATIENCE, WORKERS_READY, Fleet, names, start_python, wait_until, write_tiles


def start(fleet: Fleet, *arguments: str | Path, **variables: str) -> str:
    """Start a job and leave it."""
    done = fleet.run("detect", *arguments, "--no-wait", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def status(fleet: Fleet, job: str) -> dict[str, Any]:
    return dict(json.loads(fleet.run("status", job, "--json").stdout))


def fetched(path: Path) -> list[str]:
    return sorted(names(json.loads(path.read_text())["features"]))


def test_the_latest_jobs_are_listed_newest_first(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {"features": 2}, "b": {"raw": "nonsense"}})
    jobs = [start(fleet, tiles, "-e", "scripted") for _ in range(2)]
    for job in jobs:
        assert fleet.run("watch", job).returncode == 3
    table = fleet.run("jobs", "--limit", "2").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["job", *reversed(jobs)]
    assert table[1].split()[1:7] == ["completed", "scripted", "2", "1", "1", "2"]
    listed = json.loads(fleet.run("jobs", "-n", "1", "--json").stdout)
    assert [(one["job_id"], one["features"]) for one in listed] == [(jobs[1], 2)]
    for job in jobs:
        fleet.run("result", job, "-o", tmp_path / "out.geojson")


def test_the_status_is_for_people_and_for_programs(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"a": {"features": 2}, "b": {"raw": "nonsense"}})
    job = start(fleet, tiles, "-e", "scripted")
    watched = fleet.run("watch", job)
    assert f"osml-tasks retry {job}" in watched.stdout
    said = fleet.run("status", job).stdout
    assert f"job {job} on scripted: completed" in said
    assert "tiles: 2, 1 succeeded, 1 failed, 0 in flight\nfeatures: 2\n" in said
    assert f"{tiles / 'b'}: unparsable: " in said
    assert status(fleet, job)["failures"][0]["reason"] == "unparsable"
    fleet.run("result", job, "-o", tmp_path / "out.geojson")


def test_a_cancelled_job_stops_gives_its_capacity_back_and_leaves_nothing(
    fleet: Fleet, tiles: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles / "large", {f"t{number:02d}": {"after": str(gate)} for number in range(60)})
    write_tiles(tiles / "small", {"s": {}})
    few = {"ASYNC_SM_MAX_CONCURRENT_JOBS": "8"}
    client = fleet.start("detect", tiles / "large", "-e", "slow", "-o", tmp_path / "large.geojson", **few)
    assert client.stderr is not None
    job = next(line.split()[1] for line in client.stderr if line.startswith("job "))
    wait_until(lambda: fleet.stats("slow")["in_flight"] == 8)
    done = fleet.run("cancel", job)
    assert (done.returncode, f"job {job} cancelled" in done.stdout) == (0, True), done.stderr
    invoked = len(fleet.invocations("slow"))
    gate.touch()
    small = fleet.detect(tiles / "small", "-e", "slow", folder=tmp_path, **few)
    assert (small.status, names(small.features)) == (0, ["s"])
    _, err = client.communicate(timeout=PATIENCE)
    assert (client.returncode, f"job {job} cancelled" in err) == (1, True)
    assert len(fleet.invocations("slow")) == invoked + 1
    assert status(fleet, job)["state"] == "cancelled"
    again = fleet.run("cancel", job)
    assert (again.returncode, again.stderr) == (0, f"job {job} is cancelled already\n")
    wait_until(lambda: fleet.stats("slow")["in_flight"] == 0)
    wait_until(lambda: fleet.run("cleanup", "--job", job).stdout.startswith("0 deleted"))


@pytest.mark.parametrize("stage", ["--stage", "--no-stage"])
def test_a_retry_takes_only_failed_tiles_and_merges_what_they_give(
    fleet: Fleet, tiles: Path, tmp_path: Path, stage: str
) -> None:
    kind = stage.strip("-")
    good = {f"{kind}-good{number:02d}": {"features": 2} for number in range(20)}
    bad = {f"{kind}-bad{number}": {"fail_first": number + 1} for number in range(3)}
    write_tiles(tiles, good | bad)
    once = {"ASYNC_SM_MAX_RETRIES": "0", "ASYNC_SM_MAX_CONCURRENT_JOBS": "16"}
    before = len(fleet.invocations("scripted"))
    job = start(fleet, tiles, "-e", "scripted", stage, **once)
    assert fleet.run("watch", job).returncode == 3
    for left in (2, 1):
        done = fleet.run("retry", job, **once)
        assert (done.returncode, done.stdout.split()[0]) == (0, str(left + 1)), done.stderr
        assert fleet.run("watch", job).returncode == 3
        report = status(fleet, job)
        assert (report["tiles"], report["succeeded"], report["failed"]) == (23, 23 - left, left)
        assert len(report["failures"]) == left
    result, report_path = tmp_path / "out.geojson", tmp_path / "report.json"
    last = fleet.run("retry", job, "-o", result, "--report", report_path, **once)
    assert last.returncode == 0, last.stderr
    assert fetched(result) == sorted([*good, *good, *bad])
    report = json.loads(report_path.read_text())
    assert (report["state"], report["succeeded"], report["failed"], report["failures"]) == ("completed", 23, 0, [])
    assert report["features"] == 43
    assert len(fleet.invocations("scripted")) - before == 23 + 3 + 2 + 1


def test_a_retry_says_what_stands_in_its_way(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    write_tiles(tiles, {"ways-good": {"after": str(go)}, "ways-bad": {"raw": "nonsense"}})
    job = start(fleet, tiles, "-e", "scripted")
    early = fleet.run("retry", job)
    go.touch()
    assert (early.returncode, "wait for its end with osml-tasks watch" in early.stderr) == (2, True)
    kept = fleet.run("result", job, "-o", tmp_path / "out.geojson", "--keep")
    assert (kept.returncode, f"osml-tasks retry {job} -o " in kept.stderr) == (3, True), kept.stderr
    assert any("payloads" in key for key in fleet.objects())
    gone = fleet.run("result", job, "-o", tmp_path / "out.geojson")
    assert (gone.returncode, fleet.objects()) == (3, [])
    late = fleet.run("retry", job)
    assert (late.returncode, len(late.stderr.splitlines())) == (2, 1)
    assert "not in S3 any more" in late.stderr
    well = start(fleet, write_tiles(tiles / "well", {"w": {}}), "-e", "scripted")
    fleet.run("watch", well)
    nothing = fleet.run("retry", well, "-o", tmp_path / "well.geojson")
    assert (nothing.returncode, fetched(tmp_path / "well.geojson")) == (0, ["w"])
    gate = tmp_path / "gate"
    cancelled = start(fleet, write_tiles(tiles / "no", {"n": {"after": str(gate)}}), "-e", "slow")
    fleet.run("cancel", cancelled)
    gate.touch()
    assert "start it again with osml-tasks detect" in fleet.run("retry", cancelled).stderr
    wait_until(lambda: fleet.stats("slow")["in_flight"] == 0)
    wait_until(lambda: fleet.run("cleanup", "--job", cancelled).stdout.startswith("0 deleted"))


@pytest.fixture
def lonely(fleet: Fleet, tmp_path: Path) -> Iterator[tuple[Fleet, Broker]]:
    """The fleet's endpoints and buckets, with a broker of its own that may be lost."""
    with Broker(tmp_path / "broker") as broker:
        env = {**fleet.env, "CELERY_BROKER_URL": broker.url, "ASYNC_SM_MAX_CONCURRENT_JOBS": "16"}
        yield replace(fleet, env=env), broker


def work(running: ExitStack, fleet: Fleet, directory: Path) -> Any:
    return start_python(running, "workers", ["-m", "osml_tasks", "worker"], directory, fleet.env, WORKERS_READY)


def parts(fleet: Fleet, job: str) -> list[str]:
    return [key for key in fleet.objects() if f"{job}/parts/" in key]


def test_a_job_goes_on_after_the_broker_has_lost_everything(
    lonely: tuple[Fleet, Broker], tiles: Path, tmp_path: Path
) -> None:
    fleet, broker = lonely
    gate = tmp_path / "gate"
    held = {f"lost{number:03d}": {"features": 2, "after": str(gate)} for number in range(40, 100)}
    write_tiles(tiles, {f"lost{number:03d}": {"features": 2} for number in range(40)} | held)
    before = len(fleet.invocations("scripted"))
    with ExitStack() as first:
        workers = work(first, fleet, tmp_path)
        job = start(fleet, tiles, "-e", "scripted")
        wait_until(lambda: len(parts(fleet, job)) >= 2)
        workers.stop(grace=0)
    redis.Redis.from_url(broker.url).flushall()
    gate.touch()
    wait_until(lambda: fleet.stats("scripted")["in_flight"] == 0)
    assert len(fleet.invocations("scripted")) - before < 100
    lost = fleet.run("status", job)
    assert (lost.returncode, f"osml-tasks resume {job}" in lost.stderr) == (2, True)
    with ExitStack() as second:
        work(second, fleet, tmp_path)
        result = tmp_path / "out.geojson"
        done = fleet.run("resume", job, "-o", result, "--report", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert fetched(result) == sorted(f"lost{number:03d}" for number in range(100) for _ in range(2))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["tiles"], report["succeeded"], report["features"]) == (100, 100, 200)
    # What was written down, or had an answer, was not invoked again; what was in flight at the end may have been.
    assert set(Counter(fleet.invocations("scripted")[before:]).values()) == {1}


def test_an_ended_job_whose_records_are_lost_is_found_again_and_can_be_retried(
    lonely: tuple[Fleet, Broker], tiles: Path, tmp_path: Path
) -> None:
    fleet, broker = lonely
    write_tiles(tiles, {"ended-good": {}, "ended-bad": {"fail_first": 2}, "ended-worse": {"raw": "nonsense"}})
    with ExitStack() as running:
        work(running, fleet, tmp_path)
        job = start(fleet, tiles, "-e", "scripted", ASYNC_SM_MAX_RETRIES="0")
        assert fleet.run("watch", job).returncode == 3
        assert fleet.run("retry", job, ASYNC_SM_MAX_RETRIES="0").returncode == 0
        assert fleet.run("watch", job).returncode == 3
        redis.Redis.from_url(broker.url).flushall()
        found = fleet.run("resume", job)
        assert (found.returncode, "0 go on" in found.stdout) == (0, True), found.stderr
        report = status(fleet, job)
        assert (report["state"], report["succeeded"], report["failed"]) == ("completed", 1, 2)
        result = tmp_path / "out.geojson"
        done = fleet.run("retry", job, "-o", result)
    assert (done.returncode, fetched(result)) == (3, ["ended-bad", "ended-good"]), done.stderr


def test_a_job_that_is_at_work_is_resumed_only_by_force(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {f"force{number}": {"after": str(gate)} for number in range(12)})
    job = start(fleet, tiles, "-e", "slow")
    refused = fleet.run("resume", job)
    assert (refused.returncode, "or add --force" in refused.stderr) == (2, True)
    forced = fleet.run("resume", job, "--force")
    assert forced.returncode == 0, forced.stderr
    gate.touch()
    done = fleet.run("result", job, "-o", tmp_path / "out.geojson")
    assert (done.returncode, len(fetched(tmp_path / "out.geojson"))) == (0, 12), done.stderr
    assert "already: there is nothing to resume" in fleet.run("resume", job).stderr
    nowhere = fleet.run("resume", "20200101-000000-00000000")
    assert (nowhere.returncode, "neither the broker nor S3" in nowhere.stderr) == (2, True)


@pytest.fixture
def _apps(here: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may have published to another broker before."""
    app = new_app(here.env["CELERY_BROKER_URL"])
    monkeypatch.setattr("osml_tasks.connections.client_app", lambda: app)
    monkeypatch.setattr("osml_tasks.preflight.client_app", lambda: app)


def test_workers_are_waited_for_only_until_there_are_enough(here: Fleet) -> None:
    def polls(served: Mapping[str, set[str]]) -> bool:
        return any("osml.poll" in queues for queues in served.values())

    # Only the test's own time limit would end the wait for more.
    assert polls(listening(100_000, new_app(here.env["CELERY_BROKER_URL"]), enough=polls))


@pytest.mark.usefixtures("_apps")
def test_the_same_from_python(here: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {"py-good": {}, "py-bad": {"fail_first": 1}})
    config = osml_tasks.AsyncEndpointConfig(max_retries=0)
    started = osml_tasks.detect(tiles, endpoint="scripted", config=config)
    job = osml_tasks.open_job(started.job_id)
    job.wait()
    assert [status.job.job_id for status in osml_tasks.list_jobs(limit=1)] == [job.job_id]
    assert job.retry() == 1
    assert sorted(names(job.result()["features"])) == ["py-bad", "py-good"]
    assert job.retry() == 0
    with pytest.raises(ExtensionConfigurationError, match="completed already"):
        job.resume()
    job.discard()
    with pytest.raises(JobNotFoundError):
        osml_tasks.open_job("20200101-000000-00000000").cancel()
    assert job.status().state is JobState.COMPLETED
    assert not job.cancel()


@pytest.mark.usefixtures("_apps")
def test_what_a_retry_needs_goes_with_the_result(here: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {"need-bad": {"raw": "nonsense"}})
    job = osml_tasks.detect(tiles, endpoint="scripted")
    job.wait()
    kept = [key.rsplit("/", 1)[-1] for key in here.objects()]
    assert {"result.geojson", "report.json", "tiles.jsonl", "job.json", "0000000"} <= set(kept)
    assert all(key.startswith(f"{INPUTS}/") for key in here.objects())
    job.discard()
    with pytest.raises(ExtensionRuntimeError, match="not in S3 any more"):
        job.retry()
