"""A result in one file of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

import orjson

from osml_tasks.errors import VectorFileError
from osml_tasks.features import COLLECTION_HEAD, COLLECTION_TAIL
from osml_tasks.result_files.lines import read_features


def split_by_image(collection: Path, images: Sequence[str], directory: Path) -> dict[str, Path]:
    """Write a FeatureCollection for each image, those without features too; reads the result line by line.

    :param collection: a result, GeoJSON with one feature a line.
    :param images: their names, as the features have them in the last ``location`` of ``sourceMetadata``.
    :param directory: where the files go. They are named after the images, and numbered where two would be called alike.
    :return: for each image its file.
    :raises VectorFileError: a feature is of no image, or of another.
    :raises OSError: a file cannot be written.
    """
    files = {image: directory / f"{stem}.geojson" for image, stem in image_stems(images).items()}
    has_features = set()
    for file in files.values():
        file.write_bytes(COLLECTION_HEAD)
    # Image after image: seldom is a file opened twice.
    for image, lines in groupby(read_features(collection), _image_of):
        if image not in files:
            raise VectorFileError(f"a feature is of {image!r}, which is no image of the job")
        with files[image].open("ab") as opened:
            for line in lines:
                opened.write(b",\n" if image in has_features else b"")
                opened.write(line.rstrip(b"\n"))
                has_features.add(image)
    for file in files.values():
        with file.open("ab") as opened:
            opened.write(COLLECTION_TAIL)
    return files


def image_stems(images: Iterable[str]) -> dict[str, str]:
    """What the file of each image is called, without its ending: as the image, with a number if another is, too."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for image in dict.fromkeys(images):
        name = PurePosixPath(image).stem or "image"
        number, stem = 1, name
        # Some file systems tell no large letter from a small one.
        while stem.casefold() in taken:
            number += 1
            stem = f"{name}_{number}"
        taken.add(stem.casefold())
        stems[image] = stem
    return stems


def _image_of(line: bytes) -> str | None:
    sources = orjson.loads(line)["properties"].get("sourceMetadata")
    try:
        return str(sources[-1]["location"])
    except (TypeError, LookupError):
        return None
