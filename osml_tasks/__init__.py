"""Object detection over large imagery through Amazon SageMaker asynchronous endpoints, on a Celery fleet.

What is imported from here is loaded at its first use, so that ``import osml_tasks`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from osml_tasks.version import __version__

if TYPE_CHECKING:
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.detection import detect
    from osml_tasks.detectors import AsyncSMDetector
    from osml_tasks.job_handle import JobHandle, list_jobs, open_job
    from osml_tasks.metrics import AsyncMetricsTracker
    from osml_tasks.workers import AsyncTileWorkerPool

__all__ = [
    "AsyncEndpointConfig",
    "AsyncMetricsTracker",
    "AsyncSMDetector",
    "AsyncTileWorkerPool",
    "JobHandle",
    "__version__",
    "detect",
    "list_jobs",
    "open_job",
]

_HOMES = {
    "AsyncEndpointConfig": "osml_tasks.config",
    "AsyncMetricsTracker": "osml_tasks.metrics",
    "AsyncSMDetector": "osml_tasks.detectors",
    "AsyncTileWorkerPool": "osml_tasks.workers",
    "JobHandle": "osml_tasks.job_handle",
    "detect": "osml_tasks.detection",
    "list_jobs": "osml_tasks.job_handle",
    "open_job": "osml_tasks.job_handle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
