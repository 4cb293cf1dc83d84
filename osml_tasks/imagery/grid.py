"""Where the tiles of an image lie."""

from __future__ import annotations

from osml_tasks.imagery.window import Window


def offsets(length: int, tile_size: int, overlap: int) -> list[int]:
    """Where tiles begin along one side of an image, px.

    All of them have full size; there are as few as overlap by the minimum, and they spread evenly, so that the
    overlap grows just enough for the last to end where the image does. A side shorter than a tile has one.

    >>> offsets(2576, 512, 128)
    [0, 344, 688, 1032, 1376, 1720, 2064]

    :param length: of the side, px.
    :param overlap: what neighbours share at least, px; less than ``tile_size``.
    """
    if length <= tile_size:
        return [0]
    steps = -(-(length - tile_size) // (tile_size - overlap))
    return [step * (length - tile_size) // steps for step in range(steps + 1)]


def windows(width: int, height: int, tile_size: int, overlap: int) -> list[Window]:
    """The tiles of an image, row by row; all in px."""
    across = offsets(width, tile_size, overlap)
    return [
        Window(y=y, x=x, width=min(tile_size, width), height=min(tile_size, height))
        for y in offsets(height, tile_size, overlap)
        for x in across
    ]
