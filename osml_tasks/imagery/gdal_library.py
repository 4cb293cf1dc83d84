"""What rasterio does not offer of GDAL: fewer formats and file systems in this process, and a file's bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import rasterio
from rasterio import _env

from osml_tasks.imagery.formats import RASTERS

_KEPT = (*RASTERS, "MEM")  # rasterio writes through MEM
_VRT = b"VRT"
# NITF and JPEG 2000 read parts of their own file by the first.
_KEPT_FILE_SYSTEMS = (b"/vsisubfile/", b"/vsimem/", b"/vsis3/")


@lru_cache(maxsize=1)
def _gdal() -> ctypes.CDLL:
    """The library that rasterio is linked with, found through one of its modules."""
    library = ctypes.CDLL(_env.__file__)
    for name in ("GDALGetDriver", "GDALGetDriverByName", "VSIFOpenL"):
        getattr(library, name).restype = ctypes.c_void_p
    library.GDALGetDriverShortName.restype = ctypes.c_char_p
    library.VSIGetFileSystemsPrefixes.restype = ctypes.POINTER(ctypes.c_char_p)
    library.VSIFReadL.restype = ctypes.c_size_t
    library.VSIFOpenL.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    library.VSIFReadL.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
    library.VSIFCloseL.argtypes = (ctypes.c_void_p,)
    library.GDALGetDriverShortName.argtypes = (ctypes.c_void_p,)
    library.GDALDeregisterDriver.argtypes = (ctypes.c_void_p,)
    library.GDALRegisterDriver.argtypes = (ctypes.c_void_p,)
    library.CPLSetConfigOption.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    return library


def read_file(path: str, most: int) -> bytes:
    """The bytes of a file, by GDAL's name of it; of a longer one, the first ``most``.

    Objects in S3 need the ``rasterio.Env`` that has the credentials.

    :raises FileNotFoundError: it cannot be opened.
    """
    library = _gdal()
    file = library.VSIFOpenL(path.encode(), b"rb")
    if not file:
        raise FileNotFoundError(f"{path}: No such file, or it cannot be opened")
    try:
        pieces, left = [], most
        while left > 0:
            buffer = ctypes.create_string_buffer(min(left, 1024 * 1024))
            count = library.VSIFReadL(buffer, 1, len(buffer), file)
            if not count:
                break
            pieces.append(buffer.raw[:count])
            left -= count
        return b"".join(pieces)
    finally:
        library.VSIFCloseL(file)


def confine() -> None:
    """Leave GDAL in this process, for good, no format but those that are read, and nothing that fetches but S3.

    What opens a file by name inside GDAL, such as a source of a VRT, or a height model, gets no further.
    """
    library = _gdal()
    with rasterio.Env():
        count = library.GDALGetDriverCount()
        names = [library.GDALGetDriverShortName(library.GDALGetDriver(number)).decode() for number in range(count)]
    # GDAL registers all of them again with each environment of rasterio's, less these.
    library.CPLSetConfigOption(b"GDAL_SKIP", ",".join(name for name in names if name not in _KEPT).encode())
    library.GDALAllRegister()
    prefixes = library.VSIGetFileSystemsPrefixes()
    for number in range(10_000):
        prefix = prefixes[number]
        if prefix is None:
            break
        if prefix not in _KEPT_FILE_SYSTEMS:
            library.VSIRemovePluginHandler(prefix)


class VrtDriver:
    """GDAL's driver of VRTs in a confined process, registered while something is opened with it and no longer.

    So a VRT opens, and no source of it is ever taken for a VRT.
    """

    def __init__(self) -> None:
        self._driver: int | None = None

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Have it for a block that opens a VRT; one at a time."""
        library = _gdal()
        if self._driver is None:
            library.GDALRegister_VRT()
            self._driver = library.GDALGetDriverByName(_VRT)
        else:
            library.GDALRegisterDriver(self._driver)
        try:
            yield
        finally:
            # Not destroyed: what is open refers to it.
            library.GDALDeregisterDriver(self._driver)
