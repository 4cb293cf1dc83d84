"""What the documents name: their buckets and endpoints, on this machine. Run as a process it serves the endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from osml_tasks.local.broker import Broker
from osml_tasks.local.endpoint_settings import EndpointSettings
from osml_tasks.local.harbour import make_harbour
from osml_tasks.local.object_store import ObjectStore
from tests.integration.endpoints import serve
from tests.integration.fleet import ENDPOINTS_READY, WORKERS_READY, Fleet, start_python
from tests.integration.scenes import write_scene

BUCKETS = ("my-async-input-bucket", "my-async-output-bucket", "my-input-bucket", "my-output-bucket")
IN_JSON = "tests.integration.models:image_in_json"


def _endpoint(name: str, model: str, bucket: str) -> EndpointSettings:
    paths = {"s3_output_path": f"s3://{bucket}/output", "s3_failure_path": f"s3://{bucket}/failure"}
    return EndpointSettings(name=name, model=model, concurrency=8, **paths)


ENDPOINTS = [
    _endpoint("my-async-sagemaker-endpoint", IN_JSON, "my-async-output-bucket"),
    _endpoint("my-endpoint", IN_JSON, "my-output-bucket"),
    _endpoint("ships", "osml_tasks.local.model:find_bright_objects", "my-output-bucket"),
]


@contextmanager
def documented(directory: Path, *, workers: bool) -> Iterator[Fleet]:
    """Buckets, endpoints and, in ``directory``, tiles and an image; with ``workers`` broker and workers, too."""
    make_harbour(directory, width=1024, height=768, ships=12)
    write_scene(directory / "scene.tif")
    logs = directory / "logs"
    logs.mkdir()
    with ExitStack() as running:
        store = running.enter_context(ObjectStore(logs / "s3", BUCKETS, disposable=True))
        arguments = ["-m", "tests.integration.documented"]
        endpoints = start_python(running, "endpoints", arguments, logs, store.env, ENDPOINTS_READY)
        url = ENDPOINTS_READY.search(endpoints.log_text())
        assert url is not None
        env = {
            **store.env,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url[1],
            "AWS_ENDPOINT_URL_SAGEMAKER": url[1],
        }
        if not workers:
            yield Fleet(env, url[1], directory, str)
            return
        broker = running.enter_context(Broker(logs / "broker"))
        env |= {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": broker.url,
            "ARTIFACT_BUCKET": "my-input-bucket",
            "ASYNC_SM_OUTPUT_BUCKET": "my-output-bucket",
            "ASYNC_SM_TILE_ROOTS": str(directory),
            "ASYNC_SM_POLLING_INTERVAL": "0.2",
            "ASYNC_SM_MAX_POLLING_INTERVAL": "0.5",
        }
        fleet = start_python(running, "workers", ["-m", "osml_tasks", "worker"], logs, env, WORKERS_READY)
        yield Fleet(env, url[1], directory, fleet.log_text)


if __name__ == "__main__":
    asyncio.run(serve(ENDPOINTS))
