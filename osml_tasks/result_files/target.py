"""Where a result goes, and in which format: what the user writes after ``-o``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.s3_uri import S3Uri
from osml_tasks.whole_file import is_stream


class FileFormat(StrEnum):
    """The formats that a result is written in, by the ending that they have."""

    GEOJSON = "geojson"
    GEOJSONL = "geojsonl"
    FLATGEOBUF = "fgb"
    GEOPACKAGE = "gpkg"
    GEOPARQUET = "parquet"

    @property
    def is_text(self) -> bool:
        """Whether it is written as it comes, without the extra ``formats``."""
        return self in (FileFormat.GEOJSON, FileFormat.GEOJSONL)


_ENDINGS = {
    **{f".{one}": one for one in FileFormat},
    ".json": FileFormat.GEOJSON,
    ".geojsonseq": FileFormat.GEOJSONL,
    ".ndjson": FileFormat.GEOJSONL,
    ".jsonl": FileFormat.GEOJSONL,
    ".geoparquet": FileFormat.GEOPARQUET,
}
# Those of other formats for features, in which GeoJSON would mislead; with any other ending a local file is GeoJSON.
_OTHERS = {".csv", ".dxf", ".gdb", ".gml", ".gz", ".kml", ".kmz", ".mif", ".shp", ".sqlite", ".tab", ".zip"}
_EXTRA = {
    FileFormat.FLATGEOBUF: ("pyogrio", "pyarrow", "shapely"),
    FileFormat.GEOPACKAGE: ("pyogrio", "pyarrow", "shapely"),
    FileFormat.GEOPARQUET: ("pyarrow", "shapely"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes.

    :ivar name: what the user called it.
    :ivar place: a file or an object; if ``per_image``, a directory or a prefix.
    :ivar per_image: whether each image of the job gets a file of its own, named after it.
    """

    name: str
    place: Path | S3Uri
    format: FileFormat = FileFormat.GEOJSON
    per_image: bool = False

    @property
    def local_collection(self) -> Path | None:
        """The file in which a result is as S3 has it, once it is written; None where there is none."""
        as_it_is = self.format is FileFormat.GEOJSON and not self.per_image
        return self.place if as_it_is and isinstance(self.place, Path) and not is_stream(self.place) else None

    def check_extra(self) -> None:
        """Find out whether what writes the format is installed.

        :raises ExtensionConfigurationError: it is not.
        """
        for package in _EXTRA.get(self.format, ()):
            if find_spec(package) is None:
                raise ExtensionConfigurationError(
                    f"{package} is missing, which writes .{self.format}: install osml-tasks[formats]"
                )


def parse_target(name: str, file_format: str | None = None) -> Target:
    """Read what the user calls a target: a path or an ``s3://`` URI.

    An existing directory, and what ends at a slash, takes a file for each image.

    :param file_format: one of :class:`FileFormat`'s values; default: as the ending says, GeoJSON for a directory, and
        for a path with an ending of its own.
    :raises ExtensionConfigurationError: no such format, or none by that ending; or the URI names no object.
    """
    place = _object(name) if name.startswith("s3://") else Path(name)
    wanted = None if file_format is None else _format(file_format)
    if name.endswith(("/", os.sep)) or (isinstance(place, Path) and _is_directory(place)):
        return Target(name, place, wanted or FileFormat.GEOJSON, per_image=True)
    return Target(name, place, _by_ending(name, place, wanted))


def _object(name: str) -> S3Uri:
    uri = S3Uri.parse(name)
    if not uri.key.strip("/"):
        raise ExtensionConfigurationError(f"{name!r} names no object: write it as s3://bucket/key")
    if uri.has_odd_parts:
        raise ExtensionConfigurationError(
            f"{name!r} has a part that is empty, '.' or '..', or has a control character: correct it"
        )
    return uri


def _format(name: str) -> FileFormat:
    try:
        return FileFormat(name)
    except ValueError:
        raise ExtensionConfigurationError(f"{name!r} is no format: name one of {', '.join(FileFormat)}") from None


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ExtensionConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def _by_ending(name: str, place: Path | S3Uri, wanted: FileFormat | None) -> FileFormat:
    ending = PurePosixPath(place.name).suffix.lower()
    known = _ENDINGS.get(ending)
    if wanted and known and wanted is not known:
        raise ExtensionConfigurationError(f"{name!r} ends as {known}, and the format is to be {wanted}: correct one")
    if wanted or known:
        return wanted or known or FileFormat.GEOJSON
    if isinstance(place, S3Uri) or ending in _OTHERS:
        raise ExtensionConfigurationError(f"{name!r} has no ending that is known: use one of {', '.join(_ENDINGS)}")
    return FileFormat.GEOJSON
