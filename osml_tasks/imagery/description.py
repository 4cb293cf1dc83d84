"""What is known of a detection, in words for people: names and texts, whatever a model put into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_DRAWN = {"imageGeometry", "imageBBox"}
_MOST_ROWS = 200
_LONGEST_TEXT = 2000  # characters
_DEEPEST = 5  # what is nested deeper stays JSON

Row = tuple[str, str]


def describe(properties: dict[str, Any]) -> list[Row]:
    """Name and text of each property, those within others too: ``inferenceMetadata.jobId``. Shapes are left out.

    At most 200 rows, and 2,000 characters of a text.
    """
    rows: list[Row] = []
    for name, value in properties.items():
        if name not in _DRAWN:
            rows += _rows(str(name), value, 1)
        if len(rows) > _MOST_ROWS:
            return [*rows[:_MOST_ROWS], ("…", "and more")]
    return rows


def position(feature: dict[str, Any]) -> str:
    """Where on the globe a feature's middle is, as ``37.81230° N, 122.41230° W``; empty where nobody knows."""
    if not feature.get("geometry"):
        return ""
    try:
        west, south, east, north = feature["bbox"]
        if east < west:  # over the antimeridian
            east += 360
        longitude, latitude = (west + east) / 2, (south + north) / 2
    except (KeyError, TypeError, ValueError):
        return _point_position(feature["geometry"])
    return _degrees(longitude, latitude)


def _point_position(geometry: Any) -> str:
    try:
        longitude, latitude = geometry["coordinates"][:2]
        return _degrees(longitude, latitude)
    except (KeyError, TypeError, ValueError):
        return ""


def _degrees(longitude: float, latitude: float) -> str:
    longitude = (longitude + 180) % 360 - 180
    return f"{abs(latitude):.5f}° {'NS'[latitude < 0]}, {abs(longitude):.5f}° {'EW'[longitude < 0]}"


def _rows(name: str, value: Any, depth: int) -> Iterator[Row]:
    if isinstance(value, dict) and value and depth < _DEEPEST:
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value) and depth < _DEEPEST:
        for place, inner in enumerate(value):
            yield from _rows(f"{name}[{place}]", inner, depth + 1)
    else:
        yield name[:_LONGEST_TEXT], _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
