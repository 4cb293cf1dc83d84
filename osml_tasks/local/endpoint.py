"""An asynchronous endpoint without its HTTP: the queue, the slots, and the life of one invocation.

accepted -> queued -> in a slot: input, model, output or failure object -> finished. An invocation that
queues longer than its time to live expires and never reaches the model. An output that is to appear late
holds no slot until then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass

from osml_tasks.local.endpoint_model import Model, ModelError, ModelInput, ModelOutput
from osml_tasks.local.endpoint_s3 import InputError, Objects, first_line
from osml_tasks.local.endpoint_settings import EndpointSettings, Faults
from osml_tasks.local.validation import InvocationRequest, inline_refused, throttled, unavailable

KEPT_INFERENCE_IDS = 200_000
_EXPIRIES_AT_ONCE = 32
_GARBAGE = ModelOutput(b"\x00not JSON\xff", "application/octet-stream")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an accepted request; ``failure_location`` is None without a failure path."""

    inference_id: str
    output_location: str
    failure_location: str | None


@dataclass(frozen=True, slots=True)
class _Invocation:
    request: InvocationRequest
    answer: Accepted
    expires_at: float


@dataclass(slots=True)
class Counts:
    """What has happened at an endpoint so far; times in epoch seconds, None before the first."""

    invocations: int = 0
    inline: int = 0
    s3_input: int = 0
    running: int = 0
    running_max: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    dropped: int = 0
    late: int = 0
    twice: int = 0
    throttled: int = 0
    unavailable: int = 0
    first_accepted: float | None = None
    last_finished: float | None = None


class InvocationFailedError(Exception):
    """The reason that a failure object gives."""


def steady_clock() -> Callable[[], float]:
    """Return a clock in epoch seconds that never steps, whatever happens to the system's time."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def new_inference_id() -> str:
    """Return an id for an invocation whose caller gave none."""
    return str(uuid.uuid4())


class Endpoint:
    """One endpoint. Its methods belong to the thread of one running event loop.

    :param clock: epoch seconds.
    :param new_id: makes inference ids and the file names derived from them.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        model: Model,
        objects: Objects,
        clock: Callable[[], float] | None = None,
        new_id: Callable[[], str] = new_inference_id,
    ) -> None:
        self.settings = settings
        self._model = model
        self._objects = objects
        self._clock = clock or steady_clock()
        self._new_id = new_id
        self._faults = Faults(settings)
        self._counts = Counts()
        self._queue: deque[_Invocation] = deque()
        self._next_expiry = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiries = asyncio.Semaphore(_EXPIRIES_AT_ONCE)
        self._finished_slot_time = 0.0
        self._sum_of_slot_starts = 0.0
        self._inference_ids: deque[str] = deque(maxlen=KEPT_INFERENCE_IDS)
        self.created_at = self._clock()

    def accept(self, request: InvocationRequest) -> Accepted:
        """Take a request on; returns before anything is done about it.

        :raises ServiceError: the endpoint refuses it: a fault, or an inline payload it does not take.
        """
        inference_id = request.inference_id or self._new_id()
        self._refuse_if_due(request, inference_id)
        now = self._clock()
        answer = self._answer_to(request, inference_id)
        self._count_accepted(request, inference_id, now)
        if self._faults.drops(inference_id):
            self._count_finished("dropped")
        else:
            self._enqueue(_Invocation(request, answer, now + request.request_ttl))
        return answer

    def expire_overdue(self) -> None:
        """Fail whatever has queued for longer than its time to live; to be called every second or so."""
        now = self._clock()
        if now < self._next_expiry:
            return
        waiting: deque[_Invocation] = deque()
        for invocation in self._queue:
            if invocation.expires_at <= now:
                self._start(self._expire(invocation))
            else:
                waiting.append(invocation)
        self._queue = waiting
        self._next_expiry = min((invocation.expires_at for invocation in waiting), default=float("inf"))

    def inference_ids(self) -> list[str]:
        """Return the ids of accepted invocations, oldest first, the last :data:`KEPT_INFERENCE_IDS`."""
        return list(self._inference_ids)

    def stats(self) -> dict[str, int | float | None]:
        """Return :class:`Counts`, ``queued``, ``slots``, and ``busy_seconds``: slot time used so far."""
        running_slot_time = self._counts.running * self._uptime() - self._sum_of_slot_starts
        return {
            **asdict(self._counts),
            "queued": len(self._queue),
            "slots": self.settings.slots,
            "busy_seconds": max(0.0, self._finished_slot_time + running_slot_time),
        }

    async def close(self) -> None:
        """Stop; what is queued or running is lost."""
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _refuse_if_due(self, request: InvocationRequest, inference_id: str) -> None:
        if self.settings.refuse_inline and request.body is not None:
            raise inline_refused()
        if self._faults.is_unavailable(inference_id):
            self._counts.unavailable += 1
            raise unavailable()
        if self._faults.throttles(inference_id):
            self._counts.throttled += 1
            raise throttled()
        self._faults.forget(inference_id)

    def _answer_to(self, request: InvocationRequest, inference_id: str) -> Accepted:
        filename = request.filename or f"{self._new_id()}.out"
        extension = None if self.settings.ignore_path_extension else request.path_extension
        output = _location(self.settings.s3_output_path, extension, filename)
        if self.settings.s3_failure_path is None:
            return Accepted(inference_id, output, None)
        stem = filename.rpartition(".")[0] or filename
        failure = _location(self.settings.s3_failure_path, extension, f"{stem}-error.out")
        return Accepted(inference_id, output, failure)

    def _enqueue(self, invocation: _Invocation) -> None:
        self._queue.append(invocation)
        self._next_expiry = min(self._next_expiry, invocation.expires_at)
        self._fill_slots()

    def _fill_slots(self) -> None:
        while self._queue and self._counts.running < self.settings.slots:
            invocation = self._queue.popleft()
            if invocation.expires_at <= self._clock():
                self._start(self._expire(invocation))
            else:
                self._start(self._run_in_slot(invocation, self._take_slot()))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_slot(self) -> float:
        started = self._uptime()
        self._counts.running += 1
        self._counts.running_max = max(self._counts.running_max, self._counts.running)
        self._sum_of_slot_starts += started
        return started

    def _release_slot(self, started: float) -> None:
        self._counts.running -= 1
        self._sum_of_slot_starts -= started
        self._finished_slot_time += self._uptime() - started
        self._fill_slots()

    def _uptime(self) -> float:
        # Sums of epoch seconds would lose the milliseconds.
        return self._clock() - self.created_at

    async def _run_in_slot(self, invocation: _Invocation, started: float) -> None:
        try:
            await self._process(invocation)
        finally:
            self._release_slot(started)

    async def _process(self, invocation: _Invocation) -> None:
        try:
            output = await self._output_of(invocation)
        except InvocationFailedError as error:
            await self._fail(invocation, str(error))
            self._count_finished("failed")
            return
        if self._faults.is_late(invocation.answer.inference_id):
            self._start(self._deliver_late(invocation, output))
        else:
            await self._deliver(invocation, output)

    async def _deliver_late(self, invocation: _Invocation, output: ModelOutput) -> None:
        await asyncio.sleep(self.settings.late_seconds)
        await self._deliver(invocation, output)
        self._counts.late += 1

    async def _deliver(self, invocation: _Invocation, output: ModelOutput) -> None:
        try:
            await self._write(invocation.answer.output_location, output.body, output.content_type)
        except InvocationFailedError as error:
            await self._fail(invocation, str(error))
            self._count_finished("failed")
            return
        self._count_finished("succeeded")
        if self._faults.writes_twice(invocation.answer.inference_id):
            self._start(self._deliver_again(invocation, output))

    async def _deliver_again(self, invocation: _Invocation, output: ModelOutput) -> None:
        await asyncio.sleep(self.settings.twice_seconds)
        try:
            await self._write(invocation.answer.output_location, output.body, output.content_type)
        except InvocationFailedError as error:
            _log.warning("endpoint %s: %s", self.settings.name, error)
        self._counts.twice += 1

    async def _output_of(self, invocation: _Invocation) -> ModelOutput:
        request = invocation.request
        model_input = ModelInput(
            body=await self._body_of(request),
            content_type=request.content_type,
            accept=request.accept,
            custom_attributes=request.custom_attributes,
        )
        try:
            async with asyncio.timeout(request.invocation_timeout):
                return await self._call_model(model_input, invocation.answer.inference_id)
        except TimeoutError:
            reason = (
                "Your invocation timed out while waiting for a response from the model "
                f"(InvocationTimeoutSeconds {request.invocation_timeout})."
            )
            raise InvocationFailedError(_model_failure(0, reason)) from None
        except ModelError as error:
            raise InvocationFailedError(_model_failure(error.status, str(error))) from error
        except Exception as error:
            raise InvocationFailedError(f"The model could not be called: {error!r}") from error

    async def _body_of(self, request: InvocationRequest) -> bytes:
        if request.body is not None:
            return request.body
        location = request.input_location or ""
        try:
            return await self._objects.get(location)
        except InputError as error:
            raise InvocationFailedError(f"Failed to read the input {location}: {error}") from error

    async def _call_model(self, model_input: ModelInput, inference_id: str) -> ModelOutput:
        latency = self._faults.latency(inference_id)
        if latency:
            await asyncio.sleep(latency)
        if self._faults.model_fails(inference_id):
            raise ModelError(500, "simulated failure (model_error_rate)")
        if self._faults.writes_garbage(inference_id):
            return _GARBAGE
        return await self._model(model_input)

    async def _expire(self, invocation: _Invocation) -> None:
        ttl = invocation.request.request_ttl
        async with self._expiries:
            await self._fail(invocation, f"Request expired: it queued for more than RequestTTLSeconds ({ttl}).")
        self._count_finished("expired")

    async def _fail(self, invocation: _Invocation, reason: str) -> None:
        location = invocation.answer.failure_location
        if location is None:
            return
        try:
            await self._write(location, _failure_object(invocation, reason), "application/json")
        except InvocationFailedError as error:
            _log.warning("endpoint %s: %s", self.settings.name, error)

    async def _write(self, location: str, body: bytes, content_type: str) -> None:
        try:
            await self._objects.put(location, body, content_type)
        except Exception as error:
            raise InvocationFailedError(f"Failed to write {location}: {first_line(error)}") from error

    def _count_accepted(self, request: InvocationRequest, inference_id: str, now: float) -> None:
        counts = self._counts
        counts.first_accepted = counts.first_accepted or now
        counts.invocations += 1
        if request.body is None:
            counts.s3_input += 1
        else:
            counts.inline += 1
        counts.in_flight += 1
        counts.in_flight_max = max(counts.in_flight_max, counts.in_flight)
        self._inference_ids.append(inference_id)

    def _count_finished(self, outcome: str) -> None:
        counts = self._counts
        setattr(counts, outcome, getattr(counts, outcome) + 1)
        counts.in_flight -= 1
        counts.last_finished = self._clock()


def _location(path: str, extension: str | None, filename: str) -> str:
    # S3 clients disagree about empty segments in a key, so a key never has one.
    segments = [segment for segment in (extension or "").split("/") if segment]
    return "/".join([path.rstrip("/"), *segments, filename])


def _model_failure(status: int, message: str) -> str:
    side = "client" if 400 <= status < 500 else "server"
    return f'Received {side} error ({status}) from model with message "{message}"'


def _failure_object(invocation: _Invocation, reason: str) -> bytes:
    request = invocation.request
    parameters = {
        "endpointName": request.endpoint_name,
        "inputLocation": request.input_location,
        "contentType": request.content_type,
        "accept": request.accept,
        "requestTTLSeconds": request.request_ttl,
        "invocationTimeoutSeconds": request.invocation_timeout,
    }
    failure = {
        "invocationStatus": "Failed",
        "failureReason": reason,
        "message": reason,
        "inferenceId": invocation.answer.inference_id,
        "requestParameters": {name: value for name, value in parameters.items() if value is not None},
    }
    return json.dumps(failure).encode()
