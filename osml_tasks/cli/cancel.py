"""``osml-tasks cancel``: stop a job."""

from __future__ import annotations

import click


@click.command
@click.argument("job_id", metavar="JOB")
def command(job_id: str) -> int:
    """End JOB: nothing more is invoked, its capacity is given back, its objects are deleted."""
    from osml_tasks.job_handle import open_job

    handle = open_job(job_id)
    cancelled = handle.cancel()
    status = handle.status()
    if cancelled:
        click.echo(f"job {job_id} cancelled, with {status.progress.finished} of {status.job.tiles} tiles finished")
    else:
        click.echo(f"job {job_id} is {status.state} already", err=True)
    return 0
