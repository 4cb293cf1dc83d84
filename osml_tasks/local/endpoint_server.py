"""A local Amazon SageMaker asynchronous endpoint: ``python -m osml_tasks.local.endpoint_server``.

It speaks what botocore sends for ``InvokeEndpointAsync`` and, on the same port, as much of the control
plane as tells an endpoint's configuration. ``GET /ping``, ``/stats`` and ``/invocations?endpoint=NAME``
are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import click
from aiohttp import web

from osml_tasks.errors import ExtensionConfigurationError, ExtensionError
from osml_tasks.local.endpoint import Endpoint
from osml_tasks.local.endpoint_model import open_model
from osml_tasks.local.endpoint_s3 import Objects, S3Objects
from osml_tasks.local.endpoint_settings import EndpointSettings
from osml_tasks.local.validation import (
    MAX_BODY_BYTES,
    ServiceError,
    body_too_long,
    check_signing_time,
    endpoint_not_found,
    parse_request,
)

_ACCOUNT = "000000000000"
_EXPIRY_INTERVAL_S = 1.0
_SHUTDOWN_TIMEOUT_S = 0.5


class EndpointApi:
    """The HTTP front of endpoints.

    :param endpoints: by name; their configurations are named ``NAME-config``.
    :param region: goes into ARNs.
    :param clock: epoch seconds; by it a signature is too old, or of a time to come.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        region: str = "us-east-1",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._endpoints = {endpoint.settings.name: endpoint for endpoint in endpoints}
        self._region = region
        self._targets: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "SageMaker.DescribeEndpoint": self._describe_endpoint,
            "SageMaker.DescribeEndpointConfig": self._describe_endpoint_config,
        }

    def application(self) -> web.Application:
        """Return the routes, to be served by a runner."""
        application = web.Application()
        application.add_routes(
            [
                web.post("/endpoints/{name}/async-invocations", self._invoke),
                web.post("/", self._control),
                web.get("/ping", self._ping),
                web.get("/stats", self._stats),
                web.get("/invocations", self._invocations),
            ]
        )
        return application

    async def _invoke(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            check_signing_time(request.headers, self._clock())
            parsed = parse_request(name, request.headers, await _read_body(request))
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                raise endpoint_not_found(name)
            accepted = endpoint.accept(parsed)
        except ServiceError as error:
            return _json_response(error.status, {"message": str(error)}, {"x-amzn-errortype": error.code})
        locations = {"X-Amzn-SageMaker-OutputLocation": accepted.output_location}
        if accepted.failure_location is not None:
            locations["X-Amzn-SageMaker-FailureLocation"] = accepted.failure_location
        return _json_response(202, {"InferenceId": accepted.inference_id}, locations)

    async def _control(self, request: web.Request) -> web.Response:
        target = request.headers.get("X-Amz-Target", "")
        try:
            check_signing_time(request.headers, self._clock())
            members = await _read_members(request)
            if target not in self._targets:
                raise ServiceError(f"Unknown operation {target!r}", code="UnknownOperationException")
            return _json_response(200, self._targets[target](members), {})
        except ServiceError as error:
            return _json_response(error.status, {"__type": error.code, "message": str(error)}, {})

    def _describe_endpoint(self, members: Mapping[str, Any]) -> dict[str, Any]:
        name = str(members.get("EndpointName"))
        arn = self._arn("endpoint", name)
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise ServiceError(f'Could not find endpoint "{arn}".', code="ValidationException")
        return {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": f"{name}-config",
            "EndpointStatus": "InService",
            "ProductionVariants": [_variant_summary(endpoint.settings)],
            "CreationTime": endpoint.created_at,
            "LastModifiedTime": endpoint.created_at,
            "AsyncInferenceConfig": _async_inference_config(endpoint.settings),
        }

    def _describe_endpoint_config(self, members: Mapping[str, Any]) -> dict[str, Any]:
        config_name = str(members.get("EndpointConfigName"))
        arn = self._arn("endpoint-config", config_name)
        endpoint = self._endpoints.get(config_name.removesuffix("-config"))
        if endpoint is None or not config_name.endswith("-config"):
            raise ServiceError(f'Could not find endpoint configuration "{arn}".', code="ValidationException")
        return {
            "EndpointConfigName": config_name,
            "EndpointConfigArn": arn,
            "ProductionVariants": [_variant(endpoint.settings)],
            "CreationTime": endpoint.created_at,
            "AsyncInferenceConfig": _async_inference_config(endpoint.settings),
        }

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self._region}:{_ACCOUNT}:{kind}/{name.lower()}"

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _stats(self, _: web.Request) -> web.Response:
        stats = {name: endpoint.stats() for name, endpoint in self._endpoints.items()}
        return _json_response(200, stats, {})

    async def _invocations(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.get(request.query.get("endpoint", ""))
        if endpoint is None:
            return _json_response(404, {"message": "name one of the endpoints: ?endpoint=NAME"}, {})
        return _json_response(200, endpoint.inference_ids(), {})


@contextlib.asynccontextmanager
async def running_server(
    settings: Sequence[EndpointSettings],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    objects: Objects | None = None,
) -> AsyncIterator[str]:
    """Serve the endpoints that ``settings`` describe, and give the server's URL.

    :param port: 0 for any free one.
    :param objects: where inputs and outputs are; by default the S3 of the ``AWS_*`` variables.
    :raises ExtensionConfigurationError: a model is not there, there are no AWS credentials, or two
        endpoints have one name.
    :raises OSError: the port is taken.
    """
    _check_names(settings)
    objects = objects or S3Objects.from_environment()
    async with contextlib.AsyncExitStack() as stack:
        endpoints = await _open_endpoints(settings, objects, stack)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        application = EndpointApi(endpoints, region=region).application()
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port).start()
        expiry = asyncio.create_task(_expire_overdue_forever(endpoints))
        stack.callback(expiry.cancel)
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"


async def _open_endpoints(
    settings: Sequence[EndpointSettings], objects: Objects, stack: contextlib.AsyncExitStack
) -> list[Endpoint]:
    executor = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="model")
    # A thread cannot be interrupted: waiting for one here could take as long as a model call.
    stack.callback(executor.shutdown, wait=False, cancel_futures=True)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))
    await stack.enter_async_context(session)
    models = {
        spec: await open_model(spec, executor=executor, session=session)
        for spec in {one.model: None for one in settings}
    }
    endpoints = [Endpoint(one, model=models[one.model], objects=objects) for one in settings]
    for endpoint in endpoints:
        stack.push_async_callback(endpoint.close)
    return endpoints


async def _expire_overdue_forever(endpoints: Sequence[Endpoint]) -> None:
    while True:
        await asyncio.sleep(_EXPIRY_INTERVAL_S)
        for endpoint in endpoints:
            endpoint.expire_overdue()


def _check_names(settings: Sequence[EndpointSettings]) -> None:
    names = [one.name for one in settings]
    if len(set(names)) < len(names):
        raise ExtensionConfigurationError(f"every endpoint needs a name of its own: {', '.join(names)}")


async def _read_body(request: web.Request) -> bytes:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise body_too_long()
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise body_too_long() from None


async def _read_members(request: web.Request) -> Mapping[str, Any]:
    try:
        members = json.loads(await request.read() or b"{}")
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ServiceError("The request body is not a JSON object", code="SerializationException")
    return members


def _json_response(status: int, content: object, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(content).encode(),
        headers={"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4()), **headers},
    )


def _variant(settings: EndpointSettings) -> dict[str, Any]:
    return {
        "VariantName": "AllTraffic",
        "ModelName": settings.name,
        "InitialInstanceCount": settings.instances,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }


def _variant_summary(settings: EndpointSettings) -> dict[str, Any]:
    return {
        "VariantName": "AllTraffic",
        "CurrentInstanceCount": settings.instances,
        "DesiredInstanceCount": settings.instances,
        "CurrentWeight": 1.0,
        "DesiredWeight": 1.0,
    }


def _async_inference_config(settings: EndpointSettings) -> dict[str, Any]:
    output = {"S3OutputPath": settings.s3_output_path}
    if settings.s3_failure_path is not None:
        output["S3FailurePath"] = settings.s3_failure_path
    return {
        "OutputConfig": output,
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.concurrency},
    }


@click.command(context_settings={"show_default": True})
@click.option("--name", "names", multiple=True, required=True, help="Name of an endpoint; repeatable.")
@click.option("--model", required=True, help="Base URL of a container, or module:function.")
@click.option("--s3-output-path", required=True, help="s3://bucket/prefix that outputs go to.")
@click.option("--s3-failure-path", help="s3://bucket/prefix for failure objects; without it there are none.")
@click.option("--instances", type=int, default=1, help="Instances of the endpoint.")
@click.option("--concurrency", type=int, default=1, help="Invocations that one instance takes at once.")
@click.option("--latency", type=float, default=0.0, help="Seconds added to every call of the model.")
@click.option("--latency-jitter", type=float, default=0.0, help="Variation of the latency, 0 to 1.")
@click.option("--model-error-rate", type=float, default=0.0, help="Invocations that the model fails, 0 to 1.")
@click.option("--throttle-rate", type=float, default=0.0, help="Calls that are throttled, 0 to 1.")
@click.option("--unavailable-rate", type=float, default=0.0, help="Calls answered with 503, 0 to 1.")
@click.option("--drop-rate", type=float, default=0.0, help="Invocations never answered, 0 to 1.")
@click.option("--garbage-rate", type=float, default=0.0, help="Outputs that are not JSON, 0 to 1.")
@click.option("--late-rate", type=float, default=0.0, help="Outputs that appear late, 0 to 1.")
@click.option("--late-seconds", type=float, default=60.0, help="How late that is, in seconds.")
@click.option("--twice-rate", type=float, default=0.0, help="Outputs that are written a second time, 0 to 1.")
@click.option("--twice-seconds", type=float, default=5.0, help="How much later that is, in seconds.")
@click.option("--refuse-inline", is_flag=True, help="Refuse inline payloads, as some regions do.")
@click.option("--ignore-path-extension", is_flag=True, help="Leave S3OutputPathExtension out of locations.")
@click.option("--seed", type=int, default=0, help="Makes faults and jitter repeat.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0 takes a free one.")
def command(names: tuple[str, ...], host: str, port: int, **options: Any) -> None:
    """Serve local asynchronous endpoints, all with the same settings, until SIGTERM or SIGINT.

    Prints one line, "ready http://HOST:PORT", when it serves. S3 is that of the AWS_* variables.
    """
    asyncio.run(_serve([EndpointSettings(name=name, **options) for name in names], host, port))


async def _serve(settings: Sequence[EndpointSettings], host: str, port: int) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with running_server(settings, host=host, port=port) as url:
            click.echo(f"ready {url}")
            await asyncio.Event().wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 2, after one line on stderr, if it cannot serve."""
    try:
        command.main(arguments, standalone_mode=False)
    except click.ClickException as error:
        return _refused(error.format_message())
    except (ExtensionError, OSError) as error:
        return _refused(str(error))
    return 0


def _refused(reason: str) -> int:
    click.echo(f"error: {' '.join(reason.split())}", err=True)
    return 2


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A model call that hangs in a thread would keep the process alive for as long as it hangs.
    os._exit(status)
