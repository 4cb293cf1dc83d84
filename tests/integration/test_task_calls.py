"""Jobs from Python: the handle, and the task that an application calls by name without this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from osml_tasks.celery import new_app
from osml_tasks.celery_settings import QUEUES
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.connections import connect
from osml_tasks.detection import start_job
from osml_tasks.errors import JobFailedError, JobTimeoutError
from osml_tasks.job_handle import JobHandle
from osml_tasks.jobs import JobState
from osml_tasks.redis_keys import PREFIX
from osml_tasks.sources import find_tiles
from tests.integration.fleet import PATIENCE, Fleet, names, strange_app, wait_until, write_tiles


def started(tiles: Path, endpoint: str = "scripted", **options: Any) -> JobHandle:
    connections = connect(AsyncEndpointConfig(**options), new_app())
    return start_job(connections, find_tiles([str(tiles)]), endpoint)


@pytest.mark.usefixtures("here")
def test_a_handle_tells_status_progress_result_and_report(tiles: Path) -> None:
    handle = started(write_tiles(tiles, {f"t{number}": {"features": 2} for number in range(4)}))
    assert handle.wait(timeout=PATIENCE).state is JobState.COMPLETED
    progress = handle.progress()
    assert (progress.invoked, progress.succeeded, progress.failed, progress.features) == (4, 4, 0, 8)
    assert len(handle.result()["features"]) == 8
    assert handle.report()["succeeded"] == 4
    assert not handle.cancel()
    handle.discard()


def test_a_cancelled_job_invokes_nothing_more_and_gives_its_capacity_back(here: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {f"t{number:03d}": {} for number in range(200)})
    handle = started(tiles, "slow", max_concurrent_jobs=8)
    wait_until(lambda: handle.progress().succeeded > 0)
    with pytest.raises(JobTimeoutError, match="it goes on"):
        handle.wait(timeout=0.01)
    assert handle.cancel()
    status = handle.wait(timeout=PATIENCE)
    assert (status.state, status.error) == (JobState.CANCELLED, "its caller cancelled it")
    with pytest.raises(JobFailedError, match="cancelled"):
        handle.result()
    wait_until(lambda: here.stats("slow")["in_flight"] == 0)
    settled = here.stats("slow")["invocations"]
    another = started(write_tiles(tiles / "another", {"a": {}}), "slow", max_concurrent_jobs=8)
    another.wait(timeout=PATIENCE)
    assert here.stats("slow")["invocations"] == settled + 1
    another.discard()
    wait_until(lambda: here.run("cleanup", "--job", handle.job_id).stdout.startswith("0 deleted"))


@pytest.fixture
def stranger(here: Fleet) -> Iterator[Celery]:
    """An application that does not know this package: it has the broker, and a name."""
    url = here.env["CELERY_BROKER_URL"]
    app = strange_app(url)
    yield app
    app.close()


def call(app: Celery, sources: Any, **arguments: Any) -> Any:
    return app.send_task("osml_tasks.detect", args=[sources], kwargs=arguments, queue="osml.submit")


def test_an_application_calls_by_name_and_gets_the_report(here: Fleet, stranger: Celery, tiles: Path) -> None:
    write_tiles(tiles, {f"t{number:02d}": {"features": 2} for number in range(60)} | {"z": {"raw": "no JSON"}})
    report = call(stranger, str(tiles), endpoint="scripted", max_retries=0).get(timeout=PATIENCE)
    assert (report["state"], report["succeeded"], report["failed"], report["features"]) == ("completed", 60, 1, 120)
    assert [failure["reason"] for failure in report["failures"]] == ["unparsable"]
    assert report["failures_left_out"] == 0
    assert report["result"].startswith("s3://fleet-in/")
    stranger.send_task("osml_tasks.cleanup", kwargs={"job": report["job_id"]}, queue="osml.cleanup")


def test_it_takes_objects_and_prefixes(here: Fleet, stranger: Celery) -> None:
    keys = [f"mine/{number}" for number in range(3)]
    for key in keys:
        here.s3.put_object(Bucket="fleet-elsewhere", Key=key, Body=b'{"name": "o"}')
    sources = ["s3://fleet-elsewhere/mine/", "s3://fleet-elsewhere/mine/1"]
    report = call(stranger, sources, endpoint="scripted").get(timeout=PATIENCE)
    assert (report["tiles"], report["succeeded"]) == (3, 3)
    stranger.send_task("osml_tasks.cleanup", kwargs={"job": report["job_id"]}, queue="osml.cleanup")
    for key in keys:
        here.s3.delete_object(Bucket="fleet-elsewhere", Key=key)


@pytest.mark.parametrize(
    ("sources", "arguments", "expected"),
    [
        ("s3://fleet-elsewhere/nothing/", {}, "has no tiles"),
        ("/etc/passwd", {}, "ASYNC_SM_TILE_ROOTS"),
        ("/etc/*", {}, "ASYNC_SM_TILE_ROOTS"),
        ("*/../../secret/*", {}, "goes up a directory"),
        ("s3://fleet-in/x", {"aws_secret_access_key": "sesame"}, "name a role with assume_role_arn"),
        ("s3://fleet-in/x", {"assumed_credentials": {"AccessKeyId": "x"}}, "name a role with assume_role_arn"),
        ("s3://fleet-in/x", {"input_bucket": "another"}, "not an option of a job"),
        ("s3://fleet-in/x", {"max_retries": -1}, "max_retries"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_done_is_the_tasks_failure(
    stranger: Celery, sources: str, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(Exception, match=expected) as caught:
        call(stranger, sources, **({"endpoint": "scripted"} | arguments)).get(timeout=PATIENCE)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("glob", ["{root}*/**", "{root}/*/**", "{root}/*/*", "{root}/../*/*", "{root}/link-*"])
def test_a_glob_shows_nothing_outside_of_the_roots(here: Fleet, stranger: Celery, tiles: Path, glob: str) -> None:
    secret = Path(f"{here.tiles}-secret")
    secret.mkdir(exist_ok=True)
    (secret / "hidden-name").write_text("x")
    link = Path(here.tiles) / "link-out"
    link.symlink_to(secret)
    try:
        with pytest.raises(Exception, match=r"ASYNC_SM_TILE_ROOTS|has no tiles|goes up a directory") as caught:
            call(stranger, glob.format(root=here.tiles), endpoint="no-such-endpoint").get(timeout=30)
    finally:
        link.unlink()
    assert "hidden" not in str(caught.value)


def test_a_job_that_fails_is_the_tasks_failure(here: Fleet, stranger: Celery, tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    with pytest.raises(Exception, match="check the endpoint's name and region"):
        call(stranger, str(tiles), endpoint="no-such-endpoint").get(timeout=PATIENCE)


def test_the_caller_needs_nothing_of_this_package(here: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {"a": {"features": 3}})
    url = here.env["CELERY_BROKER_URL"]
    script = f"""
import sys
from celery import Celery
app = Celery(broker={url!r}, backend={url!r})
app.conf.broker_transport_options = app.conf.result_backend_transport_options = {{"global_keyprefix": {PREFIX!r}}}
sent = app.send_task("osml_tasks.detect", args=[{str(tiles)!r}], kwargs={{"endpoint": "scripted"}}, queue="osml.submit")
report = sent.get(timeout={PATIENCE})
app.send_task("osml_tasks.cleanup", kwargs={{"job": report["job_id"]}}, queue="osml.cleanup")
print(report["features"], "osml_tasks" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.split() == ["3", "False"], done.stderr


def is_idle(app: Celery) -> bool:
    """Whether no message waits, and no worker has one."""
    if any(app.backend.client.llen(PREFIX + name) for name in QUEUES):
        return False
    inspect = app.control.inspect(timeout=20.0, limit=3)  # the fleet's workers
    held = (inspect.active(), inspect.reserved(), inspect.scheduled())
    return all(answers is not None and not any(answers.values()) for answers in held)


def test_a_call_that_is_delivered_twice_starts_one_job(
    here: Fleet, stranger: Celery, tiles: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    write_tiles(tiles, {"twice": {"after": str(gate)}})
    before = len(here.invocations("scripted"))
    for _ in range(2):
        sent = stranger.send_task(
            "osml_tasks.detect",
            args=[str(tiles)],
            kwargs={"endpoint": "scripted"},
            queue="osml.submit",
            task_id=f"twice-{here.endpoints_url}",
        )
    wait_until(lambda: not stranger.backend.client.llen(f"{PREFIX}osml.submit"))
    gate.touch()
    report = sent.get(timeout=PATIENCE)
    wait_until(lambda: is_idle(stranger))
    assert (report["features"], len(here.invocations("scripted")) - before) == (1, 1)
    stranger.send_task("osml_tasks.cleanup", kwargs={"job": report["job_id"]}, queue="osml.cleanup")


@pytest.mark.usefixtures("here")
def test_bytes_and_mappings_are_tiles_as_well(tiles: Path) -> None:
    write_tiles(tiles, {"a": {}})
    connections = connect(AsyncEndpointConfig(), new_app())
    sources = find_tiles([b'{"name": "b"}', {"image_path": tiles / "a"}, tiles])
    handle = start_job(connections, sources, "scripted", stage=False)
    assert names(handle.result()["features"]) == ["b", "a"]
    handle.discard()
