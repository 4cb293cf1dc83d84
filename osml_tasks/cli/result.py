"""``osml-tasks result``: fetch the result of a job that was started before."""

from __future__ import annotations

from pathlib import Path

import click

from osml_tasks.cli.outcome import check_writable, come_back, output_options
from osml_tasks.result_files.target import Target


@click.command
@click.argument("job_id", metavar="JOB")
@output_options(required=True)
def command(job_id: str, output: Target, report: Path | None, keep: bool) -> int:
    """Wait for JOB, write its features and remove them from S3."""
    from osml_tasks.job_handle import open_job

    check_writable(output, report, of_images=True)
    handle = open_job(job_id)
    handle.status()
    return come_back(handle, output, report, keep)
