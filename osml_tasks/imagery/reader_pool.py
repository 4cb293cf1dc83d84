"""Images, read by processes of their own: what is in them can neither reach this process nor take it down."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING, Any

import numpy as np

from osml_tasks.allowed_tiles import Allowed
from osml_tasks.errors import (
    ExtensionConfigurationError,
    ImageReadError,
    ImageTooCostlyError,
    NotAllowedError,
    SourceError,
)
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.frames import Frame, pack, unpack
from osml_tasks.imagery.gdal_s3 import S3Session
from osml_tasks.imagery.georeference import Floats, Georeference, Transformer
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.limits import Limits
from osml_tasks.imagery.overview import Overview
from osml_tasks.imagery.window import Window
from osml_tasks.s3_uri import S3Uri

if TYPE_CHECKING:
    import boto3

    from osml_tasks.aws.s3_access import S3Access
    from osml_tasks.s3_settings import S3Settings

_MOST_PROCESSES = 2
"""One decodes while the other waits for S3."""
_MODULE = "osml_tasks.imagery.reader_process"
_START_SECONDS = 60.0
_PIPE_BYTES = 1024 * 1024  # most tiles in one go
_SET_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux
_WHOLE_IMAGE = 10
"""What looks at a whole image may take so many times what a tile may."""
_WALL = 2
"""So many seconds may pass for each of CPU: the rest is waiting."""
# What libraries need to be found and to read their own files; nothing that is anybody's secret.
_HANDED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LD_PRELOAD", "PROJ_DATA", "PROJ_LIB", "GDAL_DATA"),
    *("LANG", "LC_ALL"),
    # How names of hosts are resolved.
    *("HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "NSS_WRAPPER_HOSTS"),
)
_ERRORS = {
    kind.__name__: kind
    for kind in (ImageReadError, ImageTooCostlyError, SourceError, NotAllowedError, ExtensionConfigurationError)
}


class ReaderPool:
    """Answers what :class:`~osml_tasks.imagery.reader.Images` does, by processes that begin when they are needed.

    Thread-safe; make it after a fork, not before.

    :param session: where AWS credentials come from; asked again at each request, for they are renewed.
    :param allowed: which files and objects may be read; None: all may.
    :param settings: what goes with each request to S3; default: nothing.
    :param sidecars: whether to look for files beside an image, such as a world file: some requests for each.
    :param most_open: images that a process keeps open while nobody reads them.
    """

    def __init__(
        self,
        session: boto3.Session,
        limits: Limits,
        allowed: Allowed | None = None,
        *,
        settings: S3Settings | None = None,
        sidecars: bool = False,
        most_open: int = 16,
    ) -> None:
        self._session = session
        self._s3_settings = settings
        self._limits = limits
        self._told = {
            "allowed": None if allowed is None else allowed.to_dict(),
            "limits": asdict(limits),
            "sidecars": sidecars,
            "most_open": most_open,
        }
        self._access: S3Access | None = None
        self._free = Condition()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._busy = 0
        self.close = weakref.finalize(self, _end, self._all)

    @property
    def pids(self) -> list[int]:
        """The processes that there are."""
        return [process.pid for process in self._all]

    def size(self, location: str) -> tuple[int, int]:
        """As ``Images`` has it."""
        header, _ = self._ask("size", location, {"location": location})
        width, height = header["size"]
        return width, height

    def describe(
        self, location: str, name: str, cutting: Cutting, *, height: float | None = None, dem: str | None = None
    ) -> Image:
        """As ``Images`` has it."""
        asked = {"location": location, "name": name, "cutting": asdict(cutting), "height": height, "dem": dem}
        header, _ = self._ask("describe", location, asked, times=_WHOLE_IMAGE, others=[dem] if dem else [])
        return Image.from_dict(header["image"])

    def cut(self, location: str, image: Image, window: Window, cutting: Cutting, job: str = "") -> bytes | None:
        """As ``Images`` has it."""
        place = [window.y, window.x, window.width, window.height]
        asked = {"location": location, "job": job, "image": image.to_dict(), "window": place}
        header, tile = self._ask("cut", location, asked | {"cutting": asdict(cutting)})
        return tile if header["has_data"] else None

    def overview(self, location: str, bands: Sequence[int]) -> Overview:
        """As ``Images`` has it."""
        asked = {"location": location, "bands": list(bands)}
        header, pixels = self._ask("overview", location, asked, times=_WHOLE_IMAGE)
        shape = (header["rows"], -1, 4)
        return Overview(np.frombuffer(pixels, np.uint8).reshape(shape), header["width"], header["height"])

    def transformer(self, georeference: Georeference, job: str = "") -> Transformer:
        """As ``Images`` has it."""
        return georeference.transformer() if georeference.dem is None else _OverHeightModel(self, georeference, job)

    def to_lonlat(self, georeference: Georeference, job: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Longitudes and latitudes over a height model."""
        asked = {"georeference": georeference.to_json(), "job": job}
        points = np.stack((x, y)).astype(np.float64).tobytes()
        _, found = self._ask("lonlat", str(georeference.dem), asked, body=points)
        longitudes, latitudes = np.frombuffer(found, np.float64).reshape(2, -1)
        return longitudes, latitudes

    def _ask(
        self,
        kind: str,
        about: str,
        asked: dict[str, Any],
        *,
        times: int = 1,
        others: Sequence[str] = (),
        body: bytes = b"",
    ) -> Frame:
        sessions = {uri.bucket: self._s3_options(uri) for uri in _uris((about, *others))}
        seconds = self._limits.seconds * times
        request = {"kind": kind, "about": about, "sessions": sessions, "seconds": seconds} | asked
        with self._process() as process:
            header, answer = process.ask(request, body, about, seconds * _WALL)
        if "error" in header:
            name, message = header["error"]
            raise _ERRORS.get(name, ImageReadError)(message)
        return header, answer

    def _s3_options(self, uri: S3Uri) -> dict[str, Any]:
        from osml_tasks.aws.s3_access import S3Access
        from osml_tasks.s3_errors import signing_errors

        with signing_errors("GET", uri):
            with self._free:
                if self._access is None:
                    self._access = S3Access(self._session, self._s3_settings)
            return S3Session(self._access, uri.bucket).get_credential_options()

    @contextmanager
    def _process(self) -> Iterator[_Process]:
        """One that nobody else uses; it is used again only if nothing goes wrong."""
        with self._free:
            self._free.wait_for(lambda: self._busy < _MOST_PROCESSES)
            self._busy += 1
            process = self._idle.pop() if self._idle else None
        try:
            if process is not None and process.has_ended:
                self._drop(process)
                process = None
            if process is None:
                process = _Process(self._told)
                self._all.add(process)
            try:
                yield process
            except BaseException:
                self._drop(process)
                raise
            with self._free:
                self._idle.append(process)
        finally:
            with self._free:
                self._busy -= 1
                self._free.notify()

    def _drop(self, process: _Process) -> None:
        process.end()
        self._all.discard(process)


class _OverHeightModel:
    """The way to the globe over a height model, which another process reads."""

    def __init__(self, pool: ReaderPool, georeference: Georeference, job: str) -> None:
        self._pool = pool
        self._georeference = georeference
        self._job = job

    def to_lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """As :class:`~osml_tasks.imagery.georeference.Transformer` has it."""
        return self._pool.to_lonlat(self._georeference, self._job, x, y)


class _Process:
    """One that reads images, and the pipes to it."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
            bufsize=0,
        )
        if self._process.stdout is not None and _SET_SIZE is not None:
            with suppress(OSError):  # a user may have only so much
                fcntl.fcntl(self._process.stdout.fileno(), _SET_SIZE, _PIPE_BYTES)
        try:
            self._send(told, b"")
            unpack(partial(self._read, deadline=time.monotonic() + _START_SECONDS))
        except (EOFError, OSError) as error:
            self.end()
            raise ExtensionConfigurationError(
                f"a process that reads images does not start ({type(error).__name__}): see what "
                f"{sys.executable} -m {_MODULE} says"
            ) from None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is of no use any more."""
        return self._process.poll() is not None

    def ask(self, request: dict[str, Any], body: bytes, about: str, seconds: float) -> Frame:
        """Have it answer one request.

        :raises ImageReadError: there is no answer in time.
        :raises ImageTooCostlyError: it ended over it.
        """
        deadline = time.monotonic() + seconds
        try:
            self._send(request, body)
            return unpack(partial(self._read, deadline=deadline))
        except TimeoutError:
            raise ImageReadError(
                f"image {about!r} was not read within {seconds:g} s: make a copy in small blocks, with gdal_translate "
                "-of COG, or raise ASYNC_SM_MAX_CUT_SECONDS"
            ) from None
        except (EOFError, OSError):
            raise ImageTooCostlyError(_ended(about, self._process.wait())) from None

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _send(self, header: dict[str, Any], body: bytes) -> None:
        assert self._process.stdin is not None
        for piece in pack(header, body):
            rest = memoryview(piece)
            while rest:
                rest = rest[self._process.stdin.write(rest) :]

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        file, pieces = self._process.stdout.fileno(), []
        poll = select.poll()
        poll.register(file, select.POLLIN)
        while count > 0:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError
            piece = os.read(file, min(count, _PIPE_BYTES))
            if not piece:
                raise EOFError
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def _ended(about: str, status: int) -> str:
    """Why a process has ended that was reading an image."""
    if status == -signal.SIGXCPU:
        return (
            f"image {about!r} takes more CPU than there is for it: make a copy in small blocks, with gdal_translate "
            "-of COG, or raise ASYNC_SM_MAX_CUT_SECONDS"
        )
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return (
        f"image {about!r} ended the process that read it, with {how}: it is damaged, or takes more memory than there "
        "is; make a copy with gdal_translate -of COG"
    )


def _environment() -> dict[str, str]:
    """All that a process gets of this one's; glibc and BLAS are to take no memory for threads that do not come."""
    handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is the current directory
    return handed_on | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def _uris(locations: Sequence[str]) -> Iterator[S3Uri]:
    return (S3Uri.parse(location) for location in locations if location.startswith("s3://"))


def _end(processes: set[_Process]) -> None:
    for process in [*processes]:
        process.end()
    processes.clear()
