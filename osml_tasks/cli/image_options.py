"""The options of ``detect`` that are about whole images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from osml_tasks.imagery.cutting import Compression, TileFormat
from osml_tasks.imagery.merge_options import MergeMethod, MergeOn
from osml_tasks.imagery.options import ImageOptions, image_options

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What the command line says of images.

    :ivar cut: whether sources are images; None: that is to be seen.
    :ivar options: None where none is given.
    :ivar map: the page to be written, or None.
    :ivar preview: the picture to be written, or the directory for one of each image; or None.
    """

    cut: bool | None = None
    options: ImageOptions | None = None
    map: Path | None = None
    preview: Path | None = None

    @property
    def preview_file(self) -> Path | None:
        """``preview``, unless it is a directory."""
        return None if self.preview is None or self.preview.is_dir() else self.preview


def add_image_options(command: Command) -> Command:
    """Add all of them; :func:`image_request` takes what the command gets."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def image_request(given: dict[str, Any]) -> ImageRequest:
    """What was given, as one.

    :param given: by the options' names.
    :raises ExtensionConfigurationError: a value is wrong, or two do not go together.
    """
    cut, map_path, preview = given.pop("cut"), given.pop("map"), given.pop("preview")
    options = image_options(**given)
    if options is None and (map_path or preview):
        options = ImageOptions()
    return ImageRequest(cut, options, map_path, preview)


def _numbers(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no list of numbers with commas between them") from None

    return read


def _stretch(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    percentiles = _numbers(float)(context, parameter, value)
    if percentiles is not None and len(percentiles) != 2:
        raise click.BadParameter(f"{value!r} is no two percentiles: write something like 2,98")
    return percentiles


def _properties(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any] | None:
    properties = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r} has no key and value: write key=value")
        properties[key] = _value(value)
    return properties or None


def _value(text: str) -> Any:
    """A number, a truth value or whatever else JSON has, if it is that; else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _any_case(kind: type[StrEnum]) -> click.Choice[str]:
    return click.Choice(_words(kind), case_sensitive=False)


def _words(kind: type[StrEnum]) -> list[str]:
    # Of an enumeration itself, click takes the names for what users write.
    return [one.value for one in kind]


_OPTIONS = (
    click.option(
        "--cut/--no-cut",
        default=None,
        help="Whether each SOURCE is an image to be cut into tiles, or a tile that goes as it is.  [default: it is an "
        "image with any option below, or if it is a file by itself and larger than 1024 px]",
    ),
    click.option("--tile-size", type=int, metavar="PX", help="Width and height of tiles.  [default: 1024]"),
    click.option("--overlap", type=int, metavar="PX", help="What tiles share at least.  [default: 50]"),
    click.option("--tile-format", type=_any_case(TileFormat), help="[default: PNG]"),
    click.option("--tile-compression", type=_any_case(Compression), help="As the format can.  [default: its usual]"),
    click.option("--bands", callback=_numbers(int), metavar="N,...", help="Bands of tiles, from 1.  [default: all]"),
    click.option("--stretch", callback=_stretch, metavar="P,P", help="Percentiles that 8 bits reach between, as 2,98."),
    click.option(
        "--roi", metavar="REGION", help="Cut only there: west,south,east,north, WKT, GeoJSON or its file, in lon/lat."
    ),
    click.option("--height", type=float, metavar="M", help="Height over the ellipsoid, of an image with RPCs."),
    click.option("--dem", metavar="FILE", help="Height model, of images with RPCs: a path or s3:// URI."),
    click.option(
        "--merge",
        type=click.Choice(_words(MergeMethod)),
        help="What becomes of what overlapping tiles saw twice.  [default: nms]",
    ),
    click.option("--iou", type=float, help="Overlap from which two of a class are the same.  [default: 0.5]"),
    click.option("--merge-on", type=click.Choice(_words(MergeOn)), help="Whose overlap that is.  [default: polygon]"),
    click.option("--score-threshold", type=float, help="Leave out what scores less.  [default: 0]"),
    click.option(
        "--property", "properties", multiple=True, callback=_properties, metavar="KEY=VALUE", help="For every feature."
    ),
    click.option("--map", type=_FILE, help="Write a page that shows detections on the image; it needs no network."),
    click.option("--preview", type=_FILE, help="Write a PNG of the image with detections; a directory of several."),
)
