"""What workers do with whole images: cut a tile where it is due, and put on the image what was found in it.

Nothing here is loaded before the first job that has images.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from osml_tasks.allowed_tiles import allowed_tile
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.features import Feature, add_provenance
from osml_tasks.jobs import Job
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.tile import Tile

if TYPE_CHECKING:
    import boto3

    from osml_tasks.imagery.datasets import Datasets
    from osml_tasks.imagery.image_job import ImageJob
    from osml_tasks.imagery.place import Placement

_JOBS_KEPT = 8


class ImageTiles:
    """Cuts tiles of images, and places features. Thread-safe; make it after a fork, not before."""

    def __init__(self, config: AsyncEndpointConfig, s3: S3Manager, session: boto3.Session) -> None:
        self._config = config
        self._s3 = s3
        self._session = session
        self._jobs: OrderedDict[str, ImageJob] = OrderedDict()
        self._lock = Lock()

    @cached_property
    def datasets(self) -> Datasets:
        """The images that this process has open."""
        from osml_tasks.imagery.datasets import Datasets

        return Datasets(self._session, lambda location: allowed_tile(location, self._config))

    def of(self, job: Job) -> ImageJob:
        """What is known of the images of a job; read from S3 once.

        :raises S3OperationError: it is not to be had.
        :raises NotAllowedError: what is there is no such record.
        """
        from osml_tasks.imagery.image_job import ImageJob

        with self._lock:
            if job.job_id not in self._jobs:
                text = self._s3.get(S3Uri(self._config.input_bucket, job.images_key))
                self._jobs[job.job_id] = ImageJob.from_json(text)
            self._jobs.move_to_end(job.job_id)
            while len(self._jobs) > _JOBS_KEPT:
                self._jobs.popitem(last=False)
            return self._jobs[job.job_id]
