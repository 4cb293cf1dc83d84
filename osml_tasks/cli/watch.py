"""``osml-tasks watch``: follow a job that runs already."""

from __future__ import annotations

import click

from osml_tasks.cli import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_TILES_FAILED


@click.command
@click.argument("job_id", metavar="JOB")
def command(job_id: str) -> int:
    """Show the progress of JOB until it ends. The result stays where it is."""
    from osml_tasks.cli.progress import follow
    from osml_tasks.job_handle import open_job
    from osml_tasks.jobs import JobState

    handle = open_job(job_id)
    handle.status()
    try:
        status = follow(handle)
    except KeyboardInterrupt:
        click.echo(f"osml-tasks: interrupted; job {job_id} goes on", err=True)
        return EXIT_INTERRUPTED
    if status.state is not JobState.COMPLETED:
        click.echo(f"osml-tasks: job {job_id} {status.state}: {status.error}", err=True)
        return EXIT_JOB_FAILED
    click.echo(f"job {job_id} completed: osml-tasks result {job_id} -o OUT.geojson fetches its result")
    if failed := status.progress.failed:
        click.echo(f"{failed} tiles failed: osml-tasks retry {job_id} tries them again")
    return EXIT_TILES_FAILED if status.progress.failed else 0
