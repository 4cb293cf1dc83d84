"""Open images: kept for the next tile, read by ranges where they are in S3, in bounded memory."""

from __future__ import annotations

import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError
from rasterio._path import _UnparsedPath
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.session import DummySession

from osml_tasks.errors import ImageReadError, ImageTooCostlyError, NotAllowedError
from osml_tasks.imagery.formats import RASTERS
from osml_tasks.imagery.gdal_library import read_file
from osml_tasks.imagery.gdal_s3 import GivenSession, S3Session, gdal_path
from osml_tasks.imagery.readable import check_readable
from osml_tasks.imagery.vrt import MOST_BYTES, Properties, Vrt, is_vrt
from osml_tasks.one_line import in_one_line
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    import boto3

    from osml_tasks.aws.s3_access import S3Access
    from osml_tasks.s3_settings import S3Settings

# That there is none is known of the image, and said once.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"osml_tasks\.|rasterio\.io$")

MOST_OPEN = 16
"""Images that are kept open while nobody reads them: a process reads so many tiles at a time."""

MAX_BLOCK_BYTES = 128 * 1024 * 1024
"""The largest block of pixels that is decoded, where nobody says otherwise."""

READ_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What reading an image may raise."""

_CACHE_BYTES = 64 * 1024 * 1024
_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,  # of decoded blocks, in the whole process; rasterio wants bytes, whatever GDAL says
    "GDAL_MAX_DATASET_POOL_SIZE": 32,  # sources of VRTs that are open at a time
    "CPL_VSIL_CURL_CACHE_SIZE": 16 * 1024 * 1024,  # bytes that came from S3, likewise
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # nothing of an object stays once it is closed: it may change
    "GDAL_HTTP_CONNECTTIMEOUT": 5,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_INGESTED_BYTES_AT_OPEN": 65_536,  # most of a header in one request
    "GDAL_NUM_THREADS": 1,
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
}


class Datasets:
    """Opens images by their location, and keeps them open. Thread-safe; make it after a fork, not before.

    :param session: where AWS credentials come from; asked again at each use, for they are renewed.
    :param check: called with each location that is read; gives the file that it stands for, and raises
        :class:`~osml_tasks.errors.NotAllowedError` where that may not be read. None: all may.
    :param check_reference: the same for locations that an image names, with that image's; default: as ``check``.
    :param settings: what goes with each request to S3; default: nothing.
    :param sidecars: whether to look for files beside an image, such as a world file: some requests for each.
    :param most_open: images that are kept open while nobody reads them.
    :param max_block_bytes: the largest block of pixels that is decoded.
    :param vrt_driver: a context in which GDAL can open VRTs; default: it always can.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        check: Callable[[str], object] | None = None,
        *,
        check_reference: Callable[[str, str], object] | None = None,
        settings: S3Settings | None = None,
        sidecars: bool = False,
        most_open: int = MOST_OPEN,
        max_block_bytes: int = MAX_BLOCK_BYTES,
        vrt_driver: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._session = session
        self._settings = settings
        self._check = check or (lambda location: None)
        self._check_reference = check_reference or (lambda location, by: self._check(location))
        self._options = _OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR"}
        self._access: S3Access | None = None
        self._idle: deque[tuple[str, tuple[str, str], DatasetReader]] = deque()
        self._most_open = most_open
        self._max_block_bytes = max_block_bytes
        self._vrt_driver = vrt_driver
        self._lock = Lock()

    @contextmanager
    def open(self, location: str, job: str = "") -> Iterator[DatasetReader]:
        """An image to be read from, by this thread alone.

        :param location: an ``s3://`` URI or a path.
        :param job: for whom; another opens the image anew, for it may be another image by then.
        :raises ImageReadError: it cannot be opened, or reading it in the block has failed.
        :raises ImageTooCostlyError: it cannot be read in bounded memory.
        :raises S3OperationError: there are no credentials to read it with for now.
        :raises NotAllowedError: it may not be read, or refers to something that may not.
        """
        allowed = _name_of(location, self._check(location))
        with self.environment(location) as credentials:
            key = (job, credentials)
            with read_errors(location):
                dataset = self._take(location, key) or self._open(allowed)
            try:
                with read_errors(location):
                    yield dataset
            except BaseException:
                dataset.close()
                raise
            self._give_back(location, key, dataset)

    @contextmanager
    def height_model(self, location: str) -> Iterator[str]:
        """A name by which GDAL can open a height model in the block, once it has been looked at as an image is.

        :raises ImageReadError: it cannot be opened.
        :raises ImageTooCostlyError: it cannot be read in bounded memory.
        :raises NotAllowedError: it may not be read, or refers to something that may not.
        """
        allowed = _name_of(location, self._check(location))
        with read_errors(location):
            vrt = self._understood(allowed) if is_vrt(allowed) else None
            for one in {source.location for source in vrt.sources} if vrt else {allowed}:
                self._open(one).close()
        if vrt is None:
            yield gdal_path(allowed)
            return
        with MemoryFile(vrt.to_xml().encode(), ext=".vrt") as file, self._vrt_driver():
            yield file.name

    @contextmanager
    def environment(self, location: str | None) -> Iterator[str]:
        """GDAL's settings for this thread, with access to S3 where the location needs it; says for whom that is."""
        if location is None or not location.startswith("s3://"):
            with rasterio.Env(session=DummySession(), **self._options):
                yield ""
            return
        session = self._s3_session(S3Uri.parse(location))
        with rasterio.Env(session=session, **self._options):
            yield session.access_key

    def _s3_session(self, uri: S3Uri) -> S3Session | GivenSession:
        from osml_tasks.aws.s3_access import S3Access
        from osml_tasks.s3_errors import signing_errors

        with signing_errors("GET", uri):
            with self._lock:
                if self._access is None:
                    self._access = S3Access(_given(self._session), self._settings)
            return S3Session(self._access, uri.bucket)

    def _open(self, location: str) -> DatasetReader:
        if is_vrt(location):
            return self._open_vrt(location)
        dataset = _reader(location)
        try:
            check_readable(dataset, location, self._max_block_bytes)
        except BaseException:
            dataset.close()
            raise
        return dataset

    def _open_vrt(self, location: str) -> DatasetReader:
        vrt = self._understood(location)
        with self._vrt_driver():
            return Mosaic(vrt, self._check_source)

    def _understood(self, location: str) -> Vrt:
        """A VRT that says of each source what GDAL would else open it for."""
        _check_regular(location)
        text = read_file(gdal_path(location), MOST_BYTES + 1)
        vrt = Vrt(text, location, lambda name: _name_of(name, self._check_reference(name, location)))
        for source in vrt.incomplete:
            with self._open(source) as dataset:
                height, width = dataset.block_shapes[0]
                vrt.complete(source, Properties(dataset.width, dataset.height, _dtype(dataset), width, height))
        return vrt

    def _check_source(self, location: str) -> None:
        self._open(location).close()

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


class Mosaic(DatasetReader):  # type: ignore[misc]
    """An open VRT. Each of its sources is looked at before it is read from for the first time.

    :param check_source: raises where a source may not be read after all.
    """

    def __init__(self, vrt: Vrt, check_source: Callable[[str], None]) -> None:
        self._sources = vrt.sources
        self._check_source = check_source
        self._seen: set[str] = set()
        super().__init__(_UnparsedPath(vrt.to_xml()), driver=["VRT"])

    def read(self, *args: Any, window: Any = None, **options: Any) -> Any:
        """As rasterio does."""
        self._look_at_sources(window)
        return super().read(*args, window=window, **options)

    def read_masks(self, *args: Any, window: Any = None, **options: Any) -> Any:
        """As rasterio does."""
        self._look_at_sources(window)
        return super().read_masks(*args, window=window, **options)

    def _look_at_sources(self, window: Any) -> None:
        rectangle = (window.col_off, window.row_off, window.width, window.height) if window else None
        for source in self._sources:
            if source.location not in self._seen and (rectangle is None or source.meets(*rectangle)):
                self._check_source(source.location)
                self._seen.add(source.location)


@contextmanager
def read_errors(location: str) -> Iterator[None]:
    """Say in one line why an image cannot be read.

    :raises ImageReadError: instead of what GDAL raises.
    :raises ImageTooCostlyError: likewise, where memory is what it lacks.
    """
    try:
        yield
    except READ_ERRORS as error:
        cause = error.__cause__ or error
        if isinstance(cause, CPLE_OutOfMemoryError):
            raise out_of_memory(location) from error
        raise ImageReadError(f"image {location!r} cannot be read: {in_one_line(str(cause), 300)}") from error


def out_of_memory(location: str) -> ImageTooCostlyError:
    """Say that an image takes more memory than there is for it."""
    return ImageTooCostlyError(
        f"image {location!r} takes more memory than there is for reading images: make a copy in small blocks, with "
        "gdal_translate -of COG, or raise ASYNC_SM_MAX_IMAGE_MEMORY_BYTES"
    )


def bound_cache() -> None:
    """Bound GDAL's cache in this process for good.

    By itself an environment puts the old bound back at its end, for threads that are still reading, too.
    """
    set_gdal_config("GDAL_CACHEMAX", _CACHE_BYTES)


def _name_of(location: str, found: object) -> str:
    """The one name by which something is opened: an ``s3://`` URI, or a path from the root on and nothing but that."""
    if location.startswith("s3://"):
        return location
    path = os.path.abspath(location) if found is None else str(found)  # noqa: PTH100 - keeps links
    if path.startswith("/vsi"):
        raise NotAllowedError(f"{location!r} is no file: name a path, or an s3:// URI")
    return path


def _reader(location: str) -> DatasetReader:
    _check_regular(location)
    # As rasterio.open does, which takes no more than one driver. Not parsed: a path is nothing else.
    return DatasetReader(_UnparsedPath(gdal_path(location)), driver=list(RASTERS))


def _check_regular(location: str) -> None:
    """Refuse what is no file: a pipe would be waited for."""
    if not location.startswith("s3://") and not stat.S_ISREG(os.stat(location).st_mode):  # noqa: PTH116
        raise ImageReadError(f"image {location!r} cannot be read: it is not a file")


def _dtype(dataset: DatasetReader) -> str:
    from rasterio.dtypes import _gdal_typename

    return str(_gdal_typename(dataset.dtypes[0]))


def _given(session: boto3.Session | None) -> boto3.Session:
    import boto3

    return session or boto3.Session()
