"""What workers measure: one line of CloudWatch's embedded metric format a shard, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.crew import ALL, Crew, numbered
from tests.integration.fleet import Fleet, wait_until, write_tiles


def emitted(fleet: Fleet, job_id: str) -> list[dict[str, Any]]:
    """The lines that workers have written for a job, each parsed as CloudWatch would."""
    lines = [line for line in fleet.worker_log().splitlines() if line.startswith("{") and job_id in line]
    return [json.loads(line) for line in lines]


def test_each_shard_is_one_line_with_operation_and_model_name(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {f"m{number:02d}": {"features": 2} for number in range(59)} | {"metrics-bad": {"fail_first": 9}})
    outcome = fleet.detect(tiles, "-e", "scripted", "--no-stage", folder=tmp_path, ASYNC_SM_MAX_RETRIES="1")
    job = outcome.report["job_id"]
    wait_until(lambda: len(emitted(fleet, job)) == 3)
    lines = emitted(fleet, job)
    for line in lines:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert (directive["Namespace"], directive["Dimensions"]) == ("OSML/Tasks", [["Operation", "ModelName"]])
        assert (line["Operation"], line["ModelName"]) == ("AsyncInference", "scripted")
        assert {metric["Name"] for metric in directive["Metrics"]} >= {
            "QueueTime",
            "PollingAttempts",
            "InvocationDuration",
        }
    assert sorted(line["Shard"] for line in lines) == [f"{job}/{shard:05d}" for shard in range(3)]
    totals = {
        name: sum(line.get(name, 0) for line in lines)
        for name in ("TilesSucceeded", "TilesFailed", "InvocationCount", "InlineCount", "RetryCount", "FeatureCount")
    }
    assert totals == {
        "TilesSucceeded": 59,
        "TilesFailed": 1,
        "InvocationCount": 61,
        "InlineCount": 61,
        "RetryCount": 1,
        "FeatureCount": 118,
    }
    assert sum(line["S3DownloadSize"] for line in lines) > 59 * 100


def test_uploads_are_measured_where_they_happen(fleet: Fleet, tiles: Path, tmp_path: Path) -> None:
    write_tiles(tiles, {"large": {"padding": "x" * 200_000}, "small": {}})
    outcome = fleet.detect(tiles, "-e", "scripted", "--no-stage", folder=tmp_path)
    wait_until(lambda: len(emitted(fleet, outcome.report["job_id"])) == 1)
    (line,) = emitted(fleet, outcome.report["job_id"])
    assert (line["S3UploadCount"], line["S3UploadSize"], line["InlineCount"]) == (
        1,
        (tiles / "large").stat().st_size,
        1,
    )
    assert line["S3UploadDuration"] > 0


@pytest.mark.parametrize(
    ("environment", "pool"), [("Local", "prefork"), ("Local", "solo"), ("Lambda", "threads"), ("", "prefork")]
)
def test_a_plain_celery_worker_writes_them_as_they_are(workers: Crew, tiles: Path, environment: str, pool: str) -> None:
    write_tiles(tiles, numbered(60))
    worker = workers.start("all", ALL, 2, "--pool", pool, AWS_EMF_ENVIRONMENT=environment)

    def lines() -> list[str]:
        return [line for line in worker.process.log_text().splitlines() if "_aws" in line]

    with workers.job(tiles, "scripted") as job:
        job.wait(60)
        wait_until(lambda: len(lines()) == 3)
    assert sum(json.loads(line)["TilesSucceeded"] for line in lines()) == 60
