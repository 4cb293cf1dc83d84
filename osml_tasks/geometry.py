"""What RFC 7946 asks of geometries and bounding boxes, checked quickly: a job has millions of them.

Values are as ``orjson`` reads them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any


def check_geometry(geometry: object) -> None:
    """Refuse what is not a geometry (RFC 7946, section 3.1); None is one that is not known.

    :raises ValueError: in words that follow its owner's name: ``has a Polygon with ...``.
    """
    left: list[Any] = [] if geometry is None else [geometry]
    while left:
        one = left.pop()
        kind = one.get("type") if isinstance(one, dict) else None
        if kind == "GeometryCollection":
            left += _members(one, "geometries")
        elif isinstance(kind, str) and kind in _CHECKS:
            # Empty coordinates are a geometry without a place.
            if coordinates := _members(one, "coordinates"):
                _check_coordinates(kind, coordinates)
        else:
            raise ValueError(f"has the geometry {shown(one)}, which is none")
        if "bbox" in one:
            check_bbox(one)


def check_bbox(owner: dict[str, Any]) -> None:
    """Refuse a wrong bounding box (RFC 7946, section 5); one that is null is taken out.

    :raises ValueError: in words that follow its owner's name: ``has the bbox ...``.
    """
    bbox = owner["bbox"]
    if bbox is None:
        del owner["bbox"]
    elif type(bbox) is not list or len(bbox) < 4 or len(bbox) % 2 or not all(map(is_number, bbox)):
        raise ValueError(f"has the bbox {shown(bbox)}, not four numbers, or six")


def is_number(value: object) -> bool:
    """Whether JSON has it as a number; true and false are none."""
    return type(value) is float or type(value) is int


def shown(value: object) -> str:
    """Enough of a value to recognise it by, in one line."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return f"an object of type {value['type'][:40]!r}"
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _members(geometry: dict[str, Any], member: str) -> list[Any]:
    value = geometry.get(member)
    if type(value) is not list:
        raise ValueError(f"has a {geometry['type']} whose {member} are {shown(value)}, not a list")
    return value


def _check_coordinates(kind: str, coordinates: Any) -> None:
    try:
        _CHECKS[kind](coordinates)
    except ValueError as error:
        raise ValueError(f"has a {kind} with {error}") from None


def _position(position: object) -> None:
    if type(position) is not list or len(position) < 2 or not all(map(is_number, position)):
        raise ValueError(f"the position {shown(position)}, not two or more numbers")


def _positions(positions: object) -> None:
    if type(positions) is not list:
        raise ValueError(f"{shown(positions)} where a list of positions should be")
    for position in positions:
        # Most have two numbers; asking for just these takes half the time.
        if type(position) is list and len(position) == 2:
            x, y = position
            if (type(x) is float or type(x) is int) and (type(y) is float or type(y) is int):
                continue
        _position(position)


def _line(line: Any) -> None:
    _positions(line)
    if len(line) < 2:
        raise ValueError(f"the line {shown(line)}, which has less than two positions")


def _ring(ring: Any) -> None:
    _positions(ring)
    if len(ring) < 4:
        raise ValueError(f"the ring {shown(ring)}, which has less than four positions")
    if ring[0] != ring[-1]:
        raise ValueError(f"a ring that begins at {shown(ring[0])} and ends at {shown(ring[-1])}: it is not closed")


def _each(check: Callable[[Any], None], values: Any) -> None:
    if type(values) is not list or not values:
        raise ValueError(f"{shown(values)} where a list of coordinates should be")
    for value in values:
        check(value)


def _rings(rings: Any) -> None:
    _each(_ring, rings)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "Point": _position,
    "MultiPoint": _positions,
    "LineString": _line,
    "MultiLineString": lambda lines: _each(_line, lines),
    "Polygon": _rings,
    "MultiPolygon": lambda polygons: _each(_rings, polygons),
}
