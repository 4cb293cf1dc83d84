"""``osml-tasks retry``: another go at failed tiles."""

from __future__ import annotations

from pathlib import Path

import click

from osml_tasks.cli.outcome import check_writable, come_back, output_options
from osml_tasks.result_files.target import Target


@click.command
@click.argument("job_id", metavar="JOB")
@output_options(required=False)
def command(job_id: str, output: Target | None, report: Path | None, keep: bool) -> int:
    """Try the failed tiles of the completed JOB again, merged into its result."""
    from osml_tasks.job_handle import open_job

    check_writable(output, report, of_images=True)
    handle = open_job(job_id)
    tiles = handle.retry()
    if tiles:
        click.echo(f"{tiles} failed tiles of job {job_id} are tried again")
    else:
        click.echo(f"job {job_id} has no failed tile")
        if output is None:
            return 0
    return come_back(handle, output, report, keep)
