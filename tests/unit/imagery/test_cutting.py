"""The options that say how images are cut."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
import pytest

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.cutting import COMPRESSIONS, Compression, Cutting, TileFormat


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 0}, "a tile of 0 px is none: set --tile-size to 1 at least"),
        (
            {"tile_size": 512, "overlap": 512},
            "an overlap of 512 px does not go with tiles of 512 px: set --overlap to 0 or more, and less than "
            "--tile-size",
        ),
        (
            {"overlap": -1},
            "an overlap of -1 px does not go with tiles of 1024 px: set --overlap to 0 or more, and less than "
            "--tile-size",
        ),
        ({"tile_format": "GIF"}, "tile_format is 'GIF': give one of PNG, JPEG, GTIFF, NITF"),
        ({"compression": "ZIP"}, "compression is 'ZIP': give one of NONE, DEFLATE, LZW, ZSTD, JPEG, J2K"),
        (
            {"tile_format": "NITF", "compression": "LZW"},
            "NITF tiles cannot be compressed with LZW: set --tile-compression to NONE or J2K or JPEG",
        ),
        ({"bands": (0, 1)}, "bands count from 1: set --bands to others than 0,1"),
        ({"stretch": (98, 2)}, "98,2 are no two percentiles: set --stretch to something like 2,98"),
        ({"stretch": (2, 101)}, "2,101 are no two percentiles: set --stretch to something like 2,98"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExtensionConfigurationError) as refused:
        Cutting(**options)
    assert str(refused.value) == message


def test_a_tile_that_is_smaller_than_the_usual_overlap_needs_an_overlap_of_its_own() -> None:
    with pytest.raises(ExtensionConfigurationError, match="overlap of 50 px does not go with tiles of 32 px"):
        Cutting(tile_size=32)


@pytest.mark.parametrize("tile_format", TileFormat)
def test_each_format_is_compressed_as_is_usual_with_it(tile_format: TileFormat) -> None:
    usual = {"PNG": "DEFLATE", "JPEG": "JPEG", "GTIFF": "DEFLATE", "NITF": "NONE"}
    assert Cutting(tile_format=tile_format).compression_in_force == usual[tile_format]
    for compression in Compression:
        if compression in COMPRESSIONS[tile_format]:
            assert Cutting(tile_format=tile_format, compression=compression).compression_in_force is compression
        else:
            with pytest.raises(ExtensionConfigurationError):
                Cutting(tile_format=tile_format, compression=compression)


def test_names_are_taken_in_any_case() -> None:
    assert Cutting(tile_format="gtiff", compression="lzw") == Cutting(  # type: ignore[arg-type]
        tile_format=TileFormat.GTIFF, compression=Compression.LZW
    )


def test_it_travels_as_json() -> None:
    cutting = Cutting(512, 64, TileFormat.GTIFF, Compression.ZSTD, (3, 2, 1), (2.0, 98.0))
    assert Cutting(**orjson.loads(orjson.dumps(asdict(cutting)))) == cutting
