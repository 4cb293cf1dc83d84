"""Where a tile lies on the globe, for the formats that tell."""

from __future__ import annotations

from typing import Any

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

from osml_tasks.imagery.georeference import Georeference
from osml_tasks.imagery.window import Window


def place_of(georeference: Georeference | None, window: Window) -> dict[str, Any]:
    """Keywords of ``rasterio.open`` that give a tile the georeference of its image, seen from the tile's corner."""
    if georeference is None:
        return {}
    if georeference.rpcs is not None:
        return {"rpcs": _moved(RPC(**georeference.rpcs), window)}
    crs = CRS.from_user_input(georeference.crs)
    if georeference.affine is not None:
        return {"crs": crs, "transform": Affine(*georeference.affine) @ Affine.translation(window.x, window.y)}
    points = [GroundControlPoint(row - window.y, column - window.x, x, y) for column, row, x, y in georeference.gcps]
    return {"crs": crs, "gcps": points}


def _moved(rpcs: RPC, window: Window) -> RPC:
    rpcs.line_off -= window.y
    rpcs.samp_off -= window.x
    return rpcs
