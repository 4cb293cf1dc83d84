"""``osml-tasks status``: where a job stands."""

from __future__ import annotations

import click
import orjson


@click.command
@click.argument("job_id", metavar="JOB")
def command(job_id: str) -> int:
    """Print the report of JOB as it stands now, as JSON."""
    from osml_tasks.cli.jobs import handle_of

    report = handle_of(job_id).report()
    click.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    return 0
