"""How images are cut into tiles: the options, and what goes together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from osml_tasks.errors import ExtensionConfigurationError

DEFAULT_TILE_SIZE = 1024
DEFAULT_OVERLAP = 50


class TileFormat(StrEnum):
    """What a tile is written as."""

    PNG = "PNG"
    JPEG = "JPEG"
    GTIFF = "GTIFF"
    NITF = "NITF"

    @property
    def suffix(self) -> str:
        """The ending of such a tile's object."""
        return _SUFFIXES[self]


class Compression(StrEnum):
    """How a tile's pixels are compressed."""

    NONE = "NONE"
    DEFLATE = "DEFLATE"
    LZW = "LZW"
    ZSTD = "ZSTD"
    JPEG = "JPEG"
    J2K = "J2K"


_SUFFIXES = {TileFormat.PNG: ".png", TileFormat.JPEG: ".jpg", TileFormat.GTIFF: ".tif", TileFormat.NITF: ".ntf"}

COMPRESSIONS: dict[TileFormat, tuple[Compression, ...]] = {
    TileFormat.PNG: (Compression.DEFLATE,),
    TileFormat.JPEG: (Compression.JPEG,),
    TileFormat.GTIFF: (
        Compression.DEFLATE,
        Compression.NONE,
        Compression.LZW,
        Compression.ZSTD,
        Compression.JPEG,
    ),
    TileFormat.NITF: (Compression.NONE, Compression.J2K, Compression.JPEG),
}
"""What each format can be compressed with; the first is its default."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """How images are cut.

    :ivar tile_size: width and height of a tile, px; an image that is smaller is one tile. Default 1024.
    :ivar overlap: what neighbours share at least, px; it grows until tiles of full size cover the image. Default 50.
    :ivar tile_format: what tiles are written as. Default PNG.
    :ivar compression: default: the format's own, see :data:`COMPRESSIONS`.
    :ivar bands: which bands of the image, from 1, in this order; default: all.
    :ivar stretch: percentiles between which pixels are stretched to 8 bits; default: pixels stay as they are.
    :raises ExtensionConfigurationError: a value is wrong, or two do not go together.
    """

    tile_size: int = DEFAULT_TILE_SIZE
    overlap: int = DEFAULT_OVERLAP
    tile_format: TileFormat = TileFormat.PNG
    compression: Compression | None = None
    bands: tuple[int, ...] = ()
    stretch: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # A frozen dataclass has no other way to take words, and JSON's lists, for what they name.
        for name, kind in (("tile_format", TileFormat), ("compression", Compression)):
            object.__setattr__(self, name, _named(kind, name, getattr(self, name)))
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "stretch", self.stretch and tuple(self.stretch))
        if self.tile_size < 1:
            raise ExtensionConfigurationError(f"a tile of {self.tile_size} px is none: set --tile-size to 1 at least")
        if not 0 <= self.overlap < self.tile_size:
            raise ExtensionConfigurationError(
                f"an overlap of {self.overlap} px does not go with tiles of {self.tile_size} px: "
                "set --overlap to 0 or more, and less than --tile-size"
            )
        if self.compression is not None and self.compression not in COMPRESSIONS[self.tile_format]:
            raise ExtensionConfigurationError(
                f"{self.tile_format} tiles cannot be compressed with {self.compression}: "
                f"set --tile-compression to {' or '.join(COMPRESSIONS[self.tile_format])}"
            )
        if any(band < 1 for band in self.bands):
            raise ExtensionConfigurationError(
                f"bands count from 1: set --bands to others than {','.join(map(str, self.bands))}"
            )
        if self.stretch is not None and not 0 <= self.stretch[0] < self.stretch[1] <= 100:
            low, high = self.stretch
            raise ExtensionConfigurationError(
                f"{low:g},{high:g} are no two percentiles: set --stretch to something like 2,98"
            )

    @property
    def compression_in_force(self) -> Compression:
        """``compression``, or the format's default."""
        return self.compression or COMPRESSIONS[self.tile_format][0]


def _named(kind: type[StrEnum], option: str, value: str | None) -> StrEnum | None:
    if value is None:
        return None
    try:
        return kind(value.upper())
    except ValueError:
        raise ExtensionConfigurationError(f"{option} is {value!r}: give one of {', '.join(kind)}") from None
