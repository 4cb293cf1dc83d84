"""What is left when a job has ended: the files that the caller asked for, and an exit status."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from osml_tasks.cli import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_TILES_FAILED, EXIT_USAGE
from osml_tasks.cli.progress import follow
from osml_tasks.errors import (
    ExtensionConfigurationError,
    ExtensionRuntimeError,
    ImageReadError,
    S3OperationError,
    VectorFileError,
)
from osml_tasks.jobs import JobState
from osml_tasks.one_line import in_one_line
from osml_tasks.result_files.target import FileFormat, Target, parse_target
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    from osml_tasks.cli.views import Views
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.job_status import JobStatus

Command = TypeVar("Command", bound=Callable[..., Any])

_FORMAT = f"{__name__}.format"


def output_options(required: bool) -> Callable[[Command], Command]:
    """The options that say where result and report go, and whether they stay in S3 as well.

    The command gets ``output`` as a :class:`~osml_tasks.result_files.target.Target`, its format included.
    """
    options = (
        click.option(
            "--output",
            "-o",
            required=required,
            callback=_as_target,
            help="Where the features go: a path or s3:// URI; its ending says the format.",
        ),
        click.option(
            "--format",
            type=click.Choice([one.value for one in FileFormat]),
            is_eager=True,
            expose_value=False,
            callback=_keep_format,
            help="Their format, where no ending says it, as for a directory.  [default: geojson]",
        ),
        click.option("--report", type=click.Path(path_type=Path), help="Where the job's report goes, as JSON."),
        click.option("--keep", is_flag=True, help="Leave everything in S3 if tiles failed, so that retry can go on."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _keep_format(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_FORMAT] = value


def _as_target(context: click.Context, _: click.Parameter, value: str | None) -> Target | None:
    if value is None and context.meta[_FORMAT] is not None:
        raise click.UsageError("--format is of the output: add -o")
    return None if value is None else parse_target(value, context.meta[_FORMAT])


def check_writable(output: Target | None, *files: Path | None, of_images: bool = False) -> None:
    """Find out before the work whether its outcome can be written.

    :param files: others that are to be written.
    :param of_images: whether there may be a file for each image.
    :raises ExtensionConfigurationError: it cannot.
    :raises S3OperationError: the output's bucket is not there, or not for us.
    """
    if output is not None:
        output.check_extra()
        if not of_images:
            refuse_directory(output)
        _check_place(output)
    for file in files:
        if file is not None:
            _check_file(file)


def refuse_directory(output: Target | None) -> None:
    """Refuse an output that takes a file of each image, where there are none.

    :raises ExtensionConfigurationError: it is one.
    """
    if output is not None and output.per_image:
        raise ExtensionConfigurationError(f"{output.name!r} is a directory: name a file")


def _check_place(output: Target) -> None:
    if not isinstance(output.place, Path):
        _check_bucket(output.place)
    elif output.per_image and output.place.is_dir():
        _check_access(output.place, output.place)
    elif output.per_image and output.place.exists():
        raise ExtensionConfigurationError(f"{output.name!r} is to be a directory, and is a file: name another")
    else:
        _check_file(output.place)


def _check_bucket(uri: S3Uri) -> None:
    from osml_tasks.accounts import session_of
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.s3 import S3Manager
    from osml_tasks.s3_settings import S3Settings

    config = AsyncEndpointConfig()
    S3Manager(session_of(config), S3Settings.of(config)).validate_bucket(uri.bucket)


def _check_file(path: Path) -> None:
    try:
        is_directory = path.is_dir()
    except OSError as error:
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}") from None
    if is_directory:
        raise ExtensionConfigurationError(f"{str(path)!r} is a directory: name a file")
    if not path.parent.is_dir():
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: there is no directory {path.parent}")
    _check_access(path, path if path.exists() else path.parent)


def _check_access(path: Path, existing: Path) -> None:
    if not os.access(existing, os.W_OK):
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: permission denied")


def come_back(handle: JobHandle, output: Target | None, report: Path | None, keep: bool) -> int:
    """Follow a job that runs already, and finish it; without an output, leave it to itself."""
    if output is None:
        click.echo(f"follow it with: osml-tasks watch {handle.job_id}")
        return 0
    if not handle.status().job.images:
        refuse_directory(output)
    try:
        return finish(handle, follow(handle), output, report, keep=keep)
    except KeyboardInterrupt:
        click.echo(f"osml-tasks: interrupted; job {handle.job_id} goes on", err=True)
        return EXIT_INTERRUPTED


def finish(
    handle: JobHandle,
    status: JobStatus,
    output: Target | None,
    report_path: Path | None,
    *,
    keep: bool = False,
    views: Views | None = None,
) -> int:
    """Fetch result and report of an ended job, remove them from S3, and say how it went.

    :param keep: leave everything in S3 if tiles failed.
    :param views: what is written besides, for people to look at.
    """
    report = handle.report()
    images = [image["location"] for image in report.get("images", ())]
    if status.state is JobState.COMPLETED and output is not None:
        if not images:
            refuse_directory(output)
        with _result_stays(handle.job_id, output.name):
            handle.save_result(output.name, file_format=output.format.value, images=images)
        report["result"] = output.name
        if views is not None:
            _write_views(handle, views, output)
    if report_path is not None:
        with _result_stays(handle.job_id, str(report_path)):
            report_path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    kept = keep and status.state is JobState.COMPLETED and report["failed"] > 0
    if not (kept or status.is_unfinished_retry):
        handle.discard()
    return _say(status, report, output.name if output else None, kept)


def _write_views(handle: JobHandle, views: Views, output: Target) -> None:
    with tempfile.TemporaryDirectory(prefix="osml-views-") as directory, _result_stays(handle.job_id, "the map"):
        collection = output.local_collection
        if collection is None:
            collection = Path(directory, "result.geojson")
            handle.save_result(collection)
        for path in views.write(collection):
            click.echo(f"{path} is written")


@contextmanager
def _result_stays(job_id: str, name: str) -> Iterator[None]:
    """Say of whatever keeps a file from being written that nothing is lost by it.

    :raises ExtensionRuntimeError: in place of it.
    """
    try:
        yield
    except (OSError, S3OperationError, VectorFileError, ImageReadError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ExtensionRuntimeError(
            f"{name} cannot be written: {why}. The result stays in S3; "
            f"fetch it with: osml-tasks result {job_id} -o ANOTHER.geojson"
        ) from error


def _say(status: JobStatus, report: dict[str, Any], output: str | None, kept: bool) -> int:
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
