"""Open images: kept for the next tile, read by ranges where they are in S3, in bounded memory."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import boto3
import rasterio
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import AWSSession, DummySession, Session

from osml_tasks.errors import ImageReadError
from osml_tasks.one_line import in_one_line

DRIVERS = ("GTiff", "NITF", "JP2OpenJPEG", "PNG", "JPEG", "VRT")
"""The formats that are read, as GDAL calls them; a cloud-optimised GeoTIFF is a GTiff."""

# That there is none is known of the image, and said once.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"osml_tasks\.|rasterio\.io$")

MOST_OPEN = 16
"""Images that are kept open while nobody reads them: a process reads so many tiles at a time."""

_CACHE_BYTES = 64 * 1024 * 1024
_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,  # of decoded blocks, in the whole process; rasterio wants bytes, whatever GDAL says
    "CPL_VSIL_CURL_CACHE_SIZE": 16 * 1024 * 1024,  # bytes that came from S3, likewise
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # nothing of an object stays once it is closed: it may change
    "GDAL_HTTP_CONNECTTIMEOUT": 5,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_INGESTED_BYTES_AT_OPEN": 65_536,  # most of a header in one request
    "GDAL_NUM_THREADS": 1,
}


class Datasets:
    """Opens images by their location, and keeps them open. Thread-safe; make it after a fork, not before.

    :param session: where AWS credentials come from; asked again at each use, for they are renewed.
    :param check: called with each location that is read, of what an image refers to as well; raises
        :class:`~osml_tasks.errors.NotAllowedError` where that may not be. None: all may.
    :param most_open: images that are kept open while nobody reads them.
    :param sidecars: whether to look for files beside an image, such as a world file: some requests for each.
    """

    def __init__(
        self,
        session: boto3.Session,
        check: Callable[[str], object] | None = None,
        *,
        sidecars: bool = False,
        most_open: int = MOST_OPEN,
    ) -> None:
        self._session = session
        self._is_choosy = check is not None
        self._check = check or (lambda location: None)
        self._options = _OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR"}
        self._s3_options: dict[str, Any] | None = None
        self._idle: deque[tuple[str, tuple[str, str], DatasetReader]] = deque()
        self._most_open = most_open
        self._lock = Lock()

    @contextmanager
    def open(self, location: str, job: str = "") -> Iterator[DatasetReader]:
        """An image to be read from, by this thread alone.

        :param location: an ``s3://`` URI or a path.
        :param job: for whom; another opens the image anew, for it may be another image by then.
        :raises ImageReadError: it cannot be opened, or reading it in the block has failed.
        :raises NotAllowedError: it may not be read, or refers to something that may not.
        """
        self._check(location)
        with self.environment(location) as credentials:
            key = (job, credentials)
            try:
                dataset = self._take(location, key) or self._open(location)
            except (RasterioError, OSError) as error:
                raise _unreadable(location, error) from error
            try:
                yield dataset
            except (RasterioError, OSError) as error:
                dataset.close()
                raise _unreadable(location, error) from error
            except BaseException:
                dataset.close()
                raise
            self._give_back(location, key, dataset)

    @contextmanager
    def environment(self, location: str | None) -> Iterator[str]:
        """GDAL's settings for this thread, with access to S3 where the location needs it; says for whom that is."""
        if location is None or not location.startswith("s3://"):
            with rasterio.Env(session=DummySession(), **self._options):
                yield ""
            return
        session, options = self._s3()
        with rasterio.Env(session=session, **self._options, **options):
            yield str(session.credentials.get("aws_access_key_id", ""))

    def _s3(self) -> tuple[Session, dict[str, Any]]:
        if self._s3_options is None:
            self._s3_options = _s3_options(self._session)
        options = dict(self._s3_options)
        return AWSSession(self._session, endpoint_url=options.pop("endpoint", None)), options

    def _open(self, location: str) -> DatasetReader:
        dataset = _reader(gdal_path(location))
        try:
            self._check_files(dataset, {dataset.name})
        except BaseException:
            dataset.close()
            raise
        return dataset

    def _check_files(self, dataset: DatasetReader, seen: set[str]) -> None:
        """Check all that an image refers to; a VRT may refer to another, whose files GDAL does not tell."""
        others = [file for file in dataset.files if file not in seen]
        for file in others:
            self._check(location_of(file))
        if dataset.driver == "VRT" and self._is_choosy:
            seen.update(others)
            for file in others:
                with _reader(file) as source:
                    self._check_files(source, seen)

    def _take(self, location: str, key: tuple[str, str]) -> DatasetReader | None:
        """The one that was used last, if any is open for this job, with the credentials of now."""
        with self._lock:
            of_others = [one for one in self._idle if one[0] == location and one[1] != key]
            found = next((one for one in reversed(self._idle) if one[:2] == (location, key)), None)
            gone = {id(one) for one in (found, *of_others)}
            self._idle = deque(one for one in self._idle if id(one) not in gone)
        # First of all: GDAL keeps what it has of an object in S3 as long as somebody has it open.
        for one in of_others:
            one[2].close()
        return found[2] if found else None

    def _give_back(self, location: str, key: tuple[str, str], dataset: DatasetReader) -> None:
        with self._lock:
            self._idle.append((location, key, dataset))
            surplus = self._idle.popleft()[2] if len(self._idle) > self._most_open else None
        if surplus is not None:
            surplus.close()


def bound_cache() -> None:
    """Bound GDAL's cache in this process for good.

    By itself an environment puts the old bound back at its end, for threads that are still reading, too.
    """
    set_gdal_config("GDAL_CACHEMAX", _CACHE_BYTES)


def _reader(path: str) -> DatasetReader:
    # As rasterio.open does, which takes no more than one driver.
    return DatasetReader(path, driver=list(DRIVERS))


def gdal_path(location: str) -> str:
    """What GDAL calls a location."""
    return f"/vsis3/{location.removeprefix('s3://')}" if location.startswith("s3://") else location


def location_of(path: str) -> str:
    """The location that GDAL's name of a file stands for; of other file systems of GDAL's it stays a path."""
    return f"s3://{path.removeprefix('/vsis3/')}" if path.startswith("/vsis3/") else path


def _s3_options(session: boto3.Session) -> dict[str, Any]:
    """How GDAL reaches the S3 that boto3 reaches."""
    meta = session.client("s3").meta
    options: dict[str, Any] = {"AWS_REGION": meta.region_name or "us-east-1"}
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        options["CURL_CA_BUNDLE"] = bundle
    url = urlsplit(str(meta.endpoint_url))
    if not url.netloc.endswith(".amazonaws.com"):
        options["endpoint"] = url.netloc
        options["AWS_HTTPS"] = "YES" if url.scheme == "https" else "NO"
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    return options


def _unreadable(location: str, error: Exception) -> ImageReadError:
    return ImageReadError(f"image {location!r} cannot be read: {in_one_line(str(error.__cause__ or error), 300)}")
