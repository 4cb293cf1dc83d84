"""Peer: bare boto3 in one process, 8 threads that submit and 8 that poll, each job by itself.

``python -m benchmarks.peer_poll_each DIRECTORY ENDPOINT RESULT``
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks import peer_aws
from benchmarks.peer_geojson import Feature, parse, write_collection
from benchmarks.tiles import find_tiles

THREADS = 8
POLL_SECONDS = 1.0
RUN = "poll-each"
"""First part of the input keys, and the path extension of the outputs."""


def main(directory: str, endpoint: str, result: str) -> None:
    """Submit all tiles, wait for each output, write one GeoJSON file, delete inputs and outputs."""
    tiles = find_tiles(Path(directory))
    with ThreadPoolExecutor(THREADS) as submitting, ThreadPoolExecutor(THREADS) as polling:
        submitted = [submitting.submit(_submit, tile, endpoint) for tile in tiles]
        write_collection(Path(result), polling.map(_collect, submitted, tiles))
    peer_aws.delete(peer_aws.input_bucket(), [_input_key(tile) for tile in tiles])
    peer_aws.delete(peer_aws.output_bucket(), [future.result() for future in submitted])


def _submit(tile: Path, endpoint: str) -> str:
    key = _input_key(tile)
    peer_aws.put(key, tile.read_bytes())
    return peer_aws.invoke(endpoint, RUN, InputLocation=f"s3://{peer_aws.input_bucket()}/{key}")


def _collect(submitted: Future[str], tile: Path) -> list[Feature]:
    key = submitted.result()
    while not peer_aws.exists(key):
        time.sleep(POLL_SECONDS)
    return parse(peer_aws.get(key), str(tile))


def _input_key(tile: Path) -> str:
    return f"{RUN}/{tile.name}"


if __name__ == "__main__":
    main(*sys.argv[1:])
