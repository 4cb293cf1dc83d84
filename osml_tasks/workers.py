"""A pool that sends a caller's tiles through submit and poll workers; the workers are in ``celery_worker``."""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geojson

from osml_tasks.celery import broker_is_configured, client_app, new_app
from osml_tasks.celery_worker import AssemblyWorker, AsyncResultsWorker, AsyncSubmissionWorker, running
from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.connections import Connections, connect
from osml_tasks.detection import NO_SECRETS, start_job
from osml_tasks.errors import ExtensionConfigurationError, SourceError
from osml_tasks.feature_collection import feature_collection
from osml_tasks.metrics import Metric, MetricsSink, put, timing
from osml_tasks.preflight import require
from osml_tasks.sequential import Outcome, failure, one_after_the_other
from osml_tasks.sources import Source, SourceTile, one_tile
from osml_tasks.sweep import clean_up_jobs

if TYPE_CHECKING:
    from osml_tasks.detectors import AsyncSMDetector

__all__ = ["AssemblyWorker", "AsyncResultsWorker", "AsyncSubmissionWorker", "AsyncTileWorkerPool"]


class AsyncTileWorkerPool:
    """Sends a caller's tiles through submit and poll workers.

    With a broker configured (``CELERY_BROKER_URL``) these are the fleet's; without, the pool starts a broker
    and workers for the one call, which takes the extra ``osml-tasks[local]``. With
    ``enable_worker_optimization=False`` there are none: the detector does one tile after the other.

    :param async_detector: whose endpoint and credentials are used.
    :param config: default: the detector's. Without workers it is the detector's own that counts.
    :param metrics_tracker: gets counts of tiles and features, and how long it took.
    """

    def __init__(
        self,
        async_detector: AsyncSMDetector,
        config: AsyncEndpointConfig | None = None,
        metrics_tracker: MetricsSink | None = None,
    ) -> None:
        self._detector = async_detector
        self._config = config or async_detector.config
        self._metrics = metrics_tracker
        self._outcome = Outcome()

    @property
    def features(self) -> geojson.FeatureCollection:
        """What the last call has found, in the order of its tiles."""
        return feature_collection(self._outcome.features)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The failed tiles of the last call, as in a report: ``tile``, ``reason``, ``error``, ``attempts``."""
        return self._outcome.failures

    def process_tiles_async(self, tile_queue: queue.Queue[Any] | Iterable[Source]) -> tuple[int, int]:
        """Find the features of tiles; they are in :attr:`features` afterwards.

        :param tile_queue: paths, ``s3://`` URIs, bytes, or dictionaries with one of them as ``image_path``. A
            ``queue.Queue`` is read up to a ``None``, or until it is empty.
        Should it raise without workers, the tiles that were finished by then are in :attr:`features`, too.

        :return: how many tiles were processed, and how many failed: :attr:`failures` says why.
        :raises ExtensionConfigurationError: workers, broker, buckets or endpoint are not as they should be.
        :raises JobFailedError: the job as a whole could not go on.
        """
        if isinstance(tile_queue, queue.Queue):
            with _drained(tile_queue) as items:
                return self.process_tiles_async(items)
        tiles, refused = _readable(tile_queue)
        self._outcome = Outcome(failures=list(refused))
        if tiles and self._config.enable_worker_optimization:
            self._through_workers(tiles)
        else:
            one_after_the_other(self._detector, tiles, self._outcome, self._metrics)
        failed = len(self._outcome.failures)
        processed = len(tiles) + len(refused) - failed
        put(self._metrics, Metric.TILES_SUCCEEDED, processed)
        put(self._metrics, Metric.TILES_FAILED, failed)
        return processed, failed

    def _through_workers(self, tiles: Sequence[SourceTile]) -> None:
        with timing(self._metrics, Metric.TOTAL_ASYNC_DURATION):
            found = self._on_the_fleet(tiles) if broker_is_configured() else self._on_own_workers(tiles)
        self._outcome.features.extend(found.features)
        self._outcome.failures.extend(found.failures)
        put(self._metrics, Metric.FEATURE_COUNT, len(found.features))

    def _on_own_workers(self, tiles: Sequence[SourceTile]) -> Outcome:
        with self._own_fleet() as connections:
            try:
                return self._as_job(connections, tiles)
            finally:
                if connections.resources.policy is not CleanupPolicy.DISABLED:
                    # Now or never: what this fleet has to clean up later is forgotten with its broker.
                    clean_up_jobs(connections, force=True)

    def _on_the_fleet(self, tiles: Sequence[SourceTile]) -> Outcome:
        if self._detector.has_assumed_credentials:
            raise ExtensionConfigurationError(NO_SECRETS)
        require(self._config, self._detector.endpoint, self._detector.session)
        with closing(connect(self._config, client_app(), self._detector.session)) as connections:
            return self._as_job(connections, tiles)

    def _as_job(self, connections: Connections, tiles: Sequence[SourceTile]) -> Outcome:
        with timing(self._metrics, Metric.S3_UPLOAD_DURATION):
            handle = start_job(connections, tiles, self._detector.endpoint)
        try:
            features = handle.result()["features"]
            return Outcome(features, handle.report()["failures"])
        finally:
            # Whatever stopped the waiting, nobody will come back for this job.
            handle.cancel()
            handle.discard()

    @contextmanager
    def _own_fleet(self) -> Iterator[Connections]:
        """Broker and workers for as long as the block lasts; S3 and the endpoint are the configured ones."""
        # Here alone a library module uses the local stack: without a broker, there has to be one.
        from osml_tasks.local.broker import Broker

        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osml-pool-")))
            broker = stack.enter_context(Broker(directory))
            app = new_app(broker.url)
            env = {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": broker.url} | self._credentials()
            config = self._worker_config()
            options: dict[str, Any] = {
                "env": env,
                "app": app,
                "log_directory": directory,
                "resources": self._detector.resources,
            }
            workers = [
                AsyncSubmissionWorker(config, **options),
                AsyncResultsWorker(config, **options),
                AssemblyWorker(config, beat=True, **options),
            ]
            stack.enter_context(running(workers))
            yield stack.enter_context(closing(connect(config, app, self._detector.session)))

    def _worker_config(self) -> AsyncEndpointConfig:
        # What others have left is not this fleet's to find: it knows of no job but its own.
        changes: dict[str, Any] = {"cleanup_leftover_seconds": 0.0}
        if self._detector.has_assumed_credentials:
            # They are those of a role already.
            changes |= {"assume_role_arn": None, "external_id": None}
        return self._config.model_copy(update=changes)

    def _credentials(self) -> dict[str, str]:
        """The detector's assumed credentials, for processes of ours: in their environment, not in a message."""
        found = self._detector.session.get_credentials()
        if not self._detector.has_assumed_credentials or found is None:
            return {}
        frozen = found.get_frozen_credentials()
        return {
            "AWS_ACCESS_KEY_ID": str(frozen.access_key),
            "AWS_SECRET_ACCESS_KEY": str(frozen.secret_key),
            "AWS_SESSION_TOKEN": str(frozen.token),
        }


def _readable(sources: Iterable[Source]) -> tuple[list[SourceTile], list[dict[str, Any]]]:
    """The tiles that can be read, and a failure for each that cannot: it must not cost the others."""
    tiles, refused = [], []
    for place, source in enumerate(sources):
        try:
            tiles.append(one_tile(place, source))
        except SourceError as error:
            refused.append(failure(str(source)[:200], error))
    return tiles, refused


@contextmanager
def _drained(tiles: queue.Queue[Any]) -> Iterator[list[Any]]:
    """What a queue holds up to a ``None``; each item is done with when the block has ended."""
    items: list[Any] = []
    try:
        with suppress(queue.Empty):
            while not items or items[-1] is not None:
                items.append(tiles.get_nowait())
        yield [item for item in items if item is not None]
    finally:
        for _ in items:
            tiles.task_done()
