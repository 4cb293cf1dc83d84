"""A result on its way from S3 to where the user wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from shutil import copyfileobj
from tempfile import TemporaryDirectory

from osml_tasks.features import split_lines
from osml_tasks.result_files.by_image import split_by_image
from osml_tasks.result_files.lines import feature_lines, read_features
from osml_tasks.result_files.target import FileFormat, Target
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.whole_file import is_stream, written_whole

Place = Path | S3Uri


def save(s3: S3Manager, result: S3Uri, target: Target, images: Sequence[str] = ()) -> None:
    """Write a job's FeatureCollection where it is wanted; each file and object appears whole or not at all.

    :param images: the names of the job's images, for a target that takes a file of each.
    :raises VectorFileError: the format cannot hold the features.
    :raises S3OperationError: the result cannot be read, or an object not be written.
    :raises OSError: a file cannot be written.
    """
    if target.per_image:
        _save_by_image(s3, result, target, images)
    elif target.format is FileFormat.GEOJSON:
        _write(s3, target.place, s3.stream(result))
    elif target.format is FileFormat.GEOJSONL:
        _write(s3, target.place, feature_lines(split_lines(s3.stream(result))))
    else:
        with _scratch(target.place) as directory:
            collection = _fetched(s3, result, directory)
            _bring(s3, _converted(collection, directory, PurePath(target.place.name).stem, target.format), target.place)


def _save_by_image(s3: S3Manager, result: S3Uri, target: Target, images: Sequence[str]) -> None:
    with _scratch(target.place) as directory:
        parts = directory / "images"
        parts.mkdir()
        split = split_by_image(_fetched(s3, result, directory), images, parts)
        files = [_converted(part, directory, part.stem, target.format) for part in split.values()]
        if isinstance(target.place, Path):
            target.place.mkdir(exist_ok=True)
        for file in files:
            _bring(s3, file, _inside(target.place, file.name))


def _inside(place: Place, name: str) -> Place:
    return place / name if isinstance(place, Path) else place.child(name)


def _fetched(s3: S3Manager, result: S3Uri, directory: Path) -> Path:
    collection = directory / "result"
    s3.download(result, collection)
    return collection


def _converted(collection: Path, directory: Path, stem: str, file_format: FileFormat) -> Path:
    """A FeatureCollection's file in another format; with its ending, by which GDAL tells a file from a directory."""
    file = directory / "made" / f"{stem}.{file_format}"
    file.parent.mkdir(exist_ok=True)
    if file_format is FileFormat.GEOJSON:
        return collection.rename(file)
    if file_format is FileFormat.GEOJSONL:
        with file.open("wb") as opened:
            opened.writelines(read_features(collection))
        return file
    # What it imports takes longer than most results do.
    from osml_tasks.result_files.vector_file import write_vector_file

    write_vector_file(collection, file, file_format, layer=stem)
    return file


def _bring(s3: S3Manager, file: Path, place: Place) -> None:
    if isinstance(place, Path) and not is_stream(place):
        file.replace(place)
        return
    with file.open("rb") as opened:
        if isinstance(place, S3Uri):
            s3.upload(place, opened)
        else:
            with place.open("wb") as stream:
                copyfileobj(opened, stream)


def _write(s3: S3Manager, place: Place, chunks: Iterable[bytes]) -> None:
    with written_whole(place) if isinstance(place, Path) else s3.writer(place) as file:
        for chunk in chunks:
            file.write(chunk)


@contextmanager
def _scratch(place: Place) -> Iterator[Path]:
    """A directory for what is not ready yet, on the file system that it is for; gone afterwards."""
    beside = None
    if isinstance(place, Path) and (place.is_dir() or not is_stream(place)):
        beside = place if place.is_dir() else place.parent
    with TemporaryDirectory(prefix=".osml-tasks-", dir=beside) as directory:
        yield Path(directory)
