"""Open images: kept for the next tile, read by ranges where they are in S3, in bounded memory."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import boto3
import rasterio
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from osml_tasks.aws.s3_access import S3Access
from osml_tasks.errors import ImageReadError
from osml_tasks.imagery.gdal_s3 import S3Session, gdal_path
from osml_tasks.one_line import in_one_line
from osml_tasks.s3_errors import signing_errors
from osml_tasks.s3_settings import S3Settings
from osml_tasks.s3_uri import S3Uri

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
    :param settings: what goes with each request to S3; default: nothing.
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
        settings: S3Settings | None = None,
        sidecars: bool = False,
        most_open: int = MOST_OPEN,
    ) -> None:
        self._session = session
        self._settings = settings
        self._is_choosy = check is not None
        self._check = check or (lambda location: None)
        self._options = _OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR"}
        self._access: S3Access | None = None
        self._idle: deque[tuple[str, tuple[str, str], DatasetReader]] = deque()
        self._most_open = most_open
        self._lock = Lock()

    @contextmanager
    def open(self, location: str, job: str = "") -> Iterator[DatasetReader]:
        """An image to be read from, by this thread alone.

        :param location: an ``s3://`` URI or a path.
        :param job: for whom; another opens the image anew, for it may be another image by then.
        :raises ImageReadError: it cannot be opened, or reading it in the block has failed.
        :raises S3OperationError: there are no credentials to read it with for now.
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
        uri = S3Uri.parse(location)
        with signing_errors("GET", uri):
            session = S3Session(self._s3(), uri.bucket)
        with rasterio.Env(session=session, **self._options):
            yield session.access_key

    def _s3(self) -> S3Access:
        with self._lock:
            if self._access is None:
                self._access = S3Access(self._session, self._settings)
            return self._access

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


def location_of(path: str) -> str:
    """The location that GDAL's name of a file stands for; of other file systems of GDAL's it stays a path."""
    return f"s3://{path.removeprefix('/vsis3/')}" if path.startswith("/vsis3/") else path


def _unreadable(location: str, error: Exception) -> ImageReadError:
    return ImageReadError(f"image {location!r} cannot be read: {in_one_line(str(error.__cause__ or error), 300)}")
