"""A detector for one payload at a time, with no broker: it can stand where the Model Runner has its own."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self

import geojson

from osml_tasks.accounts import session_of, session_with
from osml_tasks.cleanup import SWEEP_SECONDS, ResourceManager
from osml_tasks.config import AsyncEndpointConfig, CleanupPolicy
from osml_tasks.endpoint import (
    MAX_INPUT_BYTES,
    Accepted,
    Invocation,
    check_answer,
    content_type,
    longest_life,
    queue_limits,
)
from osml_tasks.errors import (
    ExtensionConfigurationError,
    ModelError,
    RejectedError,
    SourceError,
    ThrottledError,
    UnparsableOutputError,
)
from osml_tasks.feature_collection import feature_collection
from osml_tasks.features import check_size, parse
from osml_tasks.jobs import JobOptions, Reason, new_job_id
from osml_tasks.ledger import ResourceType
from osml_tasks.metrics import OPERATION, Metric, MetricsSink, put, timing
from osml_tasks.payload import PayloadSender
from osml_tasks.polling import AsyncInferencePoller, TileRecord, try_again
from osml_tasks.runtime import runtime_client
from osml_tasks.s3 import S3Manager, S3Object, S3Uri
from osml_tasks.s3_settings import S3Settings

_CONNECTIONS = 32
_REQUEST_MEMBERS = ("Accept", "ContentType", "CustomAttributes")

Payload = bytes | IO[bytes] | S3Uri

logger = logging.getLogger(__name__)


class ModelInvokeMode(StrEnum):
    """How a detector reaches its model, in the words of the OversightML Model Runner."""

    SM_ENDPOINT_ASYNC = "SM_ENDPOINT_ASYNC"


class AsyncSMDetector:
    """Finds features with an asynchronous SageMaker endpoint, a payload at a time. Thread-safe.

    A context manager: at its end it deletes what it still has in S3, unless the policy is ``disabled``.

    :param endpoint: the endpoint's name.
    :param async_config: default: from the environment.
    :param assumed_credentials: as STS returns them, for SageMaker and S3 alike; default: those of
        ``assume_role_arn``, or else boto3's own.
    :param endpoint_parameters: further members of each request: ``Accept``, ``ContentType``, ``CustomAttributes``.
    :param resources: what keeps account of its objects; default: a manager of its own, in memory.
    :raises ExtensionConfigurationError: an option is wrong, or there are no credentials.
    """

    def __init__(
        self,
        endpoint: str,
        async_config: AsyncEndpointConfig | None = None,
        assumed_credentials: Mapping[str, Any] | None = None,
        *,
        endpoint_parameters: Mapping[str, str] | None = None,
        resources: ResourceManager | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.config = async_config or AsyncEndpointConfig()
        self.endpoint_parameters = _checked(endpoint_parameters or {})
        self.has_assumed_credentials = assumed_credentials is not None
        given = None if assumed_credentials is None else session_with(assumed_credentials)
        self.session = given or session_of(self.config)
        self.s3 = S3Manager(self.session, S3Settings.of(self.config))
        self.runtime = runtime_client(self.session, _CONNECTIONS)
        self.poller = AsyncInferencePoller(self.s3, self.config)
        self.resources = resources or ResourceManager(self.config, self.s3)
        self.inline_refused = False
        self.id = new_job_id(time.time(), kept=self.resources.policy is CleanupPolicy.DISABLED)
        self._owns_resources = resources is None
        self._request_count = 0
        self._cleaned_at = time.monotonic()
        self._lock = Lock()

    @property
    def mode(self) -> ModelInvokeMode:
        """How the model is reached."""
        return ModelInvokeMode.SM_ENDPOINT_ASYNC

    @property
    def request_count(self) -> int:
        """How often ``find_features`` was called."""
        return self._request_count

    def find_features(self, payload: Payload, metrics: MetricsSink | None = None) -> geojson.FeatureCollection:
        """Invoke the endpoint with a payload and wait for its features.

        An attempt that the endpoint throttles or the model fails is repeated, up to ``max_retries`` times.

        :param payload: bytes; a binary stream, which is read to its end (from its beginning, if it was at
            its end); or an S3 object, which is neither copied nor deleted. 1 GB at most.
        :param metrics: an :class:`~osml_tasks.metrics.AsyncMetricsTracker`, or a CloudWatch ``MetricsLogger``,
            which gets the dimensions ``Operation`` and ``ModelName``.
        :return: the features as the model gave them.
        :raises ModelError: the model failed; the message is its own.
        :raises AsyncInferenceTimeoutError: nothing came within ``max_wait_time``.
        :raises UnparsableOutputError: the output is not a FeatureCollection, or has more than ``max_output_bytes``.
        :raises InvocationError: the endpoint refused; see its subclasses.
        :raises S3OperationError: S3 refused, or does not answer.
        """
        with self._lock:
            self._request_count += 1
        _set_dimensions(metrics, self.endpoint)
        with timing(metrics, Metric.TOTAL_ASYNC_DURATION):
            features = _Call(self, metrics).features(payload)
        put(metrics, Metric.FEATURE_COUNT, len(features))
        self._clean_up_now_and_then()
        return feature_collection(features)

    def get_resource_stats(self) -> dict[str, Any]:
        """What there is to clean up, and what has been; see :meth:`ResourceManager.get_stats`."""
        return self.resources.get_stats()

    def cleanup_resources(self, force: bool = False) -> int:
        """Clean up what is due or, by force, everything; says how many resources are gone."""
        return self.resources.cleanup(force=force).cleaned

    def _clean_up_now_and_then(self) -> None:
        """Do what beat does for a fleet: see to what has become due meanwhile."""
        if self.resources.ledger.lasting or time.monotonic() - self._cleaned_at < SWEEP_SECONDS:
            return
        self._cleaned_at = time.monotonic()
        self.resources.cleanup()

    def close(self) -> None:
        """Delete what is still in S3, unless the policy is ``disabled``; a manager that was passed in is left alone."""
        if self._owns_resources:
            self.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Call:
    """One payload on its way, attempt after attempt, and the objects that it leaves."""

    def __init__(self, detector: AsyncSMDetector, metrics: MetricsSink | None) -> None:
        self._detector = detector
        self._config = detector.config
        self._metrics = metrics
        # Unlike that of any other call, of this or another process.
        self._name = secrets.token_hex(8)
        key = f"{self._config.input_prefix}{detector.id}/payloads/{self._name}"
        self._input = S3Uri(self._config.input_bucket, key)
        self._done_with: list[S3Uri] = []
        self._may_come_late: list[S3Uri] = []
        self._sender = PayloadSender(
            detector.runtime,
            detector.s3,
            inline_max_bytes=self._config.inline_payload_max_bytes,
            inline_refused=detector.inline_refused,
            on_inline_refused=self._go_without_inline,
            on_uploaded=self._note_upload,
            metrics=metrics,
        )

    def features(self, payload: Payload) -> list[dict[str, Any]]:
        """Try until an attempt succeeds, or the last one has failed."""
        record = TileRecord()
        options = JobOptions.from_config(self._config)
        try:
            ready = self._ready(payload)
            while True:
                try:
                    return self._attempt(record.attempt, ready)
                except (ThrottledError, ModelError) as error:
                    throttled = isinstance(error, ThrottledError)
                    put(self._metrics, Metric.THROTTLED_COUNT, int(throttled))
                    reason = Reason.THROTTLED if throttled else Reason.MODEL
                    record = try_again(record, reason, str(error), options, time.time())
                    if record.given_up:
                        raise
                put(self._metrics, Metric.RETRY_COUNT)
                time.sleep(max(0.0, record.due - time.time()))
        finally:
            self._clean_up()

    def _ready(self, payload: Payload) -> bytes | S3Uri:
        """The payload as something that can be sent again: in memory if it may go inline, else in S3."""
        if isinstance(payload, S3Uri):
            return payload
        if isinstance(payload, bytes | bytearray | memoryview):
            return bytes(payload)
        if not hasattr(payload, "read"):
            raise ExtensionConfigurationError(f"the payload is {type(payload).__name__}: give bytes or a binary stream")
        stream = _Stream(payload)
        head = stream.look_ahead(self._config.inline_payload_max_bytes + 1)
        if len(head) <= self._config.inline_payload_max_bytes:
            return head
        return self._sender.upload_stream(stream, self._input)

    def _attempt(self, attempt: int, payload: bytes | S3Uri) -> list[dict[str, Any]]:
        invocation = self._invocation(attempt)
        accepted = self._sender.send(invocation, payload, self._input)
        sent = time.time()
        check_answer(accepted, self._config, self._detector.endpoint)
        resources = self._detector.resources
        answered = [uri for uri in (accepted.output, accepted.failure) if uri and resources.may_delete(uri)]
        resources.register_invocation(invocation.inference_id)
        resources.register_s3_object(accepted.output)
        try:
            output = self._wait(accepted, invocation.inference_id)
        except ModelError:
            # There is no output, and there is a failure object.
            resources.forget_s3_objects([accepted.output])
            self._done_with += [uri for uri in answered if uri == accepted.failure]
            raise
        except BaseException:
            # The endpoint may still be at it, and write what nobody waits for any more.
            self._may_come_late += answered
            raise
        finally:
            resources.release(ResourceType.INVOCATION, invocation.inference_id)
        self._done_with.append(accepted.output)
        put(self._metrics, Metric.QUEUE_TIME, max(0.0, output.last_modified.timestamp() - sent))
        return self._read(output)

    def _invocation(self, attempt: int) -> Invocation:
        parameters = self._detector.endpoint_parameters
        ttl, timeout = queue_limits(self._config.max_wait_time)
        return Invocation(
            endpoint=self._detector.endpoint,
            inference_id=f"{self._detector.id}.{self._name}.{attempt}",
            path_extension=self._detector.id,
            filename=f"{self._name}-{attempt}.out",
            content_type=parameters.get("ContentType", content_type(self._name)),
            ttl=ttl,
            timeout=timeout,
            more={name: value for name, value in parameters.items() if name != "ContentType"},
        )

    def _wait(self, accepted: Accepted, inference_id: str) -> S3Object:
        return self._detector.poller.poll_until_complete(
            accepted, endpoint=self._detector.endpoint, inference_id=inference_id, metrics=self._metrics
        )

    def _read(self, output: S3Object) -> list[dict[str, Any]]:
        try:
            check_size(output.size, self._config.max_output_bytes)
            return parse(self._download(output))
        except UnparsableOutputError as error:
            raise UnparsableOutputError(f"{output.uri}: {error}", uri=str(output.uri)) from None

    def _download(self, output: S3Object) -> bytes:
        with timing(self._metrics, Metric.S3_DOWNLOAD_DURATION):
            body = self._detector.s3.get(output)
        put(self._metrics, Metric.S3_DOWNLOAD_COUNT)
        put(self._metrics, Metric.S3_DOWNLOAD_SIZE, len(body))
        return body

    def _note_upload(self, uri: S3Uri) -> None:
        if uri not in self._done_with:
            self._done_with.append(uri)
            self._detector.resources.register_s3_object(uri)

    def _go_without_inline(self, refusal: RejectedError) -> None:
        self._detector.inline_refused = True
        logger.warning(
            "endpoint %s takes no payload inline, going on through S3 (%s)", self._detector.endpoint, refusal
        )

    def _clean_up(self) -> None:
        resources = self._detector.resources
        done = resources.release_s3_objects(self._done_with)
        late = longest_life(self._config.max_wait_time)
        done += resources.release_s3_objects(self._may_come_late, after=late)
        put(self._metrics, Metric.CLEANUP_COUNT, done.cleaned)
        put(self._metrics, Metric.CLEANUP_ERRORS, done.failed)


class _Stream:
    """A caller's stream: binary, and not longer than an endpoint takes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._head = b""
        self._size = 0

    def look_ahead(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer only if there are no more; they are read once more.

        A stream with nothing left, because it was read before, is read from its beginning.
        """
        self._head = self._read_up_to(size)
        if not self._head and hasattr(self._stream, "seekable") and self._stream.seekable():
            self._stream.seek(0)
            self._head = self._read_up_to(size)
        return self._head

    def _read_up_to(self, size: int) -> bytes:
        # A pipe or a socket may give less than it is asked for.
        pieces: list[bytes] = []
        while size > 0 and (piece := self._read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, and none only at the end."""
        if self._head:
            taken, self._head = self._head[:size], self._head[size:]
            return taken
        return self._read(size)

    def _read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        if not isinstance(chunk, bytes):
            raise ExtensionConfigurationError("the payload gives text: open it in binary mode")
        self._size += len(chunk)
        if self._size > MAX_INPUT_BYTES:
            raise SourceError("the payload has more than 1,000,000,000 bytes, which an endpoint does not take: cut it")
        return chunk


def _checked(parameters: Mapping[str, str]) -> dict[str, str]:
    unknown: Iterable[str] = sorted(parameters.keys() - set(_REQUEST_MEMBERS))
    if unknown:
        raise ExtensionConfigurationError(
            f"endpoint_parameters has {', '.join(unknown)}: "
            f"an asynchronous endpoint takes {', '.join(_REQUEST_MEMBERS)}"
        )
    return dict(parameters)


def _set_dimensions(metrics: MetricsSink | None, endpoint: str) -> None:
    """Tell CloudWatch's logger what it is that is measured; a tracker has no dimensions."""
    if metrics is not None and hasattr(metrics, "set_dimensions"):
        metrics.set_dimensions({"Operation": OPERATION, "ModelName": endpoint})
