"""What the peers do with a model's answers: the least that gives a GeoJSON file with the tile in each feature."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

Feature = dict[str, Any]


def parse(output: bytes, tile: str) -> list[Feature]:
    """The features of one output, each with the name of its tile."""
    return name_tile(orjson.loads(output)["features"], tile)


def name_tile(features: list[Feature], tile: str) -> list[Feature]:
    """Say in each feature which tile it is from, as osml-tasks does."""
    for feature in features:
        feature["properties"]["sourceMetadata"] = [{"location": tile}]
    return features


def write_collection(path: Path, tiles: Iterable[list[Feature]]) -> int:
    """Write the features of all tiles as one FeatureCollection; says how many there are."""
    features = [feature for tile in tiles for feature in tile]
    path.write_bytes(orjson.dumps({"type": "FeatureCollection", "features": features}))
    return len(features)
