"""Peer: one tile after the other through the detector, without workers.

``python -m benchmarks.peer_one_by_one DIRECTORY ENDPOINT RESULT``
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peer_geojson import name_tile, write_collection
from benchmarks.tiles import find_tiles
from osml_tasks.detectors import AsyncSMDetector


def main(directory: str, endpoint: str, result: str) -> None:
    """Have each tile's features found, and write one GeoJSON file; the detector cleans up."""
    with AsyncSMDetector(endpoint) as detector:
        outputs = [
            name_tile(detector.find_features(tile.read_bytes())["features"], str(tile))
            for tile in find_tiles(Path(directory))
        ]
    write_collection(Path(result), outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
