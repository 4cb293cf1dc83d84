"""The report of a job: how many tiles succeeded, and for each that did not, why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from osml_tasks.features import join_lines, timestamp
from osml_tasks.job_status import JobStatus
from osml_tasks.jobs import Reason


@dataclass(frozen=True, slots=True)
class TileFailure:
    """A tile that is in the report.

    :ivar index: its place in the job.
    :ivar attempts: how often it was tried.
    """

    index: int
    tile: str
    reason: Reason
    error: str
    attempts: int

    def entry(self) -> dict[str, Any]:
        """The failure as a report has it; the index is for this program only."""
        values = asdict(self) | {"reason": self.reason.value}
        del values["index"]
        return values

    def to_json(self) -> bytes:
        """The failure as one line of its shard's list."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> TileFailure:
        """Read one line of a list."""
        values = orjson.loads(line)
        return cls(**values | {"reason": Reason(values["reason"])})


def report_of(status: JobStatus, result: str | None) -> dict[str, Any]:
    """The report of a job as far as its records go: everything but the list of failures.

    :param result: where the FeatureCollection is.
    """
    progress = status.progress
    return {
        "job_id": status.job.job_id,
        "endpoint": status.job.endpoint,
        "state": status.state.value,
        "tiles": status.job.tiles,
        "succeeded": progress.succeeded,
        "failed": progress.failed,
        "features": status.features,
        "started": _moment(status.started),
        "finished": _moment(status.finished),
        "result": result,
        "error": status.error,
        "failures": [],
    }


def report_lines(report: dict[str, Any], failures: Iterable[TileFailure]) -> Iterator[bytes]:
    """The report as JSON in pieces, however many failures there are."""
    head = orjson.dumps({key: value for key, value in report.items() if key != "failures"})
    yield head[:-1] + b',"failures":[\n'
    yield from join_lines(orjson.dumps(failure.entry(), option=orjson.OPT_APPEND_NEWLINE) for failure in failures)
    yield b"\n]}\n"


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(datetime.fromtimestamp(seconds, UTC))
