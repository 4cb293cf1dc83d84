"""``osml-tasks`` as it is, with the time that ``start_job`` takes written down.

``python -m benchmarks.timed_detect detect ...``: imports are those of the command itself.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from benchmarks.publishing import timed_publishing
from osml_tasks import detection
from osml_tasks.cli import main
from osml_tasks.job_handle import JobHandle

_start_job = detection.start_job


@wraps(_start_job)
def _timed_start_job(*arguments: Any, **options: Any) -> JobHandle:
    with timed_publishing():
        return _start_job(*arguments, **options)


if __name__ == "__main__":
    detection.start_job = _timed_start_job
    main()
