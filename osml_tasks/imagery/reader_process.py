"""A process that reads images and nothing else: it decodes strangers' bytes, so it knows and may do little.

It has no environment, so no credentials but those of S3 that a request brings; GDAL in it has no format and no file
system but those that are read; and the kernel holds its memory and its CPU. It ends when its parent does.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, NoReturn

import numpy as np

from osml_tasks.allowed_tiles import Allowed
from osml_tasks.errors import ExtensionError, ImageReadError
from osml_tasks.imagery.cutting import Cutting
from osml_tasks.imagery.datasets import Datasets, bound_cache, out_of_memory
from osml_tasks.imagery.frames import Frame, pack, unpack
from osml_tasks.imagery.gdal_library import VrtDriver, confine
from osml_tasks.imagery.gdal_s3 import GivenSession
from osml_tasks.imagery.georeference import Georeference, Transformer
from osml_tasks.imagery.image import Image
from osml_tasks.imagery.reader import Reader
from osml_tasks.imagery.window import Window
from osml_tasks.one_line import in_one_line
from osml_tasks.s3_uri import S3Uri

_TRANSFORMERS_KEPT = 16


class _GivenDatasets(Datasets):
    """Opens images in S3 with what the request at hand brought.

    :ivar sessions: GDAL's settings, by bucket.
    """

    sessions: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - replaced, never changed

    def _s3_session(self, uri: S3Uri) -> GivenSession:
        return GivenSession(self.sessions[uri.bucket])


class _Answers:
    """What is done of each kind of request."""

    def __init__(self, datasets: _GivenDatasets) -> None:
        self._datasets = datasets
        self._reader = Reader(datasets)
        self._transformers: OrderedDict[tuple[str, ...], Transformer] = OrderedDict()
        self._kinds: dict[str, Callable[[dict[str, Any], bytes], Frame]] = {
            "size": self._size,
            "describe": self._describe,
            "cut": self._cut,
            "overview": self._overview,
            "lonlat": self._lonlat,
        }

    def to(self, request: dict[str, Any], body: bytes) -> Frame:
        self._datasets.sessions = request["sessions"]
        return self._kinds[request["kind"]](request, body)

    def _size(self, request: dict[str, Any], _: bytes) -> Frame:
        return {"size": self._reader.size(request["location"])}, b""

    def _describe(self, request: dict[str, Any], _: bytes) -> Frame:
        cutting, height, dem = Cutting(**request["cutting"]), request["height"], request["dem"]
        image = self._reader.describe(request["location"], request["name"], cutting, height=height, dem=dem)
        return {"image": image.to_dict()}, b""

    def _cut(self, request: dict[str, Any], _: bytes) -> Frame:
        image, window = Image.from_dict(request["image"]), Window(*request["window"])
        tile = self._reader.cut(request["location"], image, window, Cutting(**request["cutting"]), request["job"])
        return {"has_data": tile is not None}, tile or b""

    def _overview(self, request: dict[str, Any], _: bytes) -> Frame:
        overview = self._reader.overview(request["location"], request["bands"])
        shape = {"rows": overview.pixels.shape[0], "width": overview.width, "height": overview.height}
        return shape, overview.pixels.tobytes()

    def _lonlat(self, request: dict[str, Any], body: bytes) -> Frame:
        key = (request["job"], request["georeference"])
        if key not in self._transformers:
            georeference = Georeference.from_json(request["georeference"])
            self._transformers[key] = self._reader.transformer(georeference)
        self._transformers.move_to_end(key)
        while len(self._transformers) > _TRANSFORMERS_KEPT:
            self._transformers.popitem(last=False)
        x, y = np.frombuffer(body, np.float64).reshape(2, -1)
        return {}, np.stack(self._transformers[key].to_lonlat(x.copy(), y.copy())).astype(np.float64).tobytes()


def _answer(answers: _Answers, request: dict[str, Any], body: bytes) -> Frame:
    """The answer to a request; whatever a library raises over an image is one."""
    try:
        return answers.to(request, body)
    except MemoryError:
        error: Exception = out_of_memory(request["about"])
    except ExtensionError as refusal:
        error = refusal
    except Exception as other:
        said = f"{type(other).__name__}: {other}"
        error = ImageReadError(f"image {request['about']!r} cannot be read: {in_one_line(said, 300)}")
    return {"error": [type(error).__name__, str(error)]}, b""


def serve() -> NoReturn:
    """Answer requests until there are no more."""
    # Whoever stops a worker stops all of its group; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    requests, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer

    def read(count: int) -> bytes:
        found = requests.read(count)
        if len(found) < count:
            raise EOFError
        return found

    settings, _ = unpack(read)
    confine()
    bound_cache()
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    memory = settings["limits"]["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    answers = _Answers(_datasets(settings))
    # What is loaded stays: nobody is to look through it for garbage.
    gc.freeze()
    _write(out, {}, b"")
    while True:
        try:
            request, body = unpack(read)
        except EOFError:
            os._exit(0)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(spent.ru_utime + spent.ru_stime + request["seconds"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        _write(out, *_answer(answers, request, body))


def _write(out: IO[bytes], header: dict[str, Any], body: bytes) -> None:
    out.writelines(pack(header, body))
    out.flush()


def _datasets(settings: dict[str, Any]) -> _GivenDatasets:
    allowed = None if settings["allowed"] is None else Allowed.from_dict(settings["allowed"])
    return _GivenDatasets(
        check=None if allowed is None else allowed.tile,
        check_reference=None if allowed is None else allowed.referred,
        sidecars=settings["sidecars"],
        most_open=settings["most_open"],
        max_block_bytes=settings["limits"]["block_bytes"],
        vrt_driver=VrtDriver().registered,
    )


if __name__ == "__main__":
    sys.exit(serve())
