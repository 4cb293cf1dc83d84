"""One page that shows detections on their images: a file that opens in a browser, without a network.

The data of a detection are columns of numbers, and text that is unpacked when it is asked for: 50,000 of them make a
page of a few megabytes. What a model wrote is data throughout, never markup; the page's policy lets nothing in it run
but its own script, and nothing be fetched.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from zlib import compress

import numpy as np
import numpy.typing as npt

from osml_tasks.imagery.best_detections import STEPS_A_PIXEL, BestDetections, Detection, best_detections
from osml_tasks.imagery.class_colours import class_colours
from osml_tasks.imagery.overview import Overview, encode, web_driver

MOST_DETECTIONS = 100_000
"""A page draws no more: it stays quick, and some ten megabytes long."""

_KNOWN_IN_A_BLOCK = 500  # detections whose text is packed together: a click unpacks no more
_SCRIPTS = ("map_data.js", "map_drawing.js", "map_panel.js", "map_page.js")  # one, as a browser sees them
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def write_map(
    path: Path,
    overviews: Mapping[str, Overview],
    features: Iterable[dict[str, Any]],
    *,
    title: str = "Detections",
    most: int = MOST_DETECTIONS,
) -> None:
    """Write a page with the features on their images.

    :param overviews: by the images' names, as the last entry of ``sourceMetadata`` has them in ``location``.
    :param features: as in the result, with ``imageGeometry`` or ``imageBBox``; those without are counted only.
    :param most: of more than so many features the best are drawn, and the page says so.
    :raises ValueError: there is no image.
    :raises OSError: the file cannot be written.
    """
    if not overviews:
        raise ValueError("a map needs an image")
    best = best_detections(features, {name: place for place, name in enumerate(overviews)}, most)
    path.write_bytes(_page(title, _data(overviews, best)))


def _page(title: str, data: dict[str, Any]) -> bytes:
    style, script = _file("map_page.css"), "\n".join(map(_file, _SCRIPTS))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    parts = {
        "policy": policy,
        "title": html.escape(title),
        "style": style,
        "data": _json_in_script(data),
        "script": script,
    }
    page = _PLACEHOLDER.sub(lambda found: parts[found[1]], _file("map_page.html"))
    return page.encode(errors="replace")


def _file(name: str) -> str:
    return files("osml_tasks.imagery").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _json_in_script(data: dict[str, Any]) -> str:
    """JSON in ASCII that no HTML parser takes for the end of the element that it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _data(overviews: Mapping[str, Overview], best: BestDetections) -> dict[str, Any]:
    colours = class_colours(detection.name for detection in best.detections)
    numbers = {name: number for number, name in enumerate(colours)}
    images = [
        _image(name, overview, [one for one in best.detections if one.image == place], numbers)
        for place, (name, overview) in enumerate(overviews.items())
    ]
    return {
        "images": images,
        "classes": [{"name": name, "colour": f"#{bytes(colour).hex()}"} for name, colour in colours.items()],
        "stepsAPixel": STEPS_A_PIXEL,
        "knownInABlock": _KNOWN_IN_A_BLOCK,
        "features": best.features,
        "unplaced": best.unplaced,
        "leftOut": best.left_out,
    }


def _image(
    name: str, overview: Overview, detections: Sequence[Detection], numbers: Mapping[str, int]
) -> dict[str, Any]:
    driver = web_driver()
    backdrop = b64encode(encode(overview.pixels, driver)).decode()
    points = np.frombuffer(b"".join(one.points for one in detections), "<i4").reshape(-1, 2)
    blocks = range(0, len(detections), _KNOWN_IN_A_BLOCK)
    return {
        "name": name,
        "width": overview.width,
        "height": overview.height,
        "backdrop": f"data:image/{driver.lower()};base64,{backdrop}",
        "classes": _column([numbers[one.name] for one in detections]),
        "scores": _column([one.score for one in detections], "<f4"),
        "strokes": _column([len(one.lengths) for one in detections]),
        "lengths": _column([length for one in detections for length in one.lengths]),
        "xs": _column(_steps(points[:, 0])),
        "ys": _column(_steps(points[:, 1])),
        "known": [_block(detections[start : start + _KNOWN_IN_A_BLOCK]) for start in blocks],
    }


def _column(values: Any, dtype: str = "<i4") -> str:
    return _packed(np.asarray(values, dtype).tobytes())


def _steps(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """From each value to the next: small numbers, which pack well."""
    return np.diff(values, prepend=np.int32(0))


def _block(detections: Sequence[Detection]) -> str:
    return _packed(f"[{','.join(one.known for one in detections)}]".encode())


def _packed(content: bytes) -> str:
    return b64encode(compress(content)).decode()
