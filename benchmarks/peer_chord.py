"""Peer with a chord, the tasks: plain Celery, for ``celery -A benchmarks.peer_chord worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import Celery, Task

from benchmarks import peer_aws
from benchmarks.peer_geojson import Feature, parse, write_collection

POLL_SECONDS = 1
RUN = "chord"
"""First part of the input keys, and the path extension of the outputs."""

app = Celery("peer_chord")
app.conf.update(task_default_queue="peer-chord", broker_connection_retry_on_startup=True)


@app.task
def submit_one(tile: str, endpoint: str) -> str:
    """Upload a tile and invoke the endpoint; returns the key of the output."""
    path = Path(tile)
    key = f"{RUN}/{path.name}"
    peer_aws.put(key, path.read_bytes())
    return peer_aws.invoke(endpoint, RUN, InputLocation=f"s3://{peer_aws.input_bucket()}/{key}")


@app.task(bind=True, max_retries=None)
def poll_one(self: Task[Any, Any], output: str, tile: str) -> list[Feature]:
    """Come back every second until the output is there; returns its features."""
    if not peer_aws.exists(output):
        raise self.retry(countdown=POLL_SECONDS)
    return parse(peer_aws.get(output), tile)


@app.task
def join(tiles: list[list[Feature]], result: str) -> int:
    """Write the GeoJSON file and delete inputs and outputs in bulk; returns the number of features."""
    count = write_collection(Path(result), tiles)
    for bucket, prefix in ((peer_aws.input_bucket(), f"{RUN}/"), (peer_aws.output_bucket(), f"output/{RUN}/")):
        peer_aws.delete(bucket, list(peer_aws.list_keys(bucket, prefix)))
    return count
