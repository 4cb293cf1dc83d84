"""What is left when a job has ended: the files that the caller asked for, and an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from osml_tasks.cli import EXIT_JOB_FAILED, EXIT_TILES_FAILED, EXIT_USAGE
from osml_tasks.errors import ExtensionRuntimeError
from osml_tasks.jobs import JobState

if TYPE_CHECKING:
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.records import JobStatus


def finish(handle: JobHandle, status: JobStatus, output: Path | None, report_path: Path | None) -> int:
    """Fetch result and report of an ended job, remove them from S3, and say how it went."""
    report = handle.report()
    try:
        if status.state is JobState.COMPLETED and output is not None:
            handle.save_result(output)
            report["result"] = str(output)
        if report_path is not None:
            report_path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise ExtensionRuntimeError(
            f"{error.filename or output} cannot be written: {error.strerror}. The result stays in S3; "
            f"fetch it with: osml-tasks result {handle.job_id} -o ANOTHER.geojson"
        ) from error
    handle.discard()
    return _say(status, report, output)


def _say(status: JobStatus, report: dict[str, Any], output: Path | None) -> int:
    if status.state is not JobState.COMPLETED:
        click.echo(f"osml-tasks: job {status.job.job_id} {status.state}: {status.error}", err=True)
        return EXIT_USAGE if status.misconfigured else EXIT_JOB_FAILED
    click.echo(f"{report['features']} features from {report['succeeded']} of {report['tiles']} tiles in {output}")
    if not report["failed"]:
        return 0
    for failure in report["failures"][:3]:
        click.echo(f"osml-tasks: {failure['tile']}: {failure['reason']}: {failure['error']}", err=True)
    click.echo(f"osml-tasks: {report['failed']} tiles failed; --report FILE lists them all", err=True)
    return EXIT_TILES_FAILED
