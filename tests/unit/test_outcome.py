"""What the command line does when a job has ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from osml_tasks.cli import EXIT_JOB_FAILED
from osml_tasks.cli.outcome import check_writable, finish
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError, VectorFileError
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Job, JobOptions, JobState, Progress, Round
from osml_tasks.result_files.target import parse_target

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


def test_a_directory_is_for_images_and_made_where_it_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in (str(tmp_path), f"{tmp_path}/new/"):
        check_writable(parse_target(name), of_images=True)
        with pytest.raises(ExtensionConfigurationError, match="is a directory: name a file"):
            check_writable(parse_target(name))
    with pytest.raises(ExtensionConfigurationError, match="there is no directory"):
        check_writable(parse_target(f"{tmp_path}/no/new/"), of_images=True)
    with pytest.raises(ExtensionConfigurationError, match="is to be a directory, and is a file"):
        check_writable(parse_target(f"{tmp_path}/file/"), of_images=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [VectorFileError("too many names"), OSError(28, "No space left on device")])
def test_a_result_that_cannot_be_written_stays(error: Exception) -> None:
    handle = Mock(job_id="job-1", **{"report.return_value": {"failed": 0}, "save_result.side_effect": error})
    status = JobStatus(JOB, JobState.COMPLETED, Progress(), None, 1.0, None, False, False)
    with pytest.raises(ExtensionRuntimeError) as caught:
        finish(handle, status, parse_target("out.fgb"), None)
    assert "out.fgb cannot be written: " in str(caught.value)
    assert "osml-tasks result job-1 -o ANOTHER.geojson" in str(caught.value)
    assert not handle.discard.called
