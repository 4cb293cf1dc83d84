"""Whether sources are images to be cut, and their plan if they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from osml_tasks.errors import (
    ExtensionConfigurationError,
    ExtensionError,
    ImageTooCostlyError,
    NotAllowedError,
    SourceError,
)
from osml_tasks.image_tiles import MISSING
from osml_tasks.imagery.cutting import DEFAULT_TILE_SIZE
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.sources import Source, SourceTile

if TYPE_CHECKING:
    import boto3

    from osml_tasks.imagery.limits import Limits
    from osml_tasks.imagery.plan import ImagePlan
    from osml_tasks.imagery.reader import Images
    from osml_tasks.imagery.reader_pool import ReaderPool
    from osml_tasks.s3_settings import S3Settings

# What tiles are rarely, and images mostly.
_ENDINGS = (".tif", ".tiff", ".ntf", ".nitf", ".jp2", ".vrt")


def plan_sources(
    sources: Sequence[Source],
    tiles: Sequence[SourceTile],
    options: ImageOptions | None,
    open_images: Callable[[], Images],
    *,
    cut: bool | None = None,
    stage: bool = True,
) -> ImagePlan | None:
    """The plan of a job over images, or None where each source is a tile.

    :param tiles: what was found of the sources.
    :param options: what is asked for with images; None: nothing.
    :param cut: whether the sources are images; None: they are if anything is asked for with images, or if each
        is a file or object by itself, of a format that images have, and wider or higher than a tile of 1024 px.
    :param stage: whether local files are copied to S3.
    :raises SourceError: an image cannot be cut as asked.
    :raises ExtensionConfigurationError: options of images are given with ``cut=False``, or rasterio is missing.
    """
    if cut is False:
        if options is not None:
            raise ExtensionConfigurationError("nothing is cut, yet options of images are given: leave one of them out")
        return None
    unasked = cut is None and options is None
    if unasked and not _named_one_by_one(sources, tiles):
        return None
    try:
        from osml_tasks.imagery.plan import plan_images
    except ModuleNotFoundError as error:
        if unasked:
            return None
        raise ExtensionConfigurationError(MISSING) from error
    images = open_images()
    if unasked and not all(_is_large(tile, images) for tile in tiles):
        return None
    plan = plan_images(tiles, options or ImageOptions(), images)
    if stage:
        _check_stageable(plan)
    return plan


def client_images(
    session: boto3.Session, settings: S3Settings | None = None, limits: Limits | None = None
) -> ReaderPool:
    """What a client reads images with, to learn all that there is to know of them.

    :param settings: what goes with each request to S3; default: nothing.
    :param limits: what that may cost; default: as a worker's.
    """
    from osml_tasks.imagery.limits import Limits
    from osml_tasks.imagery.reader_pool import ReaderPool

    return ReaderPool(session, limits or Limits(), settings=settings, sidecars=True, most_open=0)


def _named_one_by_one(sources: Sequence[Source], tiles: Sequence[SourceTile]) -> bool:
    """Whether every source is a file or object of a format that images have, and nothing that was searched."""
    names = [os.fsdecode(source) for source in sources if isinstance(source, str | os.PathLike)]
    return names == [tile.name for tile in tiles] and all(name.lower().endswith(_ENDINGS) for name in names)


def _is_large(tile: SourceTile, images: Images) -> bool:
    try:
        return max(images.size(tile.location)) > DEFAULT_TILE_SIZE
    except (NotAllowedError, ImageTooCostlyError):
        # An image it is, and one that nobody is to be sent.
        raise
    except ExtensionError:
        return False


def _check_stageable(plan: ImagePlan) -> None:
    for image, source in zip(plan.job.images, plan.sources, strict=True):
        if image.format == "VRT" and source.path is not None:
            raise SourceError(
                f"image {image.name!r} refers to other files, which a copy in S3 would not have: "
                "add --no-stage if workers can read them, or name what is in S3"
            )
