"""``osml-tasks cleanup``: delete what is due, and say what is left."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import orjson

from osml_tasks.cli import EXIT_USAGE

if TYPE_CHECKING:
    from osml_tasks.cleanup import Cleanup
    from osml_tasks.connections import Connections


@click.command
@click.option("--job", "job_id", metavar="JOB", help="Only this job, with its result.")
@click.option("--force", is_flag=True, help="Also what is not due yet or kept; with --job, cancel it if it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the fleet's statistics, by type and outcome.")
def command(job_id: str | None, force: bool, as_json: bool) -> int:
    """Delete what is due and what dead jobs have left; say what waits and what cannot be deleted."""
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.connections import open_connections
    from osml_tasks.jobs import check_job_id
    from osml_tasks.sweep import remove_job

    connections = open_connections(AsyncEndpointConfig())
    done = _all(connections, force) if job_id is None else remove_job(connections, check_job_id(job_id), force=force)
    stats = connections.resources.get_stats()
    if as_json:
        click.echo(orjson.dumps(asdict(done) | stats, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo(f"{done.cleaned} deleted")
        _say_what_is_left(stats)
    return EXIT_USAGE if done.failed else 0


def _all(connections: Connections, force: bool) -> Cleanup:
    from osml_tasks.sweep import clean_up_jobs, delete_leftovers

    # Without force: single objects belong to detectors, which may be at work on them.
    done = connections.resources.cleanup()
    done += clean_up_jobs(connections, force=force, retry=True)
    return done + delete_leftovers(connections) if connections.config.cleanup_leftover_seconds else done


def _say_what_is_left(stats: dict[str, Any]) -> None:
    waiting = {kind: number for kind, number in stats["by_type"].items() if number and kind != "worker"}
    if waiting:
        click.echo("waiting: " + ", ".join(f"{number} of {kind}" for kind, number in waiting.items()))
    for failure in stats["failures"]:
        click.echo(
            f"osml-tasks: {failure['objects']} of {failure['type']} {failure['resource']} cannot be deleted, "
            f"tried {failure['attempts']} times: {failure['error']}",
            err=True,
        )
