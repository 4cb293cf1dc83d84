"""What is left when a job has ended: the files that the caller asked for, and an exit status."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from osml_tasks.cli import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_TILES_FAILED, EXIT_USAGE
from osml_tasks.cli.progress import follow
from osml_tasks.errors import ExtensionConfigurationError, ExtensionRuntimeError
from osml_tasks.jobs import JobState
from osml_tasks.one_line import in_one_line

if TYPE_CHECKING:
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.job_status import JobStatus

Command = TypeVar("Command", bound=Callable[..., Any])


def output_options(required: bool) -> Callable[[Command], Command]:
    """The options that say where result and report go, and whether they stay in S3 as well."""
    file = click.Path(path_type=Path)
    options = (
        click.option("--output", "-o", required=required, type=file, help="Where the GeoJSON goes."),
        click.option("--report", type=file, help="Where the job's report goes, as JSON."),
        click.option("--keep", is_flag=True, help="Leave everything in S3 if tiles failed, so that retry can go on."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_writable(*paths: Path | None) -> None:
    """Find out before the work whether its outcome can be written.

    :raises ExtensionConfigurationError: it cannot.
    """
    for path in paths:
        if path is not None:
            _check_writable(path)


def _check_writable(path: Path) -> None:
    try:
        is_directory = path.is_dir()
    except OSError as error:
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}") from None
    if is_directory:
        raise ExtensionConfigurationError(f"{str(path)!r} is a directory: name a file")
    if not path.parent.is_dir():
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: permission denied")


def come_back(handle: JobHandle, output: Path | None, report: Path | None, keep: bool) -> int:
    """Follow a job that runs already, and finish it; without an output, leave it to itself."""
    if output is None:
        click.echo(f"follow it with: osml-tasks watch {handle.job_id}")
        return 0
    try:
        return finish(handle, follow(handle), output, report, keep=keep)
    except KeyboardInterrupt:
        click.echo(f"osml-tasks: interrupted; job {handle.job_id} goes on", err=True)
        return EXIT_INTERRUPTED


def finish(
    handle: JobHandle, status: JobStatus, output: Path | None, report_path: Path | None, *, keep: bool = False
) -> int:
    """Fetch result and report of an ended job, remove them from S3, and say how it went.

    :param keep: leave everything in S3 if tiles failed.
    """
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
    kept = keep and status.state is JobState.COMPLETED and report["failed"] > 0
    if not (kept or status.is_unfinished_retry):
        handle.discard()
    return _say(status, report, output, kept)


def _say(status: JobStatus, report: dict[str, Any], output: Path | None, kept: bool) -> int:
    if status.state is not JobState.COMPLETED:
        click.echo(f"osml-tasks: job {status.job.job_id} {status.state}: {status.error}", err=True)
        if status.is_unfinished_retry:
            click.echo(f"osml-tasks: go on with it with: osml-tasks resume {status.job.job_id}", err=True)
        return EXIT_USAGE if status.misconfigured else EXIT_JOB_FAILED
    click.echo(f"{report['features']} features from {report['succeeded']} of {report['tiles']} tiles in {output}")
    if not report["failed"]:
        return 0
    for failure in report["failures"][:3]:
        line = in_one_line(f"{failure['tile']}: {failure['reason']}: {failure['error']}")
        click.echo(f"osml-tasks: {line}", err=True)
    click.echo(f"osml-tasks: {report['failed']} tiles failed; --report FILE lists them all", err=True)
    if kept:
        job_id = status.job.job_id
        click.echo(
            f"osml-tasks: try them again with: osml-tasks retry {job_id} -o {output}; "
            f"remove what is kept for that with: osml-tasks cleanup --job {job_id}",
            err=True,
        )
    return EXIT_TILES_FAILED
