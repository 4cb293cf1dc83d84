"""What is known of an image, once it has been opened: enough for workers to cut and place without asking again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.windows import Window

from osml_tasks.errors import SourceError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.georeference import Georeference
from osml_tasks.imagery.stretch import Levels, levels_of
from osml_tasks.imagery.tile_file import HAVE_COLOURS, Colour, check_format

_FORMATS = {"GTiff": "GTIFF", "COG": "GTIFF", "JP2OpenJPEG": "JP2"}


@dataclass(frozen=True, slots=True)
class Image:
    """An image, and how its pixels become those of tiles.

    :ivar name: what the user called it.
    :ivar format: ``GTIFF``, ``NITF``, ``JP2``, ``PNG``, ``JPEG`` or ``VRT``.
    :ivar width: px; so is ``height``.
    :ivar bands: how many it has.
    :ivar dtype: of its pixels, as numpy has it.
    :ivar taken: which bands tiles have, from 1.
    :ivar levels: for each of these, what becomes 0 and what 255; None where pixels stay as they are.
    :ivar crs: for people: ``EPSG:n``, or WKT; None without.
    :ivar georeference: where on the globe its pixels are; None where nobody knows.
    :ivar colours: red, green, blue and opacity of each pixel value, where its one band has a colour table.
    :ivar tiles: how many are cut from it.
    """

    name: str
    format: str
    width: int
    height: int
    bands: int
    dtype: str
    taken: tuple[int, ...]
    levels: tuple[Levels, ...] | None
    crs: str | None
    georeference: Georeference | None
    colours: tuple[Colour, ...] | None = None
    tiles: int = 0

    @property
    def source(self) -> dict[str, Any]:
        """What the ``sourceMetadata`` of its features says of it, and of what was done to its pixels."""
        known = {"location": self.name, "format": self.format}
        return known | ({"conversion": self.conversion} if self.conversion else {})

    @property
    def chosen(self) -> tuple[int, ...]:
        """The bands that tiles have; none where these are all, in their order."""
        return () if self.taken == tuple(range(1, self.bands + 1)) else self.taken

    @property
    def conversion(self) -> dict[str, Any] | None:
        """What was done to the pixels, for the features' ``sourceMetadata``; None where nothing was."""
        done: dict[str, Any] = {}
        if self.chosen:
            done["bands"] = list(self.chosen)
        if self.levels is not None:
            done["stretch"] = [list(levels) for levels in self.levels]
        return done or None

    def with_dem(self, dem: str) -> Image:
        """The same with its height model elsewhere, if it has one."""
        if self.georeference is None or self.georeference.dem is None:
            return self
        return replace(self, georeference=replace(self.georeference, dem=dem))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"georeference": self.georeference.to_dict() if self.georeference else None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Image:
        """Read it back."""
        levels, georeference = values["levels"], values["georeference"]
        return cls(
            **values
            | {
                "taken": tuple(values["taken"]),
                "levels": tuple((low, high) for low, high in levels) if levels else None,
                "colours": tuple(map(tuple, values["colours"])) if values["colours"] else None,
                "georeference": Georeference.from_dict(georeference) if georeference else None,
            }
        )


def describe(
    dataset: DatasetReader,
    name: str,
    cutting: Cutting,
    *,
    height: float | None = None,
    dem: str | None = None,
    dem_name: str | None = None,
) -> Image:
    """Find out what there is to know of an image, and whether it can be cut as asked.

    :param height: m above the ellipsoid, for an image with RPCs.
    :param dem: the location of a height model, likewise.
    :param dem_name: by which GDAL opens it, where that is not its location's.
    :raises RasterioError: its pixels cannot be read.
    :raises SourceError: it has no pixels, lacks a band, or its pixels do not go into such tiles.
    """
    if not dataset.count or not dataset.width or not dataset.height:
        raise SourceError(f"image {name!r} has {dataset.count} bands: there is nothing to cut tiles from")
    # What a truncated file lacks is its end.
    dataset.read(1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1))
    taken = cutting.bands or tuple(range(1, dataset.count + 1))
    if max(taken) > dataset.count:
        raise SourceError(f"image {name!r} has {dataset.count} bands and no band {max(taken)}: correct --bands")
    kinds = sorted({dataset.dtypes[band - 1] for band in taken})
    if len(kinds) > 1:
        raise SourceError(
            f"image {name!r} has bands of several types, {' and '.join(kinds)}: choose one of them with --bands"
        )
    colours = _colours(dataset, taken)
    if colours and (cutting.stretch or cutting.tile_format not in HAVE_COLOURS):
        raise SourceError(
            f"image {name!r} has a colour table, which can neither be stretched nor go into {cutting.tile_format}: "
            f"leave --stretch out, and set --tile-format to {' or '.join(HAVE_COLOURS)}"
        )
    levels = levels_of(dataset, taken, cutting.stretch) if cutting.stretch else None
    dtype = "uint8" if levels else dataset.dtypes[taken[0] - 1]
    size = (min(dataset.width, cutting.tile_size), min(dataset.height, cutting.tile_size))
    check_format(name, len(taken), dtype, size, cutting)
    return Image(
        name=name,
        format=_FORMATS.get(dataset.driver, dataset.driver),
        width=dataset.width,
        height=dataset.height,
        bands=dataset.count,
        dtype=dataset.dtypes[taken[0] - 1],
        taken=taken,
        levels=levels,
        crs=_crs(dataset),
        georeference=Georeference.of_dataset(dataset, height=height, dem=dem, dem_name=dem_name),
        colours=colours,
    )


def _colours(dataset: DatasetReader, taken: tuple[int, ...]) -> tuple[Colour, ...] | None:
    if len(taken) != 1 or dataset.colorinterp[taken[0] - 1] != ColorInterp.palette:
        return None
    colours: dict[int, Colour] = dataset.colormap(taken[0])
    return tuple(colours[value] for value in sorted(colours))


def _crs(dataset: DatasetReader) -> str | None:
    crs = dataset.crs or (dataset.gcps[1] if dataset.gcps[0] else None)
    return crs.to_string() if crs else None
