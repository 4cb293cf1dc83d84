"""Where an image's pixels lie on the globe: what is known of it, and the way from pixels to longitude and latitude."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio._path import _UnparsedPath
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform as warp

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.imagery.formats import RASTERS
from osml_tasks.imagery.gdal_s3 import gdal_path

Floats = npt.NDArray[np.float64]

WGS84 = "EPSG:4326"

# GDAL turns longitudes back by one round at a time: what is much farther away would take it for ever.
_FARTHEST_PIXEL = 1e7
# Grids whose outermost pixels have their centres on a pole reach beyond it by half a pixel.
_BEYOND_POLE = 5.0
_RPC_PIXEL_ERROR = 1e-4  # GDAL stops at 0.1 px


class Transformer(Protocol):
    """The way from an image's pixels to the globe; one may be used by several threads."""

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Longitudes and latitudes in degrees of WGS 84.

        :param x: pixels of the image from its left edge; 0 is the left edge of the leftmost pixel.
        :param y: pixels from its upper edge, downwards.
        :returns: NaN where there is no place. Longitudes of an image in geographic coordinates go on
            beyond 180 degrees where the image does, so that a shape over the date line stays in one piece.
        """
        ...


@dataclass(frozen=True, slots=True)
class Georeference:
    """What an image says about its place: an affine transform, ground control points, or RPCs; one of them.

    :ivar crs: of what the transform or the points give, ``EPSG:<number>`` or WKT.
    :ivar affine: ``(a, b, c, d, e, f)`` with ``x' = a x + b y + c`` and ``y' = d x + e y + f``.
    :ivar gcps: ``(column, row, x, y)`` of each ground control point.
    :ivar rpcs: rational polynomial coefficients, by rasterio's names.
    :ivar height: m above the ellipsoid, for RPCs: of the whole image, or where ``dem`` says nothing.
        None is the height in whose middle the RPCs were fitted.
    :ivar dem: elevations for RPCs: a file or an ``s3://`` URI that GDAL reads.
    """

    crs: str
    affine: tuple[float, ...] | None = None
    gcps: tuple[tuple[float, ...], ...] = ()
    rpcs: Mapping[str, Any] | None = None
    height: float | None = None
    dem: str | None = None

    @classmethod
    def of_dataset(
        cls, dataset: Any, height: float | None = None, dem: str | None = None, *, dem_name: str | None = None
    ) -> Georeference | None:
        """What an open rasterio dataset says; None where it says nothing that leads to the globe.

        The order is GDAL's: an affine transform with its CRS, then ground control points with theirs, then
        RPCs. A height or a DEM asks for the RPCs, where there are any; without RPCs both are of no use.

        :param dem_name: by which GDAL opens the DEM, where that is not its location's.
        :raises ExtensionConfigurationError: the DEM cannot be read, or does not reach the image's middle.
        """
        if dataset.rpcs is not None and (height is not None or dem is not None):
            asked = cls._of_rpcs(dataset.rpcs, height, dem)
            asked._check_dem(dataset.width / 2, dataset.height / 2, dem_name)
            return asked
        if dataset.transform != Affine.identity() and _leads_to_globe(dataset.crs):
            return cls(_name(dataset.crs), affine=tuple(dataset.transform)[:6])
        points, crs = dataset.gcps
        if points and _leads_to_globe(crs):
            return cls(_name(crs), gcps=tuple((point.col, point.row, point.x, point.y) for point in points))
        return None if dataset.rpcs is None else cls._of_rpcs(dataset.rpcs, None, None)

    @classmethod
    def _of_rpcs(cls, rpcs: RPC, height: float | None, dem: str | None) -> Georeference:
        return cls(WGS84, rpcs=rpcs.to_dict(), height=height, dem=dem)

    def _check_dem(self, x: float, y: float, dem_name: str | None) -> None:
        if self.dem is None or self.height is not None:
            return
        longitudes, _ = self.transformer(dem_name).to_lonlat(np.array([x]), np.array([y]))
        if np.isnan(longitudes[0]):
            raise ExtensionConfigurationError(
                f"the DEM {self.dem} has no elevation at the image's middle: give one that covers the image, "
                "or a height for where it says nothing"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Georeference:
        """The inverse of :meth:`to_dict`, from lists as JSON has them."""
        affine = values["affine"]
        return cls(
            values["crs"],
            affine=None if affine is None else tuple(affine),
            gcps=tuple(tuple(point) for point in values["gcps"]),
            rpcs=values["rpcs"],
            height=values["height"],
            dem=values["dem"],
        )

    @classmethod
    def from_json(cls, text: str) -> Georeference:
        """The inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))

    def to_json(self) -> str:
        """All of it as text."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All of it, in values that JSON has."""
        return asdict(self)

    def transformer(self, dem_name: str | None = None) -> Transformer:
        """The way to the globe. Make it once in a process, after a fork, and use it again.

        With a DEM in S3, make and use it inside the ``rasterio.Env`` that has the credentials.

        :param dem_name: by which GDAL opens the DEM, where that is not its location's; it does so at once.
        :raises ExtensionConfigurationError: the DEM cannot be read.
        """
        if self.affine is not None:
            return _AffineWay(self.affine, self.crs)
        if self.gcps:
            return _ControlPointsWay(self.gcps, self.crs)
        return _RationalWay(self, dem_name)


class _AffineWay:
    def __init__(self, affine: tuple[float, ...], crs: str) -> None:
        self._affine = affine
        self._crs = CRS.from_user_input(crs)
        self._is_wgs84 = self._crs == CRS.from_user_input(WGS84)

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        a, b, c, d, e, f = self._affine
        x, y = _near(x, y)
        east, north = a * x + b * y + c, d * x + e * y + f
        return _on_globe(east, north) if self._is_wgs84 else _on_globe(*_warped(self._crs, east, north))


class _ControlPointsWay:
    """A polynomial through the points, of the order that GDAL takes for their number."""

    def __init__(self, points: tuple[tuple[float, ...], ...], crs: str) -> None:
        self._crs = CRS.from_user_input(crs)
        self._is_wgs84 = self._crs == CRS.from_user_input(WGS84)
        longitudes = [point[2] for point in points]
        # Points on both sides of the date line give a polynomial only where longitudes do not jump.
        over_date_line = self._crs.is_geographic and max(longitudes) - min(longitudes) > 180
        self._lock = threading.Lock()
        self._polynomial = GCPTransformer(
            [
                GroundControlPoint(row, column, x + 360 if over_date_line and x < 0 else x, y)
                for column, row, x, y in points
            ]
        )

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        east, north = _by_gdal(self._polynomial, self._lock, *_near(x, y))
        return _on_globe(east, north) if self._is_wgs84 else _on_globe(*_warped(self._crs, east, north))


class _RationalWay:
    def __init__(self, georeference: Georeference, dem_name: str | None) -> None:
        self._lock = threading.Lock()
        rpcs = RPC(**(georeference.rpcs or {}))
        self._rpcs = RPCTransformer(rpcs, **_rpc_options(georeference, dem_name))
        if georeference.dem is not None:
            # GDAL opens the DEM with the first of its points.
            self.to_lonlat(np.array([rpcs.samp_off]), np.array([rpcs.line_off]))

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return _on_globe(*_by_gdal(self._rpcs, self._lock, *_near(x, y)))


def _rpc_options(georeference: Georeference, dem_name: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {"rpc_pixel_error_threshold": _RPC_PIXEL_ERROR}
    height, dem = georeference.height, georeference.dem
    if dem is None:
        middle = (georeference.rpcs or {})["height_off"]
        return options | {"rpc_height": middle if height is None else height}
    if height is not None:
        options["rpc_dem_missing_value"] = height
    name = dem_name or gdal_path(dem)
    _check_height_model(dem, name)
    return options | {"rpc_dem": name}


def _check_height_model(dem: str, name: str) -> None:
    """Find out whether GDAL reads a DEM by some name.

    :raises ExtensionConfigurationError: it cannot be read, or has no place.
    """
    formats = ["VRT"] if name.startswith("/vsimem/") else list(RASTERS)
    try:
        with DatasetReader(_UnparsedPath(name), driver=formats) as dataset:
            placed = dataset.crs is not None
            dataset.read(1, window=((0, 1), (0, 1)))
    except (RasterioError, CPLE_BaseError, OSError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ExtensionConfigurationError(f"the DEM {dem} cannot be read: {reason}") from None
    if not placed:
        raise ExtensionConfigurationError(f"the DEM {dem} has no coordinate system: give one that is georeferenced")


def _leads_to_globe(crs: CRS | None) -> bool:
    """Whether it is a system of coordinates on the earth, and no local one."""
    return crs is not None and (crs.is_geographic or crs.is_projected)


def _name(crs: CRS) -> str:
    number = crs.to_epsg()
    if number is not None and CRS.from_epsg(number) == crs:
        return f"EPSG:{number}"
    return str(crs.to_wkt(version="WKT2_2019"))


def _near(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """NaN for what is so far from any image that it is no place."""
    farther = np.maximum(np.abs(x), np.abs(y))
    if farther.max(initial=0) < _FARTHEST_PIXEL:
        return x, y
    near = farther < _FARTHEST_PIXEL
    return np.where(near, x, np.nan), np.where(near, y, np.nan)


def _on_globe(longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    """NaN for what is no place, and what lies beyond a pole by less than a coarse pixel put on it."""
    from_equator = np.abs(latitude)
    if np.isfinite(longitude).all() and from_equator.max(initial=0) <= 90:
        return longitude, latitude
    placed = np.isfinite(longitude) & (from_equator <= 90 + _BEYOND_POLE)
    return np.where(placed, longitude, np.nan), np.where(placed, np.clip(latitude, -90, 90), np.nan)


def _warped(crs: CRS, east: Floats, north: Floats) -> tuple[Floats, Floats]:
    """To WGS 84; GDAL refuses all points together where one has no place."""
    finite = np.isfinite(east + north)
    if not finite.all():
        longitude, latitude = np.full_like(east, np.nan), np.full_like(north, np.nan)
        if finite.any():
            longitude[finite], latitude[finite] = _warped(crs, east[finite], north[finite])
        return longitude, latitude
    try:
        longitudes, latitudes = warp(crs, WGS84, east, north)
    except (RasterioError, CPLE_BaseError):
        return _warped_in_halves(crs, east, north)
    return np.asarray(longitudes, dtype=np.float64), np.asarray(latitudes, dtype=np.float64)


def _warped_in_halves(crs: CRS, east: Floats, north: Floats) -> tuple[Floats, Floats]:
    if len(east) == 1:
        return np.array([np.nan]), np.array([np.nan])
    middle = len(east) // 2
    first, second = _warped(crs, east[:middle], north[:middle]), _warped(crs, east[middle:], north[middle:])
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _by_gdal(
    transformer: GCPTransformer | RPCTransformer, lock: threading.Lock, x: Floats, y: Floats
) -> tuple[Floats, Floats]:
    """What GDAL's transformer gives; its state is not for two threads at once."""
    near = np.isfinite(x)
    first, second = np.full_like(x, np.nan), np.full_like(x, np.nan)
    if near.any():
        with lock:
            first[near], second[near] = transformer.xy(y[near], x[near], offset="ul")
    return first, second
