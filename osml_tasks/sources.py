"""What a user calls a source, and the tiles that it stands for."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osml_tasks.endpoint import MAX_INPUT_BYTES
from osml_tasks.errors import BucketRegionError, CredentialsExpiredError, ExtensionConfigurationError, SourceError
from osml_tasks.imagery.window import Window
from osml_tasks.s3 import S3Uri

if TYPE_CHECKING:
    import boto3

    from osml_tasks.s3_settings import S3Settings


Source = str | os.PathLike[str] | bytes | Mapping[str, Any]
"""A file, directory, glob, ``s3://`` object or prefix; a tile's bytes; a mapping with one of them as ``image_path``."""


@dataclass(frozen=True, slots=True)
class SourceTile:
    """A tile where the user keeps it: a local file, an S3 object, or memory.

    :ivar name: what the report calls it: as the user wrote it.
    :ivar path: the local file, from the root on, or None; text, for 100,000 ``Path`` objects take 50 MB.
    :ivar uri: the S3 object, or None.
    :ivar size: bytes; 0 where nobody has asked.
    :ivar body: the tile itself, or None.
    :ivar window: what it is of the image at its path or URI; None where that is the tile.
    :ivar image: the number of that image in its job.
    """

    name: str
    path: str | None
    uri: S3Uri | None
    size: int
    body: bytes | None = None
    window: Window | None = None
    image: int = 0

    @property
    def location(self) -> str:
        """Where it is, or its image: the path, or the ``s3://`` URI; of what is in memory it is none."""
        return self.path or str(self.uri)


def find_tiles(
    sources: Iterable[Source], session: boto3.Session | None = None, settings: S3Settings | None = None
) -> list[SourceTile]:
    """All tiles of some sources.

    Directories are searched to the bottom, hidden files and linked directories left out; tiles come in the order of the
    sources and of their names, each file and object once.

    :param session: by which S3 is listed; default: as boto3 finds it.
    :param settings: what goes with each request; default: nothing.
    :raises SourceError: a source does not exist, is empty, or has a tile of more than 1 GB.
    """
    tiles: dict[str, SourceTile] = {}
    for place, source in enumerate(map(_plain, sources)):
        if isinstance(source, bytes):
            tiles[f"bytes {place}"] = _in_memory(place, source)
            continue
        found = _in_s3(source, session, settings) if source.startswith("s3://") else _local(source)
        if not found:
            raise SourceError(f"{source!r} has no tiles: the directory, glob or prefix is empty")
        for tile in found:
            tiles.setdefault(tile.location, tile)
    for tile in tiles.values():
        _check_size(tile)
    return list(tiles.values())


def one_tile(place: int, source: Source) -> SourceTile:
    """The tile that a source is by itself: a file, an object or bytes, and nothing to be searched.

    Of an S3 object nobody asks whether it exists: the endpoint will say.

    :param place: the source's place among others; the name of what has none.
    :raises SourceError: it is not a readable file, or is too large.
    """
    plain = _plain(source)
    if isinstance(plain, bytes):
        tile = _in_memory(place, plain)
    elif plain.startswith("s3://"):
        tile = SourceTile(plain, None, _object(plain), 0)
    else:
        tile = _file(plain)
    _check_size(tile)
    return tile


def _plain(source: Source) -> str | bytes:
    if isinstance(source, Mapping):
        if "image_path" not in source:
            raise SourceError(f"a tile has the keys {sorted(map(str, source))}: name its file as 'image_path'")
        source = source["image_path"]
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _writable_name(os.fsdecode(source))
    raise SourceError(f"{type(source).__name__} is no tile: give a path, an s3:// URI, bytes or {{'image_path': ...}}")


def _writable_name(name: str) -> str:
    """A name as it is, if messages, manifests and reports can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{name!r} cannot be written down: give it a name in Unicode") from None
    if "\0" in name:
        raise SourceError(f"{name!r} has a NUL in it: no file and no object is called so")
    return name


def _in_memory(place: int, body: bytes) -> SourceTile:
    return SourceTile(f"tile-{place:07d}", None, None, len(body), body)


def _uri(text: str) -> S3Uri:
    try:
        return S3Uri.parse(text)
    except ExtensionConfigurationError as error:
        raise SourceError(str(error)) from None


def _object(text: str) -> S3Uri:
    uri = _uri(text)
    if not uri.key or uri.key.endswith("/"):
        raise SourceError(f"{text!r} names no object: add its key")
    return uri


def _check_size(tile: SourceTile) -> None:
    if tile.size > MAX_INPUT_BYTES:
        raise SourceError(
            f"tile {tile.name!r} has {tile.size:,} bytes; an endpoint takes 1,000,000,000 at most: cut it smaller"
        )


def _local(source: str) -> Sequence[SourceTile]:
    try:
        return _found_locally(source)
    except OSError as error:
        raise SourceError(f"{source!r} cannot be read: {error.strerror}") from None


def _found_locally(source: str) -> Sequence[SourceTile]:
    path = Path(source)
    if source and path.is_dir():
        return [_file(name) for name in sorted(_in_directory(source))]
    if source and path.exists():
        return [_file(source)]
    if glob.has_magic(source):
        return [_file(name) for name in sorted(glob.glob(source, recursive=True)) if Path(name).is_file()]
    raise SourceError(f"{source!r} does not exist: name a file, directory, glob or s3:// URI")


def _in_directory(directory: str) -> Iterator[str]:
    for folder, folders, files in os.walk(directory, followlinks=False, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in files if not name.startswith("."))  # noqa: PTH118 - keeps "./"


def _refuse(error: OSError) -> None:
    raise SourceError(f"{error.filename!r} cannot be read: {error.strerror}")


def _file(name: str) -> SourceTile:
    path = os.path.abspath(_writable_name(name))  # noqa: PTH100 - takes ".." away: each file is one tile
    try:
        found = os.stat(path)  # noqa: PTH116 - a job may have 100,000 of these
        regular = stat.S_ISREG(found.st_mode)
        if regular:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise SourceError(f"{name!r} cannot be read: {error.strerror}") from None
    if not regular:
        raise SourceError(f"{name!r} is not a file: name a file, directory, glob or s3:// URI")
    return SourceTile(name, name if name == path else path, None, found.st_size)


def _in_s3(source: str, session: boto3.Session | None, settings: S3Settings | None) -> Sequence[SourceTile]:
    """An object of exactly this key if there is one, else all objects under it."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from osml_tasks.aws.credentials import expired
    from osml_tasks.aws.s3_access import S3Access
    from osml_tasks.aws.unreachable import explain

    uri = _uri(source)
    access = S3Access(session or boto3.Session(), settings)
    try:
        access.credentials.frozen()
        pages = access.client.get_paginator("list_objects_v2").paginate(Bucket=uri.bucket, Prefix=uri.key)
        objects = [found for page in pages for found in page.get("Contents", ())]
    except (BucketRegionError, CredentialsExpiredError, ClientError) as error:
        raise SourceError(f"{source!r} cannot be listed: {expired(error) or error}") from None
    except BotoCoreError as error:
        raise SourceError(f"{source!r} cannot be listed: {explain(error, access.client)}") from None
    return _choose(uri, objects)


def _choose(uri: S3Uri, objects: list[dict[str, Any]]) -> list[SourceTile]:
    exact = [found for found in objects if found["Key"] == uri.key and not uri.key.endswith("/")]
    folder = uri.key if not uri.key or uri.key.endswith("/") else f"{uri.key}/"
    chosen = exact or [found for found in objects if found["Key"].startswith(folder)]
    tiles = ((S3Uri(uri.bucket, found["Key"]), found["Size"]) for found in chosen)
    return [SourceTile(str(tile), None, tile, size) for tile, size in tiles if not tile.key.endswith("/")]
