"""The sample model: finds bright objects on darker ground, such as ships on water or roofs among trees.

It learns nothing and knows nothing about ships. It stands where a real model would, needs no GPU, and
answers for real imagery in milliseconds, always the same for the same bytes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import filters, measure

CLASS_IRI = "bright-object"

NOISE_SIGMAS = 5.0  # an object stands out of the ground by this many standard deviations of its noise
MIN_AREA_PX = 8  # less is a speck
MAX_AREA_SHARE = 0.1  # of the tile; more is ground itself: land, cloud, a missing part
MIN_SCORE = 0.4  # less is the crest of a texture
GROUND_MARGIN_PX = 4  # width of the frame around an object that counts as its local ground

_SIGMA_PER_MAD = 1.4826  # of a normal distribution
_LEVELS_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

Grey = NDArray[Any]
Mask = NDArray[np.bool_]
Regions = NDArray[np.int64]

# scikit-image has no type hints.
_threshold_otsu: Callable[[Grey], Any] = filters.threshold_otsu
_label: Callable[..., Regions] = measure.label
_regionprops: Callable[[Regions], list[Any]] = measure.regionprops


def find_bright_objects(payload: bytes) -> dict[str, Any]:
    """Find the bright objects in one image tile.

    Pixels brighter than both Otsu's threshold (N. Otsu, "A Threshold Selection Method from Gray-Level
    Histograms", IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979, pp. 62-66) and the
    ground's median plus five robust standard deviations of its noise are grouped into connected
    regions. The second bound is what keeps a tile of nothing but noise empty (as long as black does
    not clip that noise). Regions of less than 8 px, or of more than a tenth of the tile, are no objects.

    The score, 0 to 1, is Otsu's measure of separability for an object and the ground within 4 px of
    its box: the variance between the two by the variance in total. 1 means two flat grey levels.

    :param payload: a PNG, JPEG, TIFF or other image that Pillow reads; 8 or 16 bit, any number of bands.
    :returns: a FeatureCollection in the OversightML convention: ``geometry`` is null, and
        ``imageGeometry`` (the box along the object's main axis) and ``imageBBox`` are in pixels of the
        tile, from its top left corner, x right, y down. Ordered from top to bottom.
    :raises ValueError: the payload is no image.
    """
    grey = _read_grey(payload)
    objects = _bright_regions(grey)
    features = [
        _feature(region, score)
        for region in _regionprops(objects)
        if (score := _separability(grey, objects, region)) >= MIN_SCORE
    ]
    return {"type": "FeatureCollection", "features": features}


def _read_grey(payload: bytes) -> Grey:
    """Decode to one band: integers of 8 or 16 bit where the image has those, else float32."""
    try:
        with Image.open(io.BytesIO(payload)) as image:
            return _grey(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"the payload of {len(payload)} bytes is no readable image: {error}") from error


def _grey(image: Image.Image) -> Grey:
    if image.mode in _LEVELS_16_BIT:
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    return np.asarray(image.convert("L"))


def _bright_regions(grey: Grey) -> Regions:
    """Number the regions that are objects, 1 and up; 0 is ground."""
    if grey.min() == grey.max():
        return np.zeros(grey.shape, dtype=np.int64)
    bright = grey > max(float(_threshold_otsu(grey)), _noise_ceiling(grey))
    regions = _label(bright, connectivity=2)
    areas = np.bincount(regions.ravel())
    kept = (areas >= MIN_AREA_PX) & (areas <= MAX_AREA_SHARE * grey.size)
    kept[0] = False
    return np.where(kept[regions], regions, 0)


def _noise_ceiling(grey: Grey) -> float:
    """Return the grey level that noise of the ground does not reach."""
    levels = grey.astype(np.float32)
    ground = float(np.median(levels))
    deviation = float(np.median(np.abs(levels - ground)))
    # One grey level at least: a flat ground has no measurable noise, yet is quantised.
    return ground + NOISE_SIGMAS * max(_SIGMA_PER_MAD * deviation, 1.0)


def _separability(grey: Grey, objects: Regions, region: Any) -> float:
    """Return Otsu's separability of an object and its local ground, 0 to 1."""
    top, left, bottom, right = region.bbox
    window = np.s_[
        max(top - GROUND_MARGIN_PX, 0) : bottom + GROUND_MARGIN_PX,
        max(left - GROUND_MARGIN_PX, 0) : right + GROUND_MARGIN_PX,
    ]
    levels = grey[window].astype(np.float64)
    inside: Mask = objects[window] == region.label
    ground: Mask = objects[window] == 0
    return _variance_ratio(levels[inside], levels[ground])


def _variance_ratio(inside: Grey, ground: Grey) -> float:
    if not ground.size or inside.mean() <= ground.mean():
        return 0.0
    share = inside.size / (inside.size + ground.size)
    between = share * (1 - share) * float(inside.mean() - ground.mean()) ** 2
    within = share * float(inside.var()) + (1 - share) * float(ground.var())
    return between / (between + within)


def _feature(region: Any, score: float) -> dict[str, Any]:
    top, left, bottom, right = region.bbox
    return {
        "type": "Feature",
        "geometry": None,
        "properties": {
            "imageGeometry": {"type": "Polygon", "coordinates": [_main_axis_box(region)]},
            "imageBBox": [float(left), float(top), float(right), float(bottom)],
            "featureClasses": [{"iri": CLASS_IRI, "score": round(score, 4)}],
            "area_px": int(region.area),
        },
    }


def _main_axis_box(region: Any) -> list[list[float]]:
    """Return the closed ring of the box along the main axis that holds all of the object's pixels."""
    centers = region.coords[:, ::-1] + 0.5
    middle = centers.mean(axis=0)
    axes = np.linalg.eigh(np.cov((centers - middle).T))[1]
    # Half the extent of a pixel, a unit square, along each axis.
    half_pixel = np.abs(axes).sum(axis=0) / 2
    along = (centers - middle) @ axes
    low, high = along.min(axis=0) - half_pixel, along.max(axis=0) + half_pixel
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    ring = np.round(middle + corners @ axes.T, 2).tolist()
    return [*ring, ring[0]]
