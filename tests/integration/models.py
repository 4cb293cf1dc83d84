"""A model whose answer is written in its tile, so that a test says tile by tile what happens."""

from __future__ import annotations

import io
import json
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from osml_tasks.local.model import find_bright_objects

_calls: Counter[str] = Counter()


def scripted(payload: bytes) -> dict[str, Any] | str:
    """Do what the payload, a JSON object, says.

    ``name``: goes into every feature; ``features``: how many, default 1; ``fail_first``: raise so many
    times before answering; ``raw``: answer this text; ``feature_bytes``: how much longer each feature is;
    ``sleep``: s; ``after``: a file to wait for.
    """
    script = json.loads(payload)
    name = script["name"]
    # Not by its name alone, which tiles of other tests may have, too.
    call = f"{name} {zlib.crc32(payload)}"
    _calls[call] += 1
    if _calls[call] <= script.get("fail_first", 0):
        raise ValueError(f"call {_calls[call]} of {name} is to fail")
    time.sleep(script.get("sleep", 0))
    while "after" in script and not Path(script["after"]).exists():
        time.sleep(0.05)
    if "raw" in script:
        return str(script["raw"])
    features = [_feature(name, place) for place in range(script.get("features", 1))]
    for feature in features if "feature_bytes" in script else ():
        feature["properties"]["padding"] = " " * script["feature_bytes"]
    return {"type": "FeatureCollection", "features": features}


def bright_at_second_sight(payload: bytes) -> dict[str, Any]:
    """The sample model, but for a third of the tiles, at which it fails when it sees them first."""
    with Image.open(io.BytesIO(payload)) as tile:
        pixels = tile.tobytes()
    name = f"tile {zlib.crc32(pixels)}"
    _calls[name] += 1
    if zlib.crc32(pixels) % 3 == 0 and _calls[name] == 1:
        raise ValueError(f"{name} is to fail")
    return find_bright_objects(payload)


def _feature(name: str, place: int) -> dict[str, Any]:
    properties = {"imageBBox": [place, 0, place + 1, 1], "featureClasses": [{"iri": name, "score": 0.5}]}
    return {"type": "Feature", "id": f"{name}-{place}", "geometry": None, "properties": properties}


def image_in_json(payload: bytes) -> dict[str, Any]:
    """Find one object in a JSON object that has an image under ``image_data``."""
    return {"type": "FeatureCollection", "features": [_feature(json.loads(payload)["image_data"], 0)]}
