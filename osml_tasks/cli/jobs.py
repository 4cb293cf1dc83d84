"""``osml-tasks jobs``: which jobs there are."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import orjson

if TYPE_CHECKING:
    from osml_tasks.job_status import JobStatus

_WIDE = 160
_MOST = 100_000


@click.command
@click.option(
    "--limit", "-n", default=20, show_default=True, type=click.IntRange(1, _MOST), help="How many, newest first."
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of reports, without their failures.")
def command(limit: int, as_json: bool) -> int:
    """List the latest jobs of the fleet."""
    from osml_tasks.job_handle import list_jobs
    from osml_tasks.report import report_of

    jobs = list_jobs(limit)
    if as_json:
        reports = [report_of(status, None) for status in jobs]
        click.echo(orjson.dumps(reports, option=orjson.OPT_INDENT_2).decode())
    else:
        _print_table(jobs)
    return 0


def _print_table(jobs: list[JobStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, side in _COLUMNS:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for status in jobs:
        progress = status.progress
        counts = (status.job.tiles, progress.succeeded, progress.failed, status.features)
        created = datetime.fromtimestamp(status.job.created, UTC)
        table.add_row(
            status.job.job_id,
            status.state.value,
            status.job.endpoint,
            *(f"{count:,}" for count in counts),
            f"{created:%Y-%m-%d %H:%M:%S}",
        )
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


_COLUMNS = (
    ("job", "left"),
    ("state", "left"),
    ("endpoint", "left"),
    ("tiles", "right"),
    ("succeeded", "right"),
    ("failed", "right"),
    ("features", "right"),
    ("created (UTC)", "left"),
)
