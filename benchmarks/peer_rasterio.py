"""The plain way to cut tiles: rasterio in a loop over one open image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import rasterio
from rasterio.io import MemoryFile
from rasterio.windows import Window as Rectangle

from osml_tasks.imagery.window import Window


def cut(path: Path, windows: Iterable[Window], options: dict[str, Any], *, georeferenced: bool) -> Iterator[bytes]:
    """The tiles of an image.

    :param options: of the driver that writes them.
    :param georeferenced: whether they say where on the globe they are.
    """
    with rasterio.open(path) as image:
        for window in windows:
            rectangle = Rectangle(window.x, window.y, window.width, window.height)
            pixels = image.read(window=rectangle)
            bands, height, width = pixels.shape
            profile = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype, **options}
            if georeferenced:
                profile |= {"crs": image.crs, "transform": image.window_transform(rectangle)}
            with MemoryFile() as file:
                with file.open(**profile) as tile:
                    tile.write(pixels)
                yield file.read()
