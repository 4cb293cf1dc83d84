"""How an endpoint calls its model: a container over the SageMaker contract, or a Python function."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import orjson

from osml_tasks.errors import ExtensionConfigurationError

PING_TIMEOUT_S = 60.0
_PING_INTERVAL_S = 0.25
_QUOTED_ANSWER_CHARS = 1_000


class ModelError(Exception):
    """The model did not answer, or answered with an error.

    :ivar status: the HTTP status of the model's answer; 500 for an exception of a Python function, 0
        when there was no answer at all.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a model is called with; the three headers are None where the caller gave none."""

    body: bytes
    content_type: str | None = None
    accept: str | None = None
    custom_attributes: str | None = None


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model answered."""

    body: bytes
    content_type: str


class Model(Protocol):
    """Something that an endpoint can call."""

    async def __call__(self, model_input: ModelInput) -> ModelOutput:
        """Return the model's answer.

        :raises ModelError: the model failed.
        """


class PythonModel:
    """A Python function, called in a pool of threads.

    :param function: takes the payload; returns bytes, text, or a dictionary that becomes JSON.
    :param executor: where it runs. A call that timed out keeps its thread until it returns.
    """

    def __init__(self, function: Callable[[bytes], object], executor: Executor) -> None:
        self._function = function
        self._executor = executor

    async def __call__(self, model_input: ModelInput) -> ModelOutput:
        """Return the function's answer; its exception becomes a :class:`ModelError`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._call, model_input.body)

    def _call(self, body: bytes) -> ModelOutput:
        try:
            return _encode(self._function(body))
        # A model that calls sys.exit must fail this one invocation, not end the endpoint.
        except BaseException as error:
            raise ModelError(500, f"{type(error).__name__}: {error}") from error


class ContainerModel:
    """A model container that serves ``POST /invocations`` and ``GET /ping``.

    :param url: its base URL.
    :param session: must not set a time limit of its own; the endpoint limits each call.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    async def __call__(self, model_input: ModelInput) -> ModelOutput:
        """Return the container's answer; one outside 200 to 299 becomes a :class:`ModelError`."""
        try:
            return await self._post(model_input)
        except aiohttp.ClientError as error:
            raise ModelError(0, f"{type(error).__name__}: {error}") from error

    async def _post(self, model_input: ModelInput) -> ModelOutput:
        url = f"{self._url}/invocations"
        async with self._session.post(url, data=model_input.body, headers=_headers(model_input)) as response:
            body = await response.read()
            if not 200 <= response.status < 300:
                raise ModelError(response.status, body.decode(errors="replace")[:_QUOTED_ANSWER_CHARS])
            return ModelOutput(body, response.headers.get("Content-Type", "application/octet-stream"))

    async def wait_until_ready(self, timeout: float = PING_TIMEOUT_S) -> None:
        """Return when ``GET /ping`` answers 200.

        :param timeout: in seconds.
        :raises ExtensionConfigurationError: it did not within ``timeout``.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await self._answers_ping():
                    await asyncio.sleep(_PING_INTERVAL_S)
        except TimeoutError:
            message = f"model {self._url}: GET /ping did not answer 200 within {timeout:g} s"
            raise ExtensionConfigurationError(message) from None

    async def _answers_ping(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with self._session.get(f"{self._url}/ping") as response:
                return response.status == 200
        return False


async def open_model(
    spec: str, *, executor: Executor, session: aiohttp.ClientSession, ping_timeout: float = PING_TIMEOUT_S
) -> Model:
    """Return the model that ``spec`` names, ready to be called.

    :param spec: a container's base URL, or ``module:function``.
    :param ping_timeout: how long to wait for a container, in seconds.
    :raises ExtensionConfigurationError: there is no such function, or the container is not ready in time.
    """
    if not spec.startswith(("http://", "https://")):
        return PythonModel(load_function(spec), executor)
    container = ContainerModel(spec, session)
    await container.wait_until_ready(ping_timeout)
    return container


def load_function(spec: str) -> Callable[[bytes], object]:
    """Return the function that ``module:function`` names.

    :raises ExtensionConfigurationError: there is none, or its module cannot be imported.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ExtensionConfigurationError(
            f"model {spec!r} is neither a container's URL nor of the form module:function"
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:
        message = f"model {spec!r}: cannot import {module_name}: {type(error).__name__}: {error}"
        raise ExtensionConfigurationError(message) from error
    if not callable(function):
        raise ExtensionConfigurationError(f"model {spec!r}: {module_name} has no function {attribute}")
    return function  # type: ignore[no-any-return]


def _headers(model_input: ModelInput) -> dict[str, str]:
    headers = {
        "Content-Type": model_input.content_type,
        "Accept": model_input.accept,
        "X-Amzn-SageMaker-Custom-Attributes": model_input.custom_attributes,
    }
    return {name: value for name, value in headers.items() if value is not None}


def _encode(answer: object) -> ModelOutput:
    if isinstance(answer, bytes):
        return ModelOutput(answer, "application/octet-stream")
    if isinstance(answer, str):
        return ModelOutput(answer.encode(), "text/plain; charset=utf-8")
    if isinstance(answer, dict):
        return ModelOutput(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")
    raise TypeError(f"the model returned {type(answer).__name__}, not bytes, str or dict")
