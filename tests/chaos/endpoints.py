"""The endpoints of a rig: ``python -m tests.chaos.endpoints``, a process."""

from __future__ import annotations

import asyncio

from osml_tasks.local.endpoint_settings import EndpointSettings
from tests.integration.endpoints import PATHS, SCRIPTED, serve

ENDPOINTS = [
    EndpointSettings(name="steady", model=SCRIPTED, concurrency=8, latency=0.3, **PATHS),  # 25 tiles/s
    EndpointSettings(name="slow", model=SCRIPTED, concurrency=8, latency=2.0, **PATHS),  # 4 tiles/s
]

if __name__ == "__main__":
    asyncio.run(serve(ENDPOINTS))
