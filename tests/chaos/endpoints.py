"""The endpoints of a rig: ``python -m tests.chaos.endpoints``, a process."""

from __future__ import annotations

import asyncio

from osml_tasks.local.endpoint_settings import EndpointSettings
from tests.integration.endpoints import PATHS, SCRIPTED, serve

ENDPOINTS = [
    EndpointSettings(name="steady", model=SCRIPTED, concurrency=8, latency=0.3, **PATHS),  # 25 tiles/s
    EndpointSettings(name="slow", model=SCRIPTED, concurrency=8, latency=2.0, **PATHS),  # 4 tiles/s
    EndpointSettings(name="throttling", model=SCRIPTED, concurrency=8, throttle_rate=0.2, **PATHS),
    EndpointSettings(name="out-of-order", model=SCRIPTED, concurrency=8, unavailable_rate=0.2, **PATHS),
    EndpointSettings(name="dropping", model=SCRIPTED, concurrency=8, drop_rate=0.1, **PATHS),
    EndpointSettings(name="failing", model=SCRIPTED, concurrency=8, model_error_rate=0.2, **PATHS),
    EndpointSettings(name="garbled", model=SCRIPTED, concurrency=8, garbage_rate=0.1, **PATHS),
    EndpointSettings(name="late", model=SCRIPTED, concurrency=8, late_rate=0.1, late_seconds=25, **PATHS),
    EndpointSettings(name="twice", model=SCRIPTED, concurrency=8, twice_rate=1.0, twice_seconds=6, **PATHS),
]

if __name__ == "__main__":
    asyncio.run(serve(ENDPOINTS))
