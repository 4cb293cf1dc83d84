"""What is looked at in an open image before any pixel of it is read."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from rasterio.io import DatasetReader

from osml_tasks.errors import ImageTooCostlyError, NotAllowedError

_LARGEST_SAMPLE = 16  # bytes: complex numbers in double precision


def check_readable(dataset: DatasetReader, location: str, max_block_bytes: int) -> None:
    """Refuse what takes more memory than there is for it, and what leads to other files.

    GDAL decodes whole blocks, whatever is read of them.

    :raises ImageTooCostlyError: a block is larger.
    :raises NotAllowedError: it names a file with its overviews.
    """
    if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
        raise NotAllowedError(
            f"image {location!r} names another file that has its overviews: make a copy without them, "
            "with gdal_translate -of COG"
        )
    size, (rows, columns) = (
        max(
            (rows * columns * _bytes_of(dtype), (rows, columns))
            for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True)
        )
        if dataset.count
        else (0, (0, 0))
    )
    if dataset.interleaving is None or dataset.interleaving.name.lower() == "pixel":
        size *= dataset.count
    if size > max_block_bytes:
        raise ImageTooCostlyError(
            f"image {location!r} is stored in blocks of {columns} x {rows} px that take {size:,} bytes each, more "
            f"than the {max_block_bytes:,} that are decoded at once: make a copy with smaller ones, with "
            "gdal_translate -of COG, or raise ASYNC_SM_MAX_BLOCK_BYTES"
        )


def _bytes_of(dtype: str) -> int:
    with suppress(TypeError):
        return np.dtype(dtype).itemsize
    return _LARGEST_SAMPLE
