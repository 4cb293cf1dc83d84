"""Every error that osml-tasks raises on purpose.

One line of text each: what was wrong, with which value, what to change. The two families are
:class:`ExtensionConfigurationError` (change a setting or an argument) and
:class:`ExtensionRuntimeError` (something outside failed while the work went on).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ExtensionError(Exception):
    """The parent of all errors of this package."""


class ExtensionConfigurationError(ExtensionError):
    """An option, environment variable or argument is missing or wrong."""


class SourceError(ExtensionConfigurationError):
    """A source of tiles does not exist, is empty or cannot be read."""


class ImageReadError(SourceError):
    """An image is none, is damaged, or cannot be reached."""


class ImageTooCostlyError(SourceError):
    """An image cannot be read in the memory and the time that there are for it: trying again is of no use."""


class PreflightError(ExtensionConfigurationError):
    """Something the job needs is not there: broker, worker, bucket, endpoint or credentials."""


class NotAllowedError(ExtensionConfigurationError):
    """A message or a source names a file or an object that the configuration does not allow."""


class MessageRefusedError(NotAllowedError):
    """A message is not one of this program's, whatever job it names: that job goes on without it."""


class RoleRefusedError(ExtensionConfigurationError):
    """The role that the configuration names cannot be assumed with the credentials at hand."""


class ExtensionRuntimeError(ExtensionError):
    """Something outside this package failed while the work went on."""


class JobBusyError(ExtensionRuntimeError):
    """Another task is doing the same for a job at this moment."""


class WorkerStoppingError(ExtensionRuntimeError):
    """A worker was told to stop, and its time for the task at hand is over: another goes on with it."""


class ClockSkewError(ExtensionRuntimeError):
    """AWS refuses what this process signs, because its clock is wrong: another worker may do better."""


class CredentialsExpiredError(ExtensionRuntimeError):
    """The AWS credentials have expired, and cannot be renewed for now: the work goes on when they are back."""


class WorkersLostError(ExtensionRuntimeError):
    """Workers are lost at the same work again and again: something in it kills them."""


class S3OperationError(ExtensionRuntimeError):
    """An S3 request failed for good.

    :ivar uri: the bucket or object concerned, as ``s3://bucket/key``.
    """

    def __init__(self, message: str, *, uri: str = "") -> None:
        super().__init__(message)
        self.uri = uri

    @property
    def bucket(self) -> str:
        """The bucket of :attr:`uri`."""
        return self.uri.removeprefix("s3://").partition("/")[0]

    @property
    def key(self) -> str:
        """The key of :attr:`uri`, empty where a bucket as a whole is concerned."""
        return self.uri.removeprefix("s3://").partition("/")[2]


class ObjectNotFoundError(S3OperationError):
    """The S3 object, or its bucket, does not exist."""


class S3AccessError(S3OperationError):
    """S3 denied the request: the credentials, or their permissions, do not allow it."""


class S3ClockSkewError(S3OperationError, ClockSkewError):
    """S3 refuses what this process signs, because its clock is wrong; neither key nor permission is at fault."""


class S3CredentialsExpiredError(S3OperationError, CredentialsExpiredError):
    """S3 refuses what this process signs, because its credentials have expired."""


class BucketRegionError(S3AccessError):
    """A bucket is in another region than the one that this process works in."""


class OddKeyError(S3OperationError):
    """A listing has a key that this program would not write, and that obstore does not take."""


class PartsMissingError(S3OperationError):
    """A job cannot be assembled, because shards of it are not finished."""


class InvocationError(ExtensionRuntimeError):
    """An ``InvokeEndpointAsync`` call failed; see the subclasses for what can be done about it.

    :ivar endpoint: the endpoint's name.
    :ivar inference_id: the invocation's ``InferenceId``.
    """

    def __init__(self, message: str, *, endpoint: str = "", inference_id: str = "") -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.inference_id = inference_id


class EndpointUnusableError(InvocationError):
    """No invocation of this endpoint can succeed: wrong name, no permission, wrong output bucket."""


class ThrottledError(InvocationError):
    """The endpoint refused for now (throttled, overloaded, out of reach); a later call may succeed."""


class AnswerLostError(ThrottledError):
    """An invocation was sent, and what was answered is lost: the endpoint may be at it."""


class RejectedError(InvocationError):
    """The endpoint refused this one request as invalid; the same request will never succeed."""


class AsyncInferenceError(ExtensionRuntimeError):
    """An invocation was accepted and came to nothing.

    :ivar endpoint: the endpoint's name.
    :ivar inference_id: the invocation's ``InferenceId``.
    :ivar elapsed: seconds since the endpoint accepted it.
    :ivar uri: the object that was waited for, or that says so, as ``s3://bucket/key``.
    """

    def __init__(
        self, message: str, *, endpoint: str = "", inference_id: str = "", elapsed: float = 0.0, uri: str = ""
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.inference_id = inference_id
        self.elapsed = elapsed
        self.uri = uri


class AsyncInferenceTimeoutError(AsyncInferenceError):
    """Nothing was heard within ``max_wait_time``, or the request expired in the endpoint's queue or model."""


class ModelError(AsyncInferenceError):
    """The model failed; the message is the one in the endpoint's failure object."""


class UnparsableOutputError(ExtensionRuntimeError):
    """A model's output is not a GeoJSON FeatureCollection.

    :ivar uri: the output object, as ``s3://bucket/key``, where it is known.
    """

    def __init__(self, message: str, *, uri: str = "") -> None:
        super().__init__(message)
        self.uri = uri


class VectorFileError(ExtensionRuntimeError):
    """A result cannot be written in the format that was asked for; as GeoJSON it can."""


class JobNotFoundError(ExtensionRuntimeError):
    """No record of this job: the id is wrong, or its records expired."""


class JobFailedError(ExtensionRuntimeError):
    """The job as a whole could not go on; the message is the job's own error."""


class JobTimeoutError(ExtensionRuntimeError):
    """The caller stopped waiting; the job itself goes on."""


@contextmanager
def library_errors(to_error: Callable[[str], ExtensionError]) -> Iterator[None]:
    """Have whatever a library raises over one tile's content be an error of that tile, and of no other.

    :param to_error: makes one of what was raised, in one line.
    """
    try:
        yield
    except (ExtensionError, MemoryError):
        # Memory is the worker's trouble.
        raise
    except Exception as error:
        raise to_error(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
