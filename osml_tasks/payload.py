"""How a payload reaches the endpoint: inside the invocation where it is small, through S3 where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from osml_tasks.endpoint import MAX_INPUT_BYTES, Accepted, Invocation, invoke
from osml_tasks.errors import RejectedError, SourceError
from osml_tasks.metrics import Metric, MetricsSink, put, timing
from osml_tasks.s3 import Readable, S3Manager, S3Uri

Payload = bytes | Path | S3Uri


class PayloadSender:
    """Invokes an endpoint with payloads of any size, and learns whether it takes them inline. Thread-safe.

    :param runtime: what :func:`~osml_tasks.runtime.runtime_client` gives.
    :param inline_max_bytes: largest payload that goes inside an invocation; 0 turns that off.
    :param inline_refused: whether the endpoint is known to take none.
    :param on_inline_refused: called with the refusal when that is found out.
    :param on_uploaded: called with each object before it is written.
    :param metrics: where uploads and invocations are counted and timed.
    """

    def __init__(
        self,
        runtime: Any,
        s3: S3Manager,
        *,
        inline_max_bytes: int,
        inline_refused: bool = False,
        on_inline_refused: Callable[[RejectedError], None] = lambda refusal: None,
        on_uploaded: Callable[[S3Uri], None] = lambda uri: None,
        metrics: MetricsSink | None = None,
    ) -> None:
        self._runtime = runtime
        self._s3 = s3
        self._inline_max_bytes = inline_max_bytes
        self._inline_refused = inline_refused
        self._on_inline_refused = on_inline_refused
        self._on_uploaded = on_uploaded
        self._metrics = metrics

    def send(self, invocation: Invocation, payload: Payload, upload_to: S3Uri) -> Accepted:
        """Invoke with a payload in memory, in a file or in S3.

        :param upload_to: the object to be written, where the payload cannot go inline.
        :raises InvocationError: the endpoint refuses; see its subclasses.
        :raises S3OperationError: the payload cannot be uploaded.
        :raises SourceError: the file cannot be read, or is larger than an endpoint takes.
        """
        ready = self._inline_or_uploaded(payload, upload_to)
        try:
            return self._invoke(invocation, ready)
        except RejectedError as refusal:
            if not isinstance(ready, bytes):
                raise
            # Some regions take no payload inline. Whether that was the reason shows when the same
            # payload is accepted from S3; if it is not, this raises what is wrong with the payload.
            accepted = self._invoke(invocation, self._upload(ready, len(ready), upload_to))
            self._inline_refused = True
            self._on_inline_refused(refusal)
            return accepted

    def _inline_or_uploaded(self, payload: Payload, upload_to: S3Uri) -> bytes | S3Uri:
        if isinstance(payload, S3Uri):
            return payload
        size = len(payload) if isinstance(payload, bytes) else _size(payload)
        if size > MAX_INPUT_BYTES:
            where = "a payload" if isinstance(payload, bytes) else str(payload)
            raise SourceError(f"{where} has {size:,} bytes; an endpoint takes 1,000,000,000 at most: cut it smaller")
        if not self._inline_refused and 0 < size <= self._inline_max_bytes:
            return payload if isinstance(payload, bytes) else _read(payload)
        return self._upload(payload, size, upload_to)

    def _invoke(self, invocation: Invocation, payload: bytes | S3Uri) -> Accepted:
        with timing(self._metrics, Metric.INVOCATION_DURATION):
            accepted = invoke(self._runtime, invocation, payload)
        put(self._metrics, Metric.INVOCATION_COUNT)
        if isinstance(payload, bytes):
            put(self._metrics, Metric.INLINE_COUNT)
        return accepted

    def _upload(self, payload: bytes | Path, size: int, uri: S3Uri) -> S3Uri:
        self._on_uploaded(uri)
        with timing(self._metrics, Metric.S3_UPLOAD_DURATION):
            self._s3.put(uri, payload)
        self._count_upload(size)
        return uri

    def upload_stream(self, stream: Readable, uri: S3Uri) -> S3Uri:
        """Write to S3 what a stream gives, in bounded memory."""
        self._on_uploaded(uri)
        with timing(self._metrics, Metric.S3_UPLOAD_DURATION):
            size = self._s3.upload(uri, stream)
        self._count_upload(size)
        return uri

    def _count_upload(self, size: int) -> None:
        put(self._metrics, Metric.S3_UPLOAD_COUNT)
        put(self._metrics, Metric.S3_UPLOAD_SIZE, size)


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"the worker cannot read {path}: {error.strerror}") from None
    if not path.is_file():
        raise SourceError(f"the worker cannot read {path}: it is not a file")
    return size


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"the worker cannot read {path}: {error.strerror}") from None
