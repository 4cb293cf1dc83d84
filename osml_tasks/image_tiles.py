"""What workers do with whole images: cut a tile where it is due, and put on the image what was found in it.

Nothing here is loaded before the first job that has images.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from datetime import datetime
from functools import cached_property
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from osml_tasks.allowed_tiles import Allowed
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.endpoint import content_type
from osml_tasks.errors import ExtensionConfigurationError, NotAllowedError
from osml_tasks.features import Feature, add_provenance
from osml_tasks.imagery.window import Window
from osml_tasks.jobs import Job
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.s3_settings import S3Settings
from osml_tasks.tile import Tile

if TYPE_CHECKING:
    import boto3

    from osml_tasks.imagery.georeference import Transformer
    from osml_tasks.imagery.image import Image
    from osml_tasks.imagery.image_job import ImageJob
    from osml_tasks.imagery.reader_pool import ReaderPool

MISSING = "images are read by rasterio and shapely: pip install 'osml-tasks[imagery]'"

Key = TypeVar("Key")
Value = TypeVar("Value")

_JOBS_KEPT = 8
_TRANSFORMERS_KEPT = 64


class ImageTiles:
    """Cuts tiles of images, and places features. Thread-safe; make it after a fork, not before."""

    def __init__(self, config: AsyncEndpointConfig, s3: S3Manager, session: boto3.Session) -> None:
        self._config = config
        self._s3 = s3
        self._session = session
        self._jobs: OrderedDict[str, ImageJob] = OrderedDict()
        self._transformers: OrderedDict[tuple[str, int], Transformer] = OrderedDict()
        self._lock = Lock()

    @cached_property
    def reader(self) -> ReaderPool:
        """What reads images for this process."""
        from osml_tasks.imagery.limits import Limits
        from osml_tasks.imagery.reader_pool import ReaderPool

        limits, allowed = Limits.by(self._config), Allowed.by(self._config)
        return ReaderPool(self._session, limits, allowed, settings=S3Settings.of(self._config))

    def of(self, job: Job) -> ImageJob:
        """What is known of the images of a job; read from S3 once.

        :raises S3OperationError: it is not to be had.
        :raises NotAllowedError: what is there is no such record.
        :raises ExtensionConfigurationError: this worker cannot read images.
        """
        try:
            # All that images take, before the collector is told that what is loaded stays.
            import_module("osml_tasks.imagery.place")
            from osml_tasks.imagery.image_job import ImageJob
        except ModuleNotFoundError as error:
            raise ExtensionConfigurationError(f"a worker has no {error.name}: {MISSING} on all workers") from error

        with self._lock:
            if not self._jobs:
                # The modules that were just loaded stay; see tasks._connections.
                gc.freeze()
            if job.job_id not in self._jobs:
                text = self._s3.get(S3Uri(self._config.input_bucket, job.images_key))
                self._jobs[job.job_id] = ImageJob.from_json(text)
            return _latest(self._jobs, job.job_id, _JOBS_KEPT)

    def cut(self, job: Job, tile: Tile) -> bytes | None:
        """The payload of a tile, or None where its image has no data there.

        :raises ImageReadError: the image cannot be read.
        :raises ImageTooCostlyError: that would take more memory or CPU than there is for it.
        :raises NotAllowedError: this worker may not read it.
        """
        known = self.of(job)
        return self.reader.cut(tile.location, known.images[tile.image], _window_of(tile), known.cutting, job=job.job_id)

    def content_type(self, job: Job, tile: Tile) -> str:
        """The media type of a tile's payload."""
        return content_type(tile.name if tile.window is None else f"tile{self.of(job).cutting.tile_format.suffix}")

    def place(self, job: Job, tile: Tile, features: list[Feature], inferred: datetime) -> list[Feature]:
        """Put what was found in a tile on its image and on the globe; leaves out what scores too low.

        :param inferred: when the model answered.
        """
        from osml_tasks.imagery.classes import top_class
        from osml_tasks.imagery.place import place

        known = self.of(job)
        window, image = _window_of(tile), known.images[tile.image]
        if threshold := known.merging.score_threshold:
            features = [one for one in features if top_class(one["properties"])[1] >= threshold]
        place([(window, features)], self._transformer(job, tile.image, image))
        source = image.source | {"tileBBox": list(window.box)}
        add_provenance(features, job_id=job.job_id, source=source, inferred=inferred, properties=known.properties)
        return features

    def _transformer(self, job: Job, number: int, image: Image) -> Transformer | None:
        if image.georeference is None:
            return None
        key = (job.job_id, number)
        with self._lock:
            if key not in self._transformers:
                self._transformers[key] = self.reader.transformer(image.georeference, job.job_id)
            return _latest(self._transformers, key, _TRANSFORMERS_KEPT)


def _latest(kept: OrderedDict[Key, Value], key: Key, most: int) -> Value:
    """A value that is used now; what has not been for longest goes."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def _window_of(tile: Tile) -> Window:
    if tile.window is None:
        raise NotAllowedError(f"tile {tile.name} is no window of an image")
    return tile.window
