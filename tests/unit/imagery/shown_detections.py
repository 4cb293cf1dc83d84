"""Features as a result has them, placed on an image, and what a map page made of them carries."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any
from zlib import decompress

import numpy as np

from osml_tasks.imagery.overview import Overview

IMAGE = "scene.tif"


def detection(box: tuple[float, float, float, float], name: str = "ship", score: float = 0.9, **more: Any) -> Any:
    """A feature with a rectangle; more are properties that stand beside, or in place of, those it has."""
    left, top, right, bottom = box
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    properties = {
        "imageGeometry": {"type": "Polygon", "coordinates": [ring]},
        "imageBBox": list(box),
        "featureClasses": [{"iri": name, "score": score}],
        "sourceMetadata": [{"location": IMAGE, "format": "GTIFF", "tileBBox": [0, 0, 512, 512]}],
    }
    return {"type": "Feature", "geometry": None, "properties": properties | more}


def blank(width: int = 400, height: int = 300, grey: int = 90) -> Overview:
    """An overview half as large as its image, of one grey."""
    pixels = np.full((height // 2, width // 2, 4), grey, np.uint8)
    pixels[..., 3] = 255
    return Overview(pixels, width, height)


def page_data(page: Path) -> Any:
    """The data that a browser finds in a page."""
    element = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert element is not None
    return json.loads(element[1])


def column(packed: str, dtype: str = "<i4") -> list[Any]:
    """The numbers of a column."""
    return np.frombuffer(decompress(b64decode(packed)), dtype).tolist()


def known(image: Any) -> list[Any]:
    """What is known of each detection of an image."""
    return [one for block in image["known"] for one in json.loads(decompress(b64decode(block)))]
