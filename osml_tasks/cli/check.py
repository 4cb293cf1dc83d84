"""``osml-tasks check``: is everything there?"""

from __future__ import annotations

import click

from osml_tasks.cli import EXIT_USAGE
from osml_tasks.one_line import in_one_line

_MARKS = {True: "ok  ", False: "FAIL", None: "?   "}


@click.command
@click.option("--endpoint", "-e", help="Name of an endpoint to look at as well.")
def command(endpoint: str | None) -> int:
    """Look whether broker, a worker on each queue, buckets and endpoint are there and fit together."""
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.preflight import examine

    failed = False
    for finding in examine(AsyncEndpointConfig(), endpoint, thorough=True):
        click.echo(f"{_MARKS[finding.ok]}  {in_one_line(f'{finding.name}: {finding.detail}')}")
        failed |= finding.ok is False
    return EXIT_USAGE if failed else 0
