"""What the command line does when a job has ended."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest

from osml_tasks.cli import EXIT_JOB_FAILED
from osml_tasks.cli.outcome import finish
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobOptions, JobState, Progress, Round

OPTIONS = JobOptions(3600.0, 5.0, 60.0, 1.5, 3, 100, 128_000, "immediate")
JOB = Job("job-1", "ships", (Round(20, 10),), 1e9, "tiles", "in/", "outputs", OPTIONS)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_retry_that_fails_or_is_cancelled_is_not_thrown_away(
    capsys: pytest.CaptureFixture[str], rounds: int, state: JobState
) -> None:
    handle = Mock(**{"report.return_value": {"failed": 0}})
    job = replace(JOB, rounds=JOB.rounds * rounds)
    status = JobStatus(job, state, Progress(), None, 1.0, "no such endpoint", False, False)
    assert finish(handle, status, None, None) == EXIT_JOB_FAILED
    assert handle.discard.called == (rounds == 1)
    assert ("osml-tasks resume job-1" in capsys.readouterr().err) == (rounds == 2)
