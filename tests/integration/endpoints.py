"""A server with one endpoint for each way in which an endpoint can behave; run as a process by the tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from osml_tasks.local.endpoint_settings import EndpointSettings

OUTPUTS, ELSEWHERE = "fleet-out", "fleet-elsewhere"
SCRIPTED = "tests.integration.models:scripted"
PATHS = {"s3_output_path": f"s3://{OUTPUTS}/output", "s3_failure_path": f"s3://{OUTPUTS}/failure"}

ENDPOINTS = [
    EndpointSettings(name="bright-objects", model="osml_tasks.local.model:find_bright_objects", concurrency=4, **PATHS),
    EndpointSettings(name="second-sight", model="tests.integration.models:bright_at_second_sight", **PATHS),
    EndpointSettings(name="scripted", model=SCRIPTED, concurrency=8, **PATHS),
    EndpointSettings(name="slow", model=SCRIPTED, concurrency=8, latency=0.4, **PATHS),
    EndpointSettings(name="bounded", model=SCRIPTED, concurrency=8, latency=0.4, **PATHS),  # for its peak
    EndpointSettings(name="throttled", model=SCRIPTED, concurrency=8, throttle_rate=0.75, seed=3, **PATHS),
    EndpointSettings(name="refuses-inline", model=SCRIPTED, concurrency=8, refuse_inline=True, **PATHS),
    EndpointSettings(name="old-region", model=SCRIPTED, concurrency=8, ignore_path_extension=True, **PATHS),
    EndpointSettings(name="silent", model=SCRIPTED, drop_rate=1.0, **PATHS),
    EndpointSettings(name="tells-no-failure", model=SCRIPTED, concurrency=8, s3_output_path=f"s3://{OUTPUTS}/plain"),
    EndpointSettings(name="one-at-a-time", model=SCRIPTED, latency=0.8, **PATHS),
    EndpointSettings(name="crowded", model=SCRIPTED, concurrency=8, latency=0.2, **PATHS),
    EndpointSettings(name="fair", model=SCRIPTED, concurrency=4, latency=0.1, **PATHS),
    EndpointSettings(name="elsewhere", model=SCRIPTED, s3_output_path=f"s3://{ELSEWHERE}/output"),
]


async def serve(endpoints: Sequence[EndpointSettings]) -> None:
    """Serve until SIGTERM."""
    from osml_tasks.local.endpoint_server import running_server  # only the process that serves needs all of it

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running_server(endpoints) as url:
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(ENDPOINTS))
