"""A job over whole images, planned: what they are, and the tiles that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from osml_tasks.errors import SourceError
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.grid import windows
from osml_tasks.imagery.image import Image, describe
from osml_tasks.imagery.image_job import ImageJob
from osml_tasks.imagery.options import ImageOptions
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
                f"{image.tiles} tiles of {width} x {height} px"
            )

    @property
    def local_dem(self) -> str | None:
        """The height model, if it is a file."""
        return self.dem if self.dem and not self.dem.startswith("s3://") else None


def plan_images(sources: Sequence[SourceTile], options: ImageOptions, datasets: Datasets) -> ImagePlan:
    """Open some images, and find out where their tiles lie.

    :raises SourceError: one cannot be cut as asked, or none meets the region of interest.
    """
    images: list[Image] = []
    whole: list[SourceTile] = []
    tiles: list[SourceTile] = []
    for source in sources:
        image, cut = _plan_image(source, options, datasets)
        if cut:
            tiles += [_tile(source, len(images), window) for window in cut]
            images.append(replace(image, tiles=len(cut)))
            whole.append(source)
    if not tiles:
        from osml_tasks.imagery.roi import outside

        raise SourceError(outside(str(options.roi), [source.name for source in sources]))
    job = ImageJob(tuple(images), options.cutting, options.merging, options.properties)
    uses_dem = any(image.georeference and image.georeference.dem for image in images)
    return ImagePlan(job, whole, tiles, options.dem if uses_dem else None, [*_warnings(images)])


def _plan_image(source: SourceTile, options: ImageOptions, datasets: Datasets) -> tuple[Image, list[Window]]:
    cutting = options.cutting
    with datasets.open(_location(source)) as dataset, datasets.environment(options.dem):
        image = describe(dataset, source.name, cutting, height=options.height, dem=options.dem)
        cut = windows(image.width, image.height, cutting.tile_size, cutting.overlap)
        if options.roi is None:
            return image, cut
        from osml_tasks.imagery.roi import intersecting, parse_roi

        if image.georeference is None:
            raise SourceError(f"image {source.name!r} has no georeference, and --roi is in lon/lat: leave --roi out")
        meets = intersecting(cut, parse_roi(options.roi), image.georeference.transformer())
        return image, [window for window, is_met in zip(cut, meets, strict=True) if is_met]


def _location(source: SourceTile) -> str:
    if source.path is None and source.uri is None:
        raise SourceError(f"{source.name} is bytes in memory: name an image as a path or an s3:// URI")
    return source.path or str(source.uri)


def _tile(source: SourceTile, image: int, window: Window) -> SourceTile:
    name = window_name(source.name, window)
    return SourceTile(name, source.path, source.uri, source.size, window=window, image=image)


def _warnings(images: Iterable[Image]) -> Iterator[str]:
    without = [image.name for image in images if image.georeference is None]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        yield f"{without[0]}{more} has no georeference: detections have pixels, and no longitude and latitude"
