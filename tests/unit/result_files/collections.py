"""Results to write somewhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from osml_tasks.features import COLLECTION_HEAD, COLLECTION_TAIL, Feature, join_lines, to_lines


def feature(geometry: dict[str, Any] | None = None, image: str = "a.tif", **properties: Any) -> Feature:
    """A feature of an image."""
    source = {"sourceMetadata": [{"location": "the model's own"}, {"location": image}]}
    return {"type": "Feature", "geometry": geometry, "properties": properties | source}


def point(x: float, y: float) -> dict[str, Any]:
    """A GeoJSON Point."""
    return {"type": "Point", "coordinates": [x, y]}


def collection_of(features: Iterable[Feature]) -> bytes:
    """What the assembling worker makes of some features."""
    return COLLECTION_HEAD + b"".join(join_lines([to_lines(features)])) + COLLECTION_TAIL


def write_collection(directory: Path, features: Sequence[Feature]) -> Path:
    """The same in a file."""
    file = directory / "result"
    file.write_bytes(collection_of(features))
    return file
