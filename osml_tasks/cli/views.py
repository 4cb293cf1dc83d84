"""What people look at when a job over images is over: a page with detections on the images, and a picture of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson

from osml_tasks.cli.image_options import ImageRequest
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.result_files.by_image import image_stems, split_by_image
from osml_tasks.result_files.lines import read_features

if TYPE_CHECKING:
    from osml_tasks.imagery.overview import Overview
    from osml_tasks.imagery.plan import ImagePlan
    from osml_tasks.imagery.reader import Images


@dataclass(frozen=True, slots=True)
class Views:
    """The page and the pictures of one job.

    :ivar preview: a file, or a directory for a file of each image.
    """

    map: Path | None
    preview: Path | None
    images: ImagePlan
    reader: Images

    @classmethod
    def of(cls, request: ImageRequest, images: ImagePlan, reader: Images) -> Views | None:
        """What is asked for, or None if that is nothing.

        :raises ExtensionConfigurationError: it cannot be written.
        """
        if request.map is None and request.preview is None:
            return None
        views = cls(request.map, request.preview, images, reader)
        if request.preview is not None and len(images.sources) > 1 and not request.preview.is_dir():
            raise ExtensionConfigurationError(
                f"there are {len(images.sources)} images, and {str(request.preview)!r} is no directory: name one that "
                "exists with --preview"
            )
        return views

    def write(self, collection: Path) -> Iterator[Path]:
        """Write them; gives each file that is written.

        :param collection: the result as GeoJSON, one feature a line.
        :raises ImageReadError: an image cannot be read any more.
        :raises OSError: a file cannot be written.
        """
        overviews = {source.name: self._overview(number) for number, source in enumerate(self.images.sources)}
        if self.map is not None:
            from osml_tasks.imagery.map_page import write_map

            title = ", ".join(Path(name).name for name in list(overviews)[:3])
            write_map(self.map, overviews, _features(collection), title=title)
            yield self.map
        if self.preview is not None:
            yield from self._write_previews(collection, overviews, self.preview)

    def _overview(self, number: int) -> Overview:
        source, chosen = self.images.sources[number], self.images.job.images[number].chosen
        return self.reader.overview(source.location, chosen[:3] if len(chosen) >= 3 else chosen[:1])

    def _write_previews(self, collection: Path, overviews: dict[str, Overview], preview: Path) -> Iterator[Path]:
        from osml_tasks.imagery.preview import write_preview

        with TemporaryDirectory(prefix="osml-views-") as directory:
            collections = dict.fromkeys(overviews, collection)
            if len(overviews) > 1:
                collections = split_by_image(collection, [*overviews], Path(directory))
            stems = image_stems(overviews)
            for name, overview in overviews.items():
                path = preview / f"{stems[name]}.png" if preview.is_dir() else preview
                write_preview(path, overview, _features(collections[name]))
                yield path


def _features(collection: Path) -> Iterator[dict[str, Any]]:
    return map(orjson.loads, read_features(collection))
