"""What can be asked for with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.merge_options import MergeOptions

WRITTEN = frozenset({"imageGeometry", "imageBBox", "featureClasses", "inferenceMetadata", "sourceMetadata"})
"""Properties of features that a caller cannot choose."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What is asked for with images.

    :ivar roi: only tiles that meet it are cut: a bounding box, WKT, GeoJSON or its file, in lon/lat; None: all are.
    :ivar height: m above the ellipsoid, for images with RPCs; default: the middle of the heights they were made for.
    :ivar dem: a height model, path or ``s3://`` URI, likewise.
    :ivar properties: what every feature gets besides.
    """

    cutting: Cutting = field(default_factory=Cutting)
    merging: MergeOptions = field(default_factory=MergeOptions)
    roi: str | None = None
    height: float | None = None
    dem: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse properties that this program writes itself.

        :raises ExtensionConfigurationError: there are such.
        """
        if taken := WRITTEN & self.properties.keys():
            raise ExtensionConfigurationError(f"{', '.join(sorted(taken))} is written by osml-tasks: name it otherwise")


def image_options(
    *,
    tile_size: int | None = None,
    overlap: int | None = None,
    tile_format: str | None = None,
    tile_compression: str | None = None,
    bands: Sequence[int] | None = None,
    stretch: tuple[float, float] | None = None,
    roi: str | None = None,
    height: float | None = None,
    dem: str | None = None,
    merge: str | None = None,
    iou: float | None = None,
    merge_on: str | None = None,
    score_threshold: float | None = None,
    properties: Mapping[str, Any] | None = None,
) -> ImageOptions | None:
    """Options from keywords, the rest at their defaults; None where none is given.

    :raises ExtensionConfigurationError: a value is wrong, or two do not go together.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if not given:
        return None
    cutting = _taken(given, "tile_size", "overlap", "tile_format", "bands", "stretch", tile_compression="compression")
    merging = _taken(given, "iou", "score_threshold", merge="method", merge_on="on")
    return ImageOptions(cutting=Cutting(**cutting), merging=MergeOptions(**merging), **given)


IMAGE_OPTIONS = frozenset(image_options.__kwdefaults__ or {})
"""The names of these keywords."""


def _taken(given: dict[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    """Take some keywords out of all that are given, a few under other names."""
    wanted = dict(zip(names, names, strict=True)) | renamed
    return {own: given.pop(name) for name, own in wanted.items() if name in given}
