"""``osml-tasks status``: where a job stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from osml_tasks.jobs import Progress

_FAILURES_SHOWN = 5


@click.command
@click.argument("job_id", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="Print the report of JOB as it stands now.")
def command(job_id: str, as_json: bool) -> int:
    """Say where JOB stands now."""
    from osml_tasks.job_handle import open_job

    handle = open_job(job_id)
    report = handle.report()
    if as_json:
        click.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n".join(_lines(report, handle.progress())))
    return 0


def _lines(report: dict[str, Any], progress: Progress) -> Iterator[str]:
    yield f"job {report['job_id']} on {report['endpoint']}: {report['state']}"
    if report["error"]:
        yield f"error: {report['error']}"
    counts = f"{report['succeeded']:,} succeeded, {report['failed']:,} failed"
    in_flight = max(0, progress.invoked - progress.finished)
    yield f"tiles: {report['tiles']:,}, {counts}, {in_flight:,} in flight"
    yield f"features: {report['features']:,}"
    for name in ("started", "finished", "result"):
        if report[name]:
            yield f"{name}: {report[name]}"
    for failure in report["failures"][:_FAILURES_SHOWN]:
        yield f"{failure['tile']}: {failure['reason']}: {failure['error']}"
    if len(report["failures"]) > _FAILURES_SHOWN:
        yield f"{len(report['failures']) - _FAILURES_SHOWN:,} more failed tiles: --json lists them all"
