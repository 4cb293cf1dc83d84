"""The local endpoint inside the test's own process: without S3, on a clock that the test sets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import aiohttp
import boto3
import pytest
from aiohttp import web

from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.local import endpoint_server
from osml_tasks.local.endpoint import Endpoint
from osml_tasks.local.endpoint_model import ModelInput, ModelOutput, open_model
from osml_tasks.local.endpoint_s3 import InputError
from osml_tasks.local.endpoint_settings import EndpointSettings
from osml_tasks.local.validation import InvocationRequest
from tests.waiting import PATIENCE


@dataclass
class MemoryObjects:
    """Objects without S3, for an endpoint without a server."""

    written: dict[str, bytes] = field(default_factory=dict)
    content_types: dict[str, str] = field(default_factory=dict)

    async def get(self, location: str) -> bytes:
        raise InputError(location)

    async def put(self, location: str, body: bytes, content_type: str) -> None:
        self.content_types[location] = content_type
        self.written[location] = body


@dataclass
class HeldModel:
    """A model that answers when it is let go."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, model_input: ModelInput) -> ModelOutput:
        self.bodies.append(model_input.body)
        await self.let_go.wait()
        return ModelOutput(b"{}", "application/json")


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def settings(name: str = "detector", **changes: Any) -> EndpointSettings:
    paths = {"s3_output_path": "s3://tiles/o", "s3_failure_path": "s3://tiles/f"}
    return EndpointSettings(**{"name": name, "model": "tile_models:echo", **paths, **changes})


def request(body: bytes, **members: Any) -> InvocationRequest:
    return InvocationRequest(endpoint_name="detector", body=body, **members)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def test_an_invocation_that_queues_too_long_expires() -> None:
    asyncio.run(expire_one_of_three())


async def expire_one_of_three() -> None:
    clock, model, objects = Clock(), HeldModel(), MemoryObjects()
    endpoint = Endpoint(settings(), model=model, objects=objects, clock=clock)
    endpoint.accept(request(b"runs", request_ttl=60))
    impatient = endpoint.accept(request(b"impatient", request_ttl=60))
    patient = endpoint.accept(request(b"patient", request_ttl=120))
    clock.now += 59.9
    endpoint.expire_overdue()
    assert endpoint.stats()["queued"] == 2
    clock.now += 0.2
    endpoint.expire_overdue()
    await until(lambda: endpoint.stats()["expired"] == 1)
    assert b"expired" in objects.written[str(impatient.failure_location)]
    model.let_go.set()
    await until(lambda: endpoint.stats()["in_flight"] == 0)
    assert model.bodies == [b"runs", b"patient"]
    assert patient.output_location in objects.written
    assert endpoint.stats()["busy_seconds"] == pytest.approx(60.1)
    assert endpoint.stats()["succeeded"] == 2


def test_an_overdue_invocation_expires_even_when_a_slot_takes_it_first() -> None:
    asyncio.run(expire_at_the_slot())


async def expire_at_the_slot() -> None:
    clock, model = Clock(), HeldModel()
    endpoint = Endpoint(settings(s3_failure_path=None), model=model, objects=MemoryObjects(), clock=clock)
    endpoint.accept(request(b"runs"))
    endpoint.accept(request(b"overdue", request_ttl=60))
    await until(lambda: model.bodies == [b"runs"])
    clock.now += 61
    model.let_go.set()
    await until(lambda: endpoint.stats()["in_flight"] == 0)
    assert model.bodies == [b"runs"]
    assert endpoint.stats()["expired"] == 1
    await endpoint.close()


def test_a_late_output_holds_no_slot() -> None:
    asyncio.run(deliver_late())


async def deliver_late() -> None:
    model, objects = HeldModel(), MemoryObjects()
    endpoint = Endpoint(settings(late_rate=1.0, late_seconds=0.3), model=model, objects=objects)
    for body in (b"first", b"second"):
        endpoint.accept(request(body))
    model.let_go.set()
    await until(lambda: endpoint.stats()["running"] == 0 and len(model.bodies) == 2)
    assert (objects.written, endpoint.stats()["in_flight"]) == ({}, 2)
    await until(lambda: endpoint.stats()["late"] == 2)
    assert (len(objects.written), endpoint.stats()["succeeded"], endpoint.stats()["in_flight"]) == (2, 2, 0)


def test_an_output_is_written_twice() -> None:
    asyncio.run(deliver_twice())


async def deliver_twice() -> None:
    model, objects = HeldModel(), MemoryObjects()
    endpoint = Endpoint(settings(twice_rate=1.0, twice_seconds=0.3), model=model, objects=objects)
    answer = endpoint.accept(request(b"tile"))
    model.let_go.set()
    await until(lambda: endpoint.stats()["succeeded"] == 1)
    assert (objects.written.pop(answer.output_location), endpoint.stats()["twice"]) == (b"{}", 0)
    await until(lambda: endpoint.stats()["twice"] == 1)
    assert (objects.written, endpoint.stats()["succeeded"]) == ({answer.output_location: b"{}"}, 1)


def test_one_server_has_endpoints_of_different_settings() -> None:
    asyncio.run(describe_two_endpoints())


async def describe_two_endpoints() -> None:
    both = [settings("fast", model="json:loads"), settings("wide", model="json:loads", instances=3)]
    async with endpoint_server.running_server(both, objects=MemoryObjects()) as url:
        stats = await asyncio.to_thread(lambda: json.load(urlopen(f"{url}/stats")))
    assert {name: one["slots"] for name, one in stats.items()} == {"fast": 1, "wide": 3}


def test_a_container_that_is_not_there_is_said() -> None:
    with pytest.raises(ExtensionConfigurationError, match=r"did not answer 200 within 0\.3 s"):
        asyncio.run(open_absent_container())


async def open_absent_container() -> None:
    async with aiohttp.ClientSession() as session:
        with ThreadPoolExecutor(1) as executor:
            await open_model("http://127.0.0.1:9", executor=executor, session=session, ping_timeout=0.3)


@dataclass
class Container:
    """A model container; its first ping finds it not ready."""

    url: str = ""
    pings: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)

    async def ping(self, _: web.Request) -> web.Response:
        self.pings += 1
        return web.Response(status=503 if self.pings == 1 else 200)

    async def invoke(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.headers.append(dict(request.headers))
        if body == b"reject":
            return web.Response(status=422, text="not a tile")
        return web.Response(body=body.upper(), content_type="application/geo+json")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        application = web.Application()
        application.add_routes([web.get("/ping", self.ping), web.post("/invocations", self.invoke)])
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()


def test_a_container_is_called_as_sagemaker_calls_it() -> None:
    asyncio.run(call_container())


async def call_container() -> None:
    container, objects = Container(), MemoryObjects()
    async with (
        container.serving(),
        endpoint_server.running_server([settings(model=container.url)], objects=objects) as url,
    ):
        assert container.pings == 2
        answer = await invoke(
            url, Body=b"tile", ContentType="image/png", Accept="application/json", CustomAttributes="trace=1"
        )
        rejected = await invoke(url, Body=b"reject")
        await until(lambda: len(objects.written) == 2)
    assert objects.written[answer["OutputLocation"]] == b"TILE"
    assert objects.content_types[answer["OutputLocation"]] == "application/geo+json"
    received = container.headers[0]
    assert (received["Content-Type"], received["Accept"]) == ("image/png", "application/json")
    assert received["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1"
    failure = json.loads(objects.written[rejected["FailureLocation"]])
    assert failure["failureReason"] == 'Received client error (422) from model with message "not a tile"'


def test_a_container_that_is_gone_gives_a_failure_object() -> None:
    asyncio.run(lose_container())


async def lose_container() -> None:
    container, objects = Container(), MemoryObjects()
    async with contextlib.AsyncExitStack() as stack:
        async with container.serving():
            server = endpoint_server.running_server([settings(model=container.url)], objects=objects)
            url = await stack.enter_async_context(server)
        answer = await invoke(url, Body=b"tile")
        await until(lambda: bool(objects.written))
    assert b"Received server error (0)" in objects.written[answer["FailureLocation"]]


async def invoke(url: str, **members: Any) -> dict[str, Any]:
    client: Any = boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    return dict(await asyncio.to_thread(client.invoke_endpoint_async, EndpointName="detector", **members))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "absent_module:f"), "cannot import absent_module"),
        (("--model", "json:absent"), "json has no function absent"),
        (("--model", "json"), "neither a container's URL nor of the form module:function"),
        (("--model", "json:dumps", "--latency", "-1"), "latency is -1.0"),
        (("--model", "json:dumps", "--name", "detector"), "every endpoint needs a name of its own"),
        (("--model", "json:dumps", "--port", "70000"), "--port"),
        ((), "Missing option"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert endpoint_server.main(["--name", "detector", "--s3-output-path", "s3://bucket", *options]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert message in written.err
