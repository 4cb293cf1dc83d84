"""Where in its tile a feature says that it lies."""

from __future__ import annotations

from typing import Any

from osml_tasks.geometry import check_geometry, is_number, shown
from osml_tasks.imagery.paths import Geometry

Box = tuple[float, float, float, float]


def shape_of(properties: dict[str, Any]) -> tuple[Geometry | None, Box | None, str]:
    """The shape and the bounding box in pixels of the tile, and what is wrong with what the model gave.

    Where there is only a box it is the shape, too; older models write it as ``bounds_imcoords``. The box that
    is returned is a sound ``imageBBox`` alone.
    """
    shape, given = properties.get("imageGeometry"), properties.get("imageBBox")
    if given is None and "bounds_imcoords" not in properties:
        try:
            check_geometry(shape)
        except (ValueError, RecursionError) as error:
            return None, None, f"imageGeometry {error}"
        return shape, None, ""
    return _shape_or_box(properties, "bounds_imcoords" if given is None else "imageBBox")


def _shape_or_box(properties: dict[str, Any], name: str) -> tuple[Geometry | None, Box | None, str]:
    shape, box, wrong = properties.get("imageGeometry"), _box(properties[name]), []
    try:
        check_geometry(shape)
    except (ValueError, RecursionError) as error:
        shape = None
        wrong.append(f"imageGeometry {error}")
    if box is None and properties[name] is not None:
        wrong.append(f"{name} is {shown(properties[name])}, not four numbers")
    if shape is None and box is not None:
        shape = _shape_of_box(box)
    return shape, box if name == "imageBBox" else None, "; ".join(wrong)


def _box(given: object) -> Box | None:
    """Four numbers with the smaller ones in front, whichever corners the model began with."""
    if not (isinstance(given, (list, tuple)) and len(given) == 4 and all(map(is_number, given))):
        return None
    x, y, other_x, other_y = given
    if not abs(x) + abs(y) + abs(other_x) + abs(other_y) < float("inf"):
        return None
    return min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y)


def _shape_of_box(box: Box) -> Geometry:
    """A rectangle; a line or a point where the box has no area."""
    left, top, right, bottom = box
    if left == right and top == bottom:
        return {"type": "Point", "coordinates": [left, top]}
    if left == right or top == bottom:
        return {"type": "LineString", "coordinates": [[left, top], [right, bottom]]}
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [corners]}
