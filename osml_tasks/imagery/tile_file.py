"""What a tile is written as: which pixels each format takes, and its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rasterio.io import MemoryFile
from rasterio.shutil import copy

from osml_tasks.endpoint import MAX_INPUT_BYTES
from osml_tasks.errors import SourceError
from osml_tasks.imagery.cutting import Compression, Cutting, TileFormat
from osml_tasks.imagery.stretch import Pixels


@dataclass(frozen=True, slots=True)
class _Takes:
    """What GDAL's driver of a format can write.

    :ivar dtypes: of pixels; none: all.
    :ivar bands: how many; none: any number.
    :ivar side: px at most.
    """

    dtypes: tuple[str, ...] = ()
    bands: tuple[int, ...] = ()
    side: int = 1 << 30

    def __str__(self) -> str:
        bands = f"{' or '.join(map(str, self.bands))} bands" if self.bands else "any bands"
        return f"{bands} of {' or '.join(self.dtypes) if self.dtypes else 'anything'}"


Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, 0 to 255."""

HAVE_COLOURS = (TileFormat.PNG, TileFormat.GTIFF)
"""The formats that can have a colour table."""

_JPEG = _Takes(("uint8",), (1, 3), 65_500)
_TAKES = {
    TileFormat.PNG: _Takes(("uint8", "uint16"), (1, 2, 3, 4)),
    TileFormat.JPEG: _JPEG,
    TileFormat.GTIFF: _Takes(),
    TileFormat.NITF: _Takes(("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"), side=99_999_999),
}
_COMPRESSED_TAKES = {Compression.JPEG: _JPEG, Compression.J2K: _Takes(("uint8", "uint16", "int16"), (1, 3))}

# The fastest deflate: a PNG of a scene is 5 to 10 % larger, and takes a third of the time.
_GTIFF_OPTIONS: dict[Compression, dict[str, Any]] = {
    Compression.NONE: {},
    Compression.DEFLATE: {"compress": "DEFLATE", "zlevel": 1},
    Compression.LZW: {"compress": "LZW"},
    Compression.ZSTD: {"compress": "ZSTD"},
    Compression.JPEG: {"compress": "JPEG"},
}
_NITF_CODES = {Compression.NONE: "NC", Compression.J2K: "C8", Compression.JPEG: "C3"}


def check_format(name: str, bands: int, dtype: str, size: tuple[int, int], cutting: Cutting) -> None:
    """Find out whether tiles of an image go into the format that is asked for.

    :param name: of the image.
    :param size: of its largest tile, width and height in px.
    :raises SourceError: they do not; it says what would help.
    """
    compression = cutting.compression_in_force
    for takes in (_TAKES[cutting.tile_format], _COMPRESSED_TAKES.get(compression, _Takes())):
        if (takes.dtypes and dtype not in takes.dtypes) or (takes.bands and bands not in takes.bands):
            kind = (
                cutting.tile_format
                if takes is _TAKES[cutting.tile_format]
                else f"{compression} in {cutting.tile_format}"
            )
            raise SourceError(
                f"tiles of {name!r} would have {bands} bands of {dtype}, and {kind} takes {takes}: "
                "choose bands with --bands, stretch pixels to 8 bits with --stretch 2,98, or keep them as they are "
                "with --tile-format GTIFF"
            )
        if max(size) > takes.side:
            raise SourceError(
                f"tiles of {size[0]} x {size[1]} px are larger than {cutting.tile_format} can hold, {takes.side} px: "
                "lower --tile-size"
            )
    if (raw := size[0] * size[1] * bands * _bytes_of(dtype)) > MAX_INPUT_BYTES:
        raise SourceError(
            f"tiles of {size[0]} x {size[1]} px with {bands} bands of {dtype} have {raw:,} bytes; an endpoint takes "
            "1,000,000,000 at most: lower --tile-size"
        )


def _bytes_of(dtype: str) -> int:
    bits = int("".join(filter(str.isdigit, dtype)) or 8)
    return max(1, bits // 8)


def encode(pixels: Pixels, cutting: Cutting, place: dict[str, Any], colours: Sequence[Colour] | None = None) -> bytes:
    """The bytes of a tile.

    :param pixels: bands, rows, columns.
    :param place: where it is on the globe, as keywords of ``rasterio.open``; only a GeoTIFF tells.
    :param colours: of each pixel value, for the formats of :data:`HAVE_COLOURS`.
    """
    bands, height, width = pixels.shape
    profile: dict[str, Any] = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    if cutting.tile_format is TileFormat.NITF:
        return _encode_nitf(pixels, profile, _NITF_CODES[cutting.compression_in_force])
    with MemoryFile() as file:
        with file.open(**profile, **_options(cutting, bands, place)) as dataset:
            if colours:
                dataset.write_colormap(1, dict(enumerate(colours)))
            dataset.write(pixels)
        return bytes(file.getbuffer())


def _encode_nitf(pixels: Pixels, profile: dict[str, Any], code: str) -> bytes:
    """The bytes of a NITF, which GDAL compresses only where it copies another file."""
    with MemoryFile() as source, MemoryFile(ext=".ntf") as file:
        with source.open(driver="GTiff", **profile) as dataset:
            dataset.write(pixels)
        with source.open() as dataset:
            copy(dataset, file.name, driver="NITF", ic=code)
        return bytes(file.getbuffer())


def _options(cutting: Cutting, bands: int, place: dict[str, Any]) -> dict[str, Any]:
    """How a format's driver is to write."""
    compression = cutting.compression_in_force
    match cutting.tile_format:
        case TileFormat.PNG:
            return {"driver": "PNG", "zlevel": 1}
        case TileFormat.JPEG:
            return {"driver": "JPEG", "quality": 90}
        case _:
            interleave = {"interleave": "pixel"} if bands > 1 else {}
            return {"driver": "GTiff", **interleave, **_GTIFF_OPTIONS[compression], **place}
