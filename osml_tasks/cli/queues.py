"""``osml-tasks queues``: what waits, and for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import orjson

if TYPE_CHECKING:
    from osml_tasks.queues import EndpointLoad, FleetLoad, Share


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for autoscalers.")
def command(as_json: bool) -> int:
    """Print how many messages wait for workers, and what is in flight and waits at each endpoint.

    Needs the broker and nothing else: no buckets, no AWS credentials.
    """
    from osml_tasks.celery import client_app
    from osml_tasks.preflight import check_broker
    from osml_tasks.queues import fleet_load

    check_broker()
    load = fleet_load(client_app())
    if as_json:
        click.echo(orjson.dumps(load, option=orjson.OPT_INDENT_2).decode())
    else:
        _say(load)
    return 0


def _say(load: FleetLoad) -> None:
    for queue, messages in load.queues.items():
        click.echo(f"{queue:<15}{messages:>7} waiting")
    for endpoint, share in load.endpoints.items():
        _say_endpoint(endpoint, share)


def _say_endpoint(endpoint: str, load: EndpointLoad) -> None:
    click.echo(f"endpoint {endpoint}: {_words(load)}")
    for job_id, share in load.jobs.items():
        click.echo(f"  job {job_id}: {_words(share)}")


def _words(share: Share) -> str:
    limit = "" if share.limit is None else f" of {share.limit} at most"
    return f"{share.in_flight} tiles in flight{limit}, shards parked: {share.parked_shards}"
