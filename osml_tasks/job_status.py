"""Where a job stands, as its record tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from osml_tasks.jobs import Job, JobState, Progress


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands.

    :ivar started: first invocation (s since the epoch), or None.
    :ivar finished: when it had ended and been cleaned up after, likewise.
    :ivar error: why the job failed, if it did.
    :ivar misconfigured: whether a setting, rather than the course of events, made it fail.
    :ivar fetched: whether its result has been taken away.
    :ivar merged: how many features its result has, where tiles overlap and some were seen twice; None else.
    """

    job: Job
    state: JobState
    progress: Progress
    started: float | None
    finished: float | None
    error: str | None
    misconfigured: bool
    fetched: bool
    merged: int | None = None

    @property
    def features(self) -> int:
        """How many features the result has; before there is one, how many have been found."""
        return self.progress.features if self.merged is None else self.merged

    @property
    def is_unfinished_retry(self) -> bool:
        """Whether it failed or was cancelled while it was retried: what earlier rounds have found is not to be lost."""
        return self.state in (JobState.FAILED, JobState.CANCELLED) and len(self.job.rounds) > 1


def read_status(fields: Mapping[bytes, bytes], shards: Iterable[bytes]) -> JobStatus:
    """The status that the fields of a record, and the progress of its shards, make."""
    return JobStatus(
        job=Job.from_json(fields[b"job"]),
        state=JobState(fields[b"state"].decode()),
        progress=sum((Progress(*orjson.loads(text)) for text in shards), Progress()),
        started=_number(fields.get(b"started")),
        finished=_number(fields.get(b"finished")),
        error=fields[b"error"].decode() if b"error" in fields else None,
        misconfigured=fields.get(b"misconfigured") == b"1",
        fetched=fields.get(b"fetched") == b"1",
        merged=int(fields[b"features"]) if b"features" in fields else None,
    )


def _number(text: bytes | None) -> float | None:
    return float(text) if text else None
