"""``osml-tasks result``: fetch the result of a job that was started before."""

from __future__ import annotations

from pathlib import Path

import click

from osml_tasks.cli import EXIT_INTERRUPTED


@click.command
@click.argument("job_id", metavar="JOB")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Where the GeoJSON goes.")
@click.option("--report", type=click.Path(path_type=Path), help="Where the job's report goes, as JSON.")
def command(job_id: str, output: Path, report: Path | None) -> int:
    """Wait for JOB, write its features and remove them from S3."""
    from osml_tasks.cli.detect import check_writable
    from osml_tasks.cli.jobs import handle_of
    from osml_tasks.cli.outcome import finish
    from osml_tasks.cli.progress import follow

    for path in (output, report):
        check_writable(path)
    handle = handle_of(job_id)
    try:
        return finish(handle, follow(handle), output, report)
    except KeyboardInterrupt:
        click.echo(f"osml-tasks: interrupted; job {job_id} goes on", err=True)
        return EXIT_INTERRUPTED
