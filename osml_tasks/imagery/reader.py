"""What is asked of images, answered by reading them in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from osml_tasks.imagery.cut import cut_tile
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.datasets import Datasets
from osml_tasks.imagery.georeference import Floats, Georeference, Transformer
from osml_tasks.imagery.image import Image, describe
from osml_tasks.imagery.overview import Overview, read_overview
from osml_tasks.imagery.window import Window


class Images(Protocol):
    """Answers what there is to be asked of images; each call raises what :meth:`Datasets.open` does."""

    def size(self, location: str) -> tuple[int, int]:
        """Width and height of an image, px."""

    def describe(
        self, location: str, name: str, cutting: Cutting, *, height: float | None = None, dem: str | None = None
    ) -> Image:
        """All there is to know of an image, as :func:`~osml_tasks.imagery.image.describe` has it.

        :param dem: the location of a height model.
        """

    def cut(self, location: str, image: Image, window: Window, cutting: Cutting, job: str = "") -> bytes | None:
        """The bytes of a tile, or None where all of it is nodata.

        :param job: for whom: another opens the image anew.
        """

    def overview(self, location: str, bands: Sequence[int]) -> Overview:
        """An image made small."""

    def transformer(self, georeference: Georeference, job: str = "") -> Transformer:
        """The way from an image's pixels to the globe, over the height model if it has one."""


class Reader:
    """Reads images in this process: for one that is confined, or for images that are one's own."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def size(self, location: str) -> tuple[int, int]:
        """As :class:`Images` has it."""
        with self._datasets.open(location) as dataset:
            return dataset.width, dataset.height

    def describe(
        self, location: str, name: str, cutting: Cutting, *, height: float | None = None, dem: str | None = None
    ) -> Image:
        """As :class:`Images` has it."""
        with self._datasets.open(location) as dataset, ExitStack() as stack:
            dem_name = None
            if dem is not None:
                stack.enter_context(self._datasets.environment(dem))
                dem_name = stack.enter_context(self._datasets.height_model(dem))
            return describe(dataset, name, cutting, height=height, dem=dem, dem_name=dem_name)

    def cut(self, location: str, image: Image, window: Window, cutting: Cutting, job: str = "") -> bytes | None:
        """As :class:`Images` has it."""
        with self._datasets.open(location, job) as dataset:
            return cut_tile(dataset, image, window, cutting)

    def overview(self, location: str, bands: Sequence[int]) -> Overview:
        """As :class:`Images` has it."""
        with self._datasets.open(location) as dataset:
            return read_overview(dataset, bands=bands)

    def transformer(self, georeference: Georeference, job: str = "") -> Transformer:
        """As :class:`Images` has it."""
        if georeference.dem is None:
            return georeference.transformer()
        return _OverHeightModel(self._datasets, georeference)


class _OverHeightModel:
    """The way to the globe over a height model, in the environment that it is read in."""

    def __init__(self, datasets: Datasets, georeference: Georeference) -> None:
        self._datasets = datasets
        self._dem = str(georeference.dem)
        with datasets.environment(self._dem), datasets.height_model(self._dem) as name:
            self._way = georeference.transformer(name)

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """As :class:`~osml_tasks.imagery.georeference.Transformer` has it."""
        with self._datasets.environment(self._dem):
            return self._way.to_lonlat(x, y)
