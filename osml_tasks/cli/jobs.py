"""Coming back to a job by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osml_tasks.job_handle import JobHandle


def handle_of(job_id: str) -> JobHandle:
    """The handle of a job that somebody started before.

    :raises NotAllowedError: that cannot be a job's id.
    :raises JobNotFoundError: there is no record of it.
    """
    from osml_tasks.config import AsyncEndpointConfig
    from osml_tasks.detection import open_connections
    from osml_tasks.job_handle import JobHandle
    from osml_tasks.jobs import check_job_id

    handle = JobHandle(open_connections(AsyncEndpointConfig()), check_job_id(job_id))
    handle.status()
    return handle
