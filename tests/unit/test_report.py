"""The report, from the records of a job and its lists of failures."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobOptions, JobState, Progress, Reason, Round
from osml_tasks.report import TileFailure, report_lines, report_of

OPTIONS = JobOptions(3600.0, 5.0, 60.0, 1.5, 3, 100, 128_000, "immediate")
JOB = Job("job-1", "ships", (Round(20, 10),), 1e9, "tiles", "in/", "outputs", OPTIONS)
STATUS = JobStatus(JOB, JobState.COMPLETED, Progress(20, 18, 2, 99, 2), 1e9, 1e9 + 60.9, None, False, False)

failures = st.builds(
    TileFailure,
    index=st.integers(0, 10**8),
    tile=st.text(),
    reason=st.sampled_from(Reason),
    error=st.text(),
    attempts=st.integers(0, 101),
)


def test_a_report_says_what_the_contract_says() -> None:
    report = report_of(STATUS, "s3://tiles/in/job-1/result.geojson")
    assert report.pop("error") is None
    assert report == {
        "job_id": "job-1",
        "endpoint": "ships",
        "state": "completed",
        "tiles": 20,
        "succeeded": 18,
        "failed": 2,
        "features": 99,
        "started": "2001-09-09T01:46:40Z",
        "finished": "2001-09-09T01:47:40Z",
        "result": "s3://tiles/in/job-1/result.geojson",
        "failures": [],
    }


def test_a_report_of_a_job_that_has_not_begun_has_no_times() -> None:
    queued = JobStatus(JOB, JobState.QUEUED, Progress(), None, None, None, False, False)
    report = report_of(queued, None)
    assert (report["started"], report["finished"], report["result"]) == (None, None, None)


def test_reasons_are_those_of_the_contract() -> None:
    assert {reason.value for reason in Reason} == {
        "model",
        "timeout",
        "unparsable",
        "input",
        "throttled",
        "cancelled",
    }


@given(st.lists(failures, max_size=5))
def test_a_report_lists_every_failure(found: list[TileFailure]) -> None:
    report = json.loads(b"".join(report_lines(report_of(STATUS, None), found)))
    assert report == report_of(STATUS, None) | {
        "failures": [
            {"tile": one.tile, "reason": one.reason.value, "error": one.error, "attempts": one.attempts}
            for one in found
        ]
    }


@given(failures)
def test_a_failure_is_one_line(failure: TileFailure) -> None:
    line = failure.to_json()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert TileFailure.from_json(line) == failure
