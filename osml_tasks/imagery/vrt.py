"""A VRT of strangers: read as XML against a list of what it may say, and written anew from what was understood.

GDAL itself would open whatever a source's name leads to: inline XML, raw bytes of any file, URLs. What is not on the
list is refused, and what is opened is what was written here, not what was found.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from osml_tasks.errors import NotAllowedError
from osml_tasks.imagery.gdal_s3 import gdal_path, location_of
from osml_tasks.one_line import in_one_line

MOST_BYTES = 16 * 1024 * 1024
"""A longer text is not read."""
MOST_SOURCES = 20_000
"""Of all bands together."""


_Known = Mapping[str, tuple[str, ...]]
"""Elements that are taken over with their text, and which attributes of them."""

_OF_DATASET: _Known = {"SRS": ("dataAxisToSRSAxisMapping", "coordinateEpoch"), "GeoTransform": ()}
_OF_BAND: _Known = {
    **dict.fromkeys(("Description", "UnitType", "NoDataValue", "HideNoDataValue"), ()),
    **dict.fromkeys(("Offset", "Scale", "ColorInterp"), ()),
}
_RECTANGLE = ("xOff", "yOff", "xSize", "ySize")
_SIMPLE: _Known = {"SrcRect": _RECTANGLE, "DstRect": _RECTANGLE}
_COMPLEX: _Known = {
    **_SIMPLE,
    **dict.fromkeys(("NODATA", "ScaleOffset", "ScaleRatio", "ColorTableComponent", "Exponent", "LUT"), ()),
    **dict.fromkeys(("UseMaskBand", "SrcMin", "SrcMax", "DstMin", "DstMax", "Clamp"), ()),
}
_SOURCES: dict[str, _Known] = {"SimpleSource": _SIMPLE, "ComplexSource": _COMPLEX}
# What says nothing of pixels or place, and may lead elsewhere.
_LEFT_OUT = {"Metadata", "Histograms", "CategoryNames"}
_PROPERTIES = ("RasterXSize", "RasterYSize", "DataType", "BlockXSize", "BlockYSize")
_COLOURS = ("c1", "c2", "c3", "c4")


def is_vrt(location: str) -> bool:
    """Whether something is a VRT: its name says so. What has another name is never opened as one."""
    return location.lower().endswith(".vrt")


@dataclass(frozen=True, slots=True)
class Properties:
    """What GDAL wants to know of a source before it opens it, as a VRT has it."""

    width: int
    height: int
    dtype: str
    block_width: int
    block_height: int


@dataclass(frozen=True, slots=True)
class VrtSource:
    """A file or object that a VRT takes pixels of.

    :ivar location: a path from the root on, or an ``s3://`` URI.
    :ivar box: where its pixels go in the VRT: left, top, right, bottom in px.
    """

    location: str
    box: tuple[float, float, float, float]

    def meets(self, left: float, top: float, width: float, height: float) -> bool:
        """Whether a rectangle of the VRT, in px, has pixels of it."""
        return self.box[0] < left + width and left < self.box[2] and self.box[1] < top + height and top < self.box[3]


class Vrt:
    """A VRT as far as it is understood.

    :param text: all of it.
    :param location: where it lies; relative names start there.
    :param allowed: says by which name a location may be opened, or raises NotAllowedError.
    :ivar sources: what it takes pixels of.
    :raises NotAllowedError: it says something that is not on the list, or names what may not be read.
    """

    def __init__(self, text: bytes, location: str, allowed: Callable[[str], str]) -> None:
        self._location = location
        self._allowed = cache(allowed)  # of the bands of an image, each names the same
        self._incomplete: list[tuple[Element, str]] = []
        self.sources: list[VrtSource] = []
        self._root = self._dataset(self._parsed(text))

    @property
    def incomplete(self) -> list[str]:
        """Locations of sources of which it does not say what GDAL wants to know."""
        return list(dict.fromkeys(location for _, location in self._incomplete))

    def complete(self, location: str, known: Properties) -> None:
        """Add what was missing about a source, so that GDAL does not open it to find out."""
        values = (known.width, known.height, known.dtype, known.block_width, known.block_height)
        for source, its_location in self._incomplete:
            if its_location == location:
                attributes = dict(zip(_PROPERTIES, map(str, values), strict=True))
                source.append(Element("SourceProperties", attributes))

    def to_xml(self) -> str:
        """All that was understood, with names that do not depend on where it lies."""
        return tostring(self._root, encoding="unicode")

    def _refusal(self, what: str) -> NotAllowedError:
        return NotAllowedError(
            f"VRT {self._location!r} {in_one_line(what, 200)}: simple and complex sources that are files by name are "
            "all that is read; gdal_translate makes a GeoTIFF of anything else"
        )

    def _parsed(self, text: bytes) -> Element:
        if len(text) > MOST_BYTES:
            raise self._refusal(f"has more than {MOST_BYTES:,} bytes")
        try:
            root: Element = fromstring(text, forbid_dtd=True)
        except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
            raise self._refusal(f"is no plain XML ({type(error).__name__}: {error})") from None
        if root.tag != "VRTDataset":
            raise self._refusal(f"is a {root.tag!r}")
        return root

    def _dataset(self, given: Element) -> Element:
        self._check_attributes(given, ("rasterXSize", "rasterYSize"))
        root = Element("VRTDataset", given.attrib)
        for child in given:
            match child.tag:
                case "VRTRasterBand":
                    root.append(self._band(child, ("dataType", "band", "blockXSize", "blockYSize")))
                case "MaskBand":
                    mask = SubElement(root, "MaskBand")
                    mask.extend([self._band(one, ("dataType", "blockXSize", "blockYSize")) for one in child])
                case "GCPList":
                    root.append(self._points(child))
                case "Metadata" if child.get("domain") == "RPC":
                    root.append(self._rpcs(child))
                case _:
                    self._take_over(child, root, _OF_DATASET)
        return root

    def _band(self, given: Element, attributes: tuple[str, ...]) -> Element:
        if given.tag != "VRTRasterBand":
            raise self._refusal(f"has a {given.tag!r} as a band")
        self._check_attributes(given, attributes)
        band = Element("VRTRasterBand", given.attrib)
        for child in given:
            if child.tag in _SOURCES:
                band.append(self._source(child, _SOURCES[child.tag]))
            elif child.tag == "ColorTable":
                table = SubElement(band, "ColorTable")
                table.extend([self._leaf(entry, "Entry", _COLOURS) for entry in child])
            else:
                self._take_over(child, band, _OF_BAND)
        return band

    def _source(self, given: Element, known: _Known) -> Element:
        self._check_attributes(given, ("resampling",))
        source = Element(given.tag, given.attrib)
        location = self._location_of(given)
        SubElement(source, "SourceFilename", {"relativeToVRT": "0", "shared": "0"}).text = gdal_path(location)
        properties = False
        for child in given:
            match child.tag:
                case "SourceFilename":
                    continue
                case "SourceBand":
                    source.append(self._leaf(child, "SourceBand", ()))
                case "SourceProperties":
                    source.append(self._leaf(child, "SourceProperties", _PROPERTIES))
                    properties = set(_PROPERTIES) <= set(child.attrib)
                case _:
                    self._take_over(child, source, known)
        self.sources.append(VrtSource(location, self._box(given)))
        if len(self.sources) > MOST_SOURCES:
            raise self._refusal(f"has more than {MOST_SOURCES:,} sources")
        if not properties:
            source[:] = [child for child in source if child.tag != "SourceProperties"]
            self._incomplete.append((source, location))
        return source

    def _location_of(self, source: Element) -> str:
        names = source.findall("SourceFilename")
        if len(names) != 1 or len(names[0]) or not names[0].text:
            raise self._refusal("has a source that is not one file by name")
        name, is_relative = names[0].text, names[0].get("relativeToVRT", "0") != "0"
        place = gdal_path(self._location)
        path = posixpath.join(posixpath.dirname(place), name) if is_relative else name
        if {".", ".."} & set(path.split("/")):
            path = posixpath.normpath(path)
        if not path.startswith("/") or (path.startswith("/vsi") and not path.startswith("/vsis3/")):
            raise self._refusal(f"has as source, neither a path from the root on nor /vsis3/, {name!r}")
        if place.startswith("/vsis3/") and not path.startswith("/vsis3/"):
            raise self._refusal(f"lies in S3 and has the source {name!r}, which does not")
        if is_vrt(path):
            raise self._refusal(f"has the source {name!r}, another VRT")
        return self._allowed(location_of(path))

    def _box(self, source: Element) -> tuple[float, float, float, float]:
        rectangle = source.find("DstRect")
        if rectangle is None:
            return (-math.inf, -math.inf, math.inf, math.inf)
        try:
            left, top, width, height = (float(rectangle.get(name, "")) for name in _RECTANGLE)
        except ValueError:
            raise self._refusal("has a DstRect without numbers") from None
        # GDAL rounds; a pixel more is looked at.
        return (left - 1, top - 1, left + width + 1, top + height + 1)

    def _points(self, given: Element) -> Element:
        points = Element("GCPList", {name: given.attrib[name] for name in _only(given, ("Projection",))})
        points.set("dataAxisToSRSAxisMapping", given.get("dataAxisToSRSAxisMapping", "1,2"))
        points.extend([self._leaf(one, "GCP", ("Id", "Info", "Pixel", "Line", "X", "Y", "Z")) for one in given])
        return points

    def _rpcs(self, given: Element) -> Element:
        rpcs = Element("Metadata", {"domain": "RPC"})
        rpcs.extend([self._leaf(one, "MDI", ("key",)) for one in given])
        return rpcs

    def _take_over(self, child: Element, to: Element, known: _Known) -> None:
        if child.tag in _LEFT_OUT:
            return
        if child.tag not in known:
            raise self._refusal(f"has a {child.tag!r}")
        to.append(self._leaf(child, child.tag, known[child.tag]))

    def _leaf(self, given: Element, tag: str, attributes: tuple[str, ...]) -> Element:
        if given.tag != tag or len(given):
            raise self._refusal(f"has a {given.tag!r} where {tag!r} would be, or more in it than text")
        leaf = Element(tag, {name: given.attrib[name] for name in _only(given, attributes)})
        leaf.text = given.text
        return leaf

    def _check_attributes(self, given: Element, known: Iterable[str]) -> None:
        if more := sorted(set(given.attrib) - set(known)):
            raise self._refusal(f"has a {given.tag} with {more[0]}={given.attrib[more[0]]!r}")


def _only(given: Element, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name in given.attrib)
