"""``osml-tasks resume``: go on after the broker was lost."""

from __future__ import annotations

from pathlib import Path

import click

from osml_tasks.cli.outcome import check_writable, come_back, output_options
from osml_tasks.result_files.target import Target


@click.command
@click.argument("job_id", metavar="JOB")
@click.option("--force", is_flag=True, help="Even if JOB seems to be at work; some steps are then done twice.")
@output_options(required=False)
def command(job_id: str, force: bool, output: Target | None, report: Path | None, keep: bool) -> int:
    """Go on with JOB after the broker has lost its messages or records, from what S3 still has."""
    from osml_tasks.job_handle import open_job

    check_writable(output, report, of_images=True)
    handle = open_job(job_id)
    found = handle.resume(force=force)
    click.echo(
        f"job {job_id}: {found.finished} shards were finished, {found.shards} go on, "
        f"{found.answers} tiles of these are answered already"
    )
    return come_back(handle, output, report, keep)
