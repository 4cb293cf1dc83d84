"""Peer: bare boto3 in one process, 8 threads, results found by LIST.

``python -m benchmarks.peer_threads DIRECTORY ENDPOINT RESULT INLINE_MAX``: tiles of up to INLINE_MAX
bytes go inline (0: none does).
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
RUN = "threads"
"""First part of the input keys, and the path extension of the outputs."""
OUTPUTS = f"output/{RUN}/"


class Run:
    """One run over the tiles of a directory.

    :ivar uploaded: input keys to be deleted at the end.
    """

    def __init__(self, endpoint: str, inline_max: int) -> None:
        self._endpoint = endpoint
        self._inline_max = inline_max
        self.uploaded: list[str] = []

    def submit(self, tile: Path) -> str:
        """Invoke the endpoint with one tile; says which key its output will have."""
        if tile.stat().st_size <= self._inline_max:
            return peer_aws.invoke(self._endpoint, RUN, Body=tile.read_bytes())
        key = f"{RUN}/{tile.name}"
        peer_aws.put(key, tile.read_bytes())
        self.uploaded.append(key)
        return peer_aws.invoke(self._endpoint, RUN, InputLocation=f"s3://{peer_aws.input_bucket()}/{key}")


def main(directory: str, endpoint: str, result: str, inline_max: str) -> None:
    """Submit all tiles, collect what arrives, write one GeoJSON file, delete inputs and outputs."""
    tiles = find_tiles(Path(directory))
    run = Run(endpoint, int(inline_max))
    with ThreadPoolExecutor(THREADS) as pool:
        submitted = {pool.submit(run.submit, tile): tile for tile in tiles}
        outputs = _collect(pool, submitted)
        write_collection(Path(result), (outputs[tile].result() for tile in tiles))
    keys = list(peer_aws.list_keys(peer_aws.output_bucket(), OUTPUTS))
    peer_aws.delete(peer_aws.output_bucket(), keys)
    peer_aws.delete(peer_aws.input_bucket(), run.uploaded)


def _collect(pool: ThreadPoolExecutor, submitted: dict[Future[str], Path]) -> dict[Path, Future[list[Feature]]]:
    """LIST the outputs every second, and have each new one read and parsed by the pool."""
    wanted: dict[str, Path] = {}
    outputs: dict[Path, Future[list[Feature]]] = {}
    while len(outputs) < len(submitted) + len(wanted):
        time.sleep(POLL_SECONDS)
        for done in [future for future in submitted if future.done()]:
            wanted[done.result()] = submitted.pop(done)
        for key in peer_aws.list_keys(peer_aws.output_bucket(), OUTPUTS):
            tile = wanted.get(key)
            if tile is not None and tile not in outputs:
                outputs[tile] = pool.submit(_read, key, tile)
    return outputs


def _read(key: str, tile: Path) -> list[Feature]:
    return parse(peer_aws.get(key), str(tile))


if __name__ == "__main__":
    main(*sys.argv[1:])
