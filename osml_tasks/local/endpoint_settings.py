"""The settings of a local endpoint, and the faults it can be told to show."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from osml_tasks.errors import ExtensionConfigurationError

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_S3_PATH = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*/*")
_REMEMBERED_REFUSALS = 100_000
_RATES = (
    "latency_jitter",
    "model_error_rate",
    "throttle_rate",
    "unavailable_rate",
    "drop_rate",
    "garbage_rate",
    "late_rate",
    "twice_rate",
)


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """One endpoint. Every rate is a fraction of invocations, 0 to 1, default 0.

    :ivar name: the endpoint's name, as callers give it; no default.
    :ivar model: a container's base URL, or ``module:function``; no default.
    :ivar s3_output_path: where outputs go, ``s3://bucket/prefix``; no default.
    :ivar s3_failure_path: where failure objects go; default None: a failure leaves no object at all.
    :ivar instances: how many instances serve the endpoint; default 1.
    :ivar concurrency: how many invocations one instance takes at the same time; default 1. A Python
        function has as many threads as the machine has CPUs, whatever this says.
    :ivar latency: time added to each call of the model, in seconds, default 0. It holds the slot and
        counts for ``InvocationTimeoutSeconds``.
    :ivar latency_jitter: how far the added time varies around ``latency``, as a fraction of it; default 0.
    :ivar model_error_rate: invocations that fail as if the model had answered 500.
    :ivar throttle_rate: calls answered with 400 ``ThrottlingException``; each call is decided anew.
    :ivar unavailable_rate: calls answered with 503 ``ServiceUnavailable``; each call is decided anew.
    :ivar drop_rate: invocations accepted and never answered.
    :ivar garbage_rate: invocations whose output is not JSON.
    :ivar late_rate: invocations whose output appears only ``late_seconds`` after the model has answered.
    :ivar late_seconds: default 60; more than callers wait.
    :ivar twice_rate: invocations whose output is written once more ``twice_seconds`` later, as a service that
        delivers at least once may do.
    :ivar twice_seconds: default 5.
    :ivar refuse_inline: refuse requests with a ``Body``, as a region without inline payloads does;
        default False.
    :ivar ignore_path_extension: leave ``S3OutputPathExtension`` out of the output and failure
        locations; default False.
    :ivar seed: makes faults and jitter repeat: they depend on it and on the inference id; default 0.
    :raises ExtensionConfigurationError: a value is out of its range.
    """

    name: str
    model: str
    s3_output_path: str
    s3_failure_path: str | None = None
    instances: int = 1
    concurrency: int = 1
    latency: float = 0.0
    latency_jitter: float = 0.0
    model_error_rate: float = 0.0
    throttle_rate: float = 0.0
    unavailable_rate: float = 0.0
    drop_rate: float = 0.0
    garbage_rate: float = 0.0
    late_rate: float = 0.0
    late_seconds: float = 60.0
    twice_rate: float = 0.0
    twice_seconds: float = 5.0
    refuse_inline: bool = False
    ignore_path_extension: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.name) > 63 or not _NAME.fullmatch(self.name):
            raise _wrong("name", self.name, "at most 63 letters, digits and hyphens")
        self._check_paths()
        for option in ("instances", "concurrency"):
            if getattr(self, option) < 1:
                raise _wrong(option, getattr(self, option), "at least 1")
        for option in ("latency", "late_seconds", "twice_seconds"):
            if not 0 <= getattr(self, option) < float("inf"):
                raise _wrong(option, getattr(self, option), "a number of seconds from 0")
        for option in _RATES:
            if not 0 <= getattr(self, option) <= 1:
                raise _wrong(option, getattr(self, option), "from 0 to 1")

    @property
    def slots(self) -> int:
        """How many invocations the whole endpoint takes at the same time."""
        return self.instances * self.concurrency

    def _check_paths(self) -> None:
        for option in ("s3_output_path", "s3_failure_path"):
            path = getattr(self, option)
            if path is not None and not _S3_PATH.fullmatch(path):
                raise _wrong(option, path, "of the form s3://bucket or s3://bucket/prefix")


class Faults:
    """Decides which invocations go wrong, the same ones at every run.

    A decision is a hash of the seed, the fault's name and the inference id: it depends neither on the
    order of calls nor on which other faults are on.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._refused: dict[str, int] = {}

    def throttles(self, inference_id: str) -> bool:
        """Whether this call is throttled; another call with the same id is decided anew."""
        return self._refuses("throttle", self._settings.throttle_rate, inference_id)

    def is_unavailable(self, inference_id: str) -> bool:
        """Whether the service is out of order for this call; decided anew as :meth:`throttles`."""
        return self._refuses("unavailable", self._settings.unavailable_rate, inference_id)

    def drops(self, inference_id: str) -> bool:
        """Whether this invocation is never answered."""
        return self._happens("drop", self._settings.drop_rate, inference_id)

    def model_fails(self, inference_id: str) -> bool:
        """Whether the model fails in this invocation."""
        return self._happens("model_error", self._settings.model_error_rate, inference_id)

    def writes_garbage(self, inference_id: str) -> bool:
        """Whether the output of this invocation is not JSON."""
        return self._happens("garbage", self._settings.garbage_rate, inference_id)

    def is_late(self, inference_id: str) -> bool:
        """Whether the output of this invocation appears late."""
        return self._happens("late", self._settings.late_rate, inference_id)

    def writes_twice(self, inference_id: str) -> bool:
        """Whether the output of this invocation is written twice."""
        return self._happens("twice", self._settings.twice_rate, inference_id)

    def latency(self, inference_id: str) -> float:
        """Return the time to add to this invocation, in seconds."""
        latency, jitter = self._settings.latency, self._settings.latency_jitter
        if not latency or not jitter:
            return latency
        return latency * (1 + jitter * (2 * self._fraction("latency", inference_id) - 1))

    def forget(self, inference_id: str) -> None:
        """Drop what was remembered of an invocation that has been accepted."""
        self._refused.pop(inference_id, None)

    def _refuses(self, fault: str, rate: float, inference_id: str) -> bool:
        # botocore repeats a refused call with the same id: without a count it would never get through.
        count = self._refused.get(inference_id, 0)
        refused = self._happens(fault, rate, f"{inference_id}/{count}")
        if refused:
            self._refused[inference_id] = count + 1
            self._forget_oldest()
        return refused

    def _forget_oldest(self) -> None:
        if len(self._refused) > _REMEMBERED_REFUSALS:
            del self._refused[next(iter(self._refused))]

    def _happens(self, fault: str, rate: float, key: str) -> bool:
        return rate > 0 and self._fraction(fault, key) < rate

    def _fraction(self, fault: str, key: str) -> float:
        text = f"{self._settings.seed}/{fault}/{key}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


def _wrong(option: str, value: object, rule: str) -> ExtensionConfigurationError:
    return ExtensionConfigurationError(f"{option} is {value!r}; it must be {rule}")
