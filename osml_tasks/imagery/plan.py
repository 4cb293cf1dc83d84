"""A job over whole images, planned: what they are, and the tiles that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from osml_tasks.errors import ExtensionConfigurationError, SourceError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.georeference import Transformer
from osml_tasks.imagery.grid import windows
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.image_job import ImageJob
from osml_tasks.imagery.options import ImageOptions
from osml_tasks.imagery.reader import Images
from osml_tasks.imagery.roi import footprint, intersecting, parse_roi, roi_outside, roi_without_georeference
from osml_tasks.imagery.window import Window
from osml_tasks.sources import SourceTile
from osml_tasks.tile import window_name


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """A job over images, before it starts.

    :ivar sources: where each image of the job is.
    :ivar tiles: of all images, each row by row.
    :ivar dem: the height model, where images use one.
    :ivar warnings: what a caller should know, a line each.
    """

    job: ImageJob
    sources: list[SourceTile]
    tiles: list[SourceTile]
    dem: str | None
    warnings: list[str]

    @property
    def summary(self) -> Iterator[str]:
        """What is cut from each image, a line each."""
        size = self.job.cutting.tile_size
        for image in self.job.images:
            width, height = min(size, image.width), min(size, image.height)
            yield (
                f"{image.name} has {image.width} x {image.height} px, {image.bands} bands of {image.dtype}: "
                f"{image.tiles} tile{'s' if image.tiles > 1 else ''} of {width} x {height} px"
            )

    @property
    def local_dem(self) -> str | None:
        """The height model, if it is a file."""
        return self.dem if self.dem and not self.dem.startswith("s3://") else None


def plan_images(sources: Sequence[SourceTile], options: ImageOptions, reader: Images) -> ImagePlan:
    """Open some images, and find out where their tiles lie.

    :raises SourceError: one cannot be cut as asked.
    :raises ExtensionConfigurationError: the region of interest is none, or meets none of the images.
    """
    roi = None if options.roi is None else parse_roi(options.roi)
    images: list[Image] = []
    whole: list[SourceTile] = []
    tiles: list[SourceTile] = []
    beside: list[ExtensionConfigurationError] = []
    for source in sources:
        location = _location(source)
        image = reader.describe(location, source.name, options.cutting, height=options.height, dem=options.dem)
        cut = _windows(image, options.cutting)
        if roi is not None:
            transformer = _transformer(image, reader)
            met = intersecting(cut, roi, transformer)
            if not met.any():
                whole_image = Window(y=0, x=0, width=image.width, height=image.height)
                beside.append(roi_outside(roi, image.name, footprint(whole_image, transformer)))
                continue
            cut = [window for window, is_met in zip(cut, met, strict=True) if is_met]
        tiles += [_tile(source, len(images), window) for window in cut]
        images.append(replace(image, tiles=len(cut)))
        whole.append(source)
    if not images:
        raise beside[0]
    job = ImageJob(tuple(images), options.cutting, options.merging, options.properties)
    uses_dem = any(image.georeference and image.georeference.dem for image in images)
    warnings = [*_warnings(images), *map(str, beside)]
    return ImagePlan(job, whole, tiles, options.dem if uses_dem else None, warnings)


def _windows(image: Image, cutting: Cutting) -> list[Window]:
    return windows(image.width, image.height, cutting.tile_size, cutting.overlap)


def _transformer(image: Image, reader: Images) -> Transformer:
    if image.georeference is None:
        raise roi_without_georeference(image.name)
    return reader.transformer(image.georeference)


def _location(source: SourceTile) -> str:
    if source.path is None and source.uri is None:
        raise SourceError(f"{source.name} is bytes in memory: name an image as a path or an s3:// URI")
    return source.location


def _tile(source: SourceTile, image: int, window: Window) -> SourceTile:
    name = window_name(source.name, window)
    return SourceTile(name, source.path, source.uri, source.size, window=window, image=image)


def _warnings(images: Iterable[Image]) -> Iterator[str]:
    without = [image.name for image in images if image.georeference is None]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        yield f"{without[0]}{more} has no georeference: detections have pixels, and no longitude and latitude"
