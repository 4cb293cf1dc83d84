"""What the fleet knows of its jobs while they run: small records in Redis, each with an expiry.

None of it is the truth about a finished shard, which is its part in S3; losing all of it costs
invocations, never features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import NoPermissionError, WatchError

from osml_tasks.errors import JobNotFoundError
from osml_tasks.job_status import JobStatus, read_status
from osml_tasks.jobs import Job, JobState, Progress, Shard
from osml_tasks.metrics import AsyncMetricsTracker
from osml_tasks.polling import TileRecord
from osml_tasks.redis_keys import PREFIX
from osml_tasks.s3_uri import S3Uri, is_uri
from osml_tasks.transitions import Transitions

RECORD_SECONDS = 7 * 24 * 3600
"""How long records outlive their last use, s. Longer than the longest job."""

_JOB = f"{PREFIX}job:"
_JOBS = f"{PREFIX}jobs"
_LIVE = f"{PREFIX}live"
_PROGRESS = f"{PREFIX}progress:"
_TILES = f"{PREFIX}tiles:"
_METRICS = f"{PREFIX}metrics:"
_LOCATIONS = f"{PREFIX}locations:"
_ENDPOINTS = f"{PREFIX}endpoints"
_ROOTS = f"{PREFIX}roots"


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """Where an endpoint writes, as its first answer showed: ``s3://`` URIs without a slash at the end."""

    output: str | None
    failure: str | None


class JobRecords:
    """The records of all jobs. Thread-safe.

    :param redis: a client of the server that holds the fleet's state.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._transitions = Transitions(redis)

    def now(self) -> float:
        """The server's time, s since the epoch: one clock for all workers."""
        return server_time(self._redis)

    def create(self, job: Job) -> None:
        """Write down a new job as queued."""
        with self._redis.pipeline() as pipe:
            self._create(pipe, job)

    def restore(self, job: Job) -> bool:
        """The same for a job whose records are lost, or of fewer rounds; says whether they still were."""
        key = _JOB + job.job_id
        with self._redis.pipeline() as pipe, suppress(WatchError):
            pipe.watch(key)
            text = pipe.hget(key, "job")
            if text is None or len(Job.from_json(text).rounds) < len(job.rounds):
                pipe.multi()
                self._create(pipe, job)
                return True
        return False

    def _create(self, pipe: Any, job: Job) -> None:
        key = _JOB + job.job_id
        # A worker that outlived the loss of the record may have written parts of one.
        pipe.delete(key, _PROGRESS + job.job_id)
        pipe.hset(key, mapping={"job": job.to_json(), "state": JobState.QUEUED.value})
        pipe.expire(key, RECORD_SECONDS)
        pipe.zadd(_JOBS, {job.job_id: job.created})
        pipe.sadd(_ENDPOINTS, job.endpoint)
        pipe.sadd(_LIVE, job.job_id)
        for every in (_JOBS, _ENDPOINTS, _LIVE):
            pipe.expire(every, RECORD_SECONDS)
        pipe.execute()

    def _write(self, job_id: str, fields: Mapping[str, str | float]) -> None:
        """Write fields of a job, and begin its time to live anew."""
        with self._redis.pipeline() as pipe:
            pipe.hset(_JOB + job_id, mapping=fields)
            pipe.expire(_JOB + job_id, RECORD_SECONDS)
            pipe.execute()

    def _write_once(self, job_id: str, name: str, value: str | float) -> bool:
        """Write a field that has no value yet; says whether it had none."""
        with self._redis.pipeline() as pipe:
            pipe.hsetnx(_JOB + job_id, name, value)
            pipe.expire(_JOB + job_id, RECORD_SECONDS)
            return bool(pipe.execute()[0])

    def job(self, job_id: str) -> Job:
        """A job as it was written down.

        :raises JobNotFoundError: if there is no record of it.
        """
        text = self._redis.hget(_JOB + job_id, "job")
        if text is None:
            raise _not_found(job_id)
        return Job.from_json(text)

    def state(self, job_id: str) -> JobState:
        """The job's state.

        :raises JobNotFoundError: if there is no record of it.
        """
        job, state = self._redis.hmget(_JOB + job_id, "job", "state")
        if job is None:
            raise _not_found(job_id)
        return JobState(state.decode())

    def status(self, job_id: str) -> JobStatus:
        """Everything there is to say of a job.

        :raises JobNotFoundError: if there is no record of it.
        """
        with self._redis.pipeline() as pipe:
            pipe.hgetall(_JOB + job_id)
            pipe.hvals(_PROGRESS + job_id)
            fields, shards = pipe.execute()
        if b"job" not in fields:
            raise _not_found(job_id)
        return read_status(fields, shards)

    def recent(self, limit: int) -> list[JobStatus]:
        """The latest jobs that there are records of, newest first."""
        self._redis.zremrangebyscore(_JOBS, "-inf", self.now() - 2 * RECORD_SECONDS)
        names = [name.decode() for name in self._redis.zrevrange(_JOBS, 0, limit - 1)]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(_JOB + name)
                pipe.hvals(_PROGRESS + name)
            answers = pipe.execute()
        found = zip(answers[::2], answers[1::2], strict=True)
        return [read_status(fields, shards) for fields, shards in found if b"job" in fields]

    def start(self, job_id: str, now: float) -> None:
        """Note the first invocation, and that a queued job is running."""
        self._transitions.start(_JOB + job_id, now)
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)

    def set_state(self, job_id: str, state: JobState) -> None:
        """Move a job on, unless it has ended."""
        self._transitions.write(_JOB + job_id, {"state": state.value})
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)

    def end(
        self, job_id: str, state: JobState, error: str = "", *, misconfigured: bool = False, rounds: int = 0
    ) -> bool:
        """Stop all work on a job, once; says whether this call was the one that did.

        :param rounds: ends a job with so many only; 0 for any.
        """
        fields = {"state": state.value} | ({"error": error} if error else {})
        fields |= {"misconfigured": "1"} if misconfigured else {}
        ended = self._transitions.write(_JOB + job_id, fields, rounds=rounds, end=True)
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)
        if ended:
            self.bury(job_id)
        return ended

    def close(self, job_id: str, now: float) -> None:
        """Note that an ended job has been cleaned up after, too: nothing more happens to it."""
        self._transitions.close(_JOB + job_id, now)
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)

    def remove(self, job_id: str) -> bool:
        """Note that the objects of an ended job are deleted from now on, so that it cannot be reopened.

        :return: whether it has ended; otherwise it is left alone.
        """
        removed = self._transitions.mark(_JOB + job_id, "fetched", "removed")
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)
        return removed

    def reopen(self, job: Job, progress: Mapping[int, Progress]) -> bool:
        """Have an ended job go on: a completed one with one round more, any other with the rounds that it has.

        :param progress: of those shards whose failed tiles are tried again.
        :return: whether it was so, and none of its objects had been removed.
        """
        shards = {number: orjson.dumps(done.as_tuple()) for number, done in progress.items()}
        keys = (_JOB + job.job_id, _PROGRESS + job.job_id)
        self._redis.sadd(_LIVE, job.job_id)
        reopened = self._transitions.reopen(keys[0], job, keys[1], shards)
        for key in keys:
            self._redis.expire(key, RECORD_SECONDS)
        return reopened

    def mark_assembled(self, job_id: str, rounds: int, features: int | None = None) -> bool:
        """Note that result and report of so many rounds are written: the parts are not needed any more.

        :param features: how many the result has, where these are less than its tiles have given.
        :return: whether the job was waiting for that.
        """
        fields = {"assembled": "1"} | ({} if features is None else {"features": str(features)})
        marked = self._transitions.write(_JOB + job_id, fields, rounds=rounds)
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)
        return marked

    def is_assembled(self, job_id: str) -> bool:
        """Whether result and report are written."""
        return bool(self._redis.hexists(_JOB + job_id, "assembled"))

    def mark_fetched(self, job_id: str) -> bool:
        """Note that the result of an ended job was taken away; says whether it has ended."""
        marked = self._transitions.mark(_JOB + job_id, "fetched")
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)
        return marked

    def refuse_inline(self, job_id: str) -> bool:
        """Note that the endpoint takes no payload inline; says whether that is news."""
        return self._write_once(job_id, "inline_refused", "1")

    def inline_refused(self, job_id: str) -> bool:
        """Whether the endpoint was found to take no payload inline."""
        return bool(self._redis.hexists(_JOB + job_id, "inline_refused"))

    def learn_paths(self, job_id: str, paths: OutputPaths) -> OutputPaths:
        """Write down where the endpoint writes; the first worker to say so is believed by all."""
        with self._redis.pipeline() as pipe:
            # In one step: who reads only one of them takes the other for unforeseeable.
            pipe.hsetnx(_JOB + job_id, "output_path", paths.output or "")
            pipe.hsetnx(_JOB + job_id, "failure_path", paths.failure or "")
            pipe.expire(_JOB + job_id, RECORD_SECONDS)
            pipe.execute()
        learnt = self.paths(job_id)
        roots = [root for root in (learnt.output, learnt.failure) if root]
        if roots:
            self._redis.zadd(_ROOTS, dict.fromkeys(roots, self.now() + 2 * RECORD_SECONDS))
            self._redis.expire(_ROOTS, 2 * RECORD_SECONDS)
        return learnt

    def paths(self, job_id: str) -> OutputPaths:
        """Where the endpoint writes, as far as is known."""
        output, failure = self._redis.hmget(_JOB + job_id, "output_path", "failure_path")
        return OutputPaths(*(path.decode() if path else None for path in (output, failure)))

    def roots(self) -> list[S3Uri]:
        """Where the endpoints of recent jobs write."""
        self._redis.zremrangebyscore(_ROOTS, "-inf", self.now())
        names = (root.decode("utf-8", "replace") for root in self._redis.zrange(_ROOTS, 0, -1))
        return sorted((S3Uri.parse(name) for name in names if is_uri(name)), key=str)

    def server_run(self) -> str:
        """Tells one start of the server from the next, after which it may know less.

        Where that is not to be had, one is like the other: only the loss of all data shows then.
        """
        try:
            return str(self._redis.info("server")["run_id"])
        except (NoPermissionError, KeyError):
            return "unknown"

    def live(self) -> list[str]:
        """The jobs that have not ended; some of them may have, or may have been forgotten."""
        return sorted(name.decode() for name in self._redis.smembers(_LIVE))

    def bury(self, job_id: str) -> None:
        """Take a job that has ended off the list of live ones, unless it has been reopened."""
        self._redis.srem(_LIVE, job_id)
        with suppress(JobNotFoundError):
            if not self.state(job_id).is_over:
                self._redis.sadd(_LIVE, job_id)

    def touch(self, job_id: str) -> None:
        """Note that somebody is at work on a job, though there is nothing to write down of it yet."""
        self._redis.expire(_JOB + job_id, RECORD_SECONDS)

    def idle_seconds(self, job_id: str) -> float | None:
        """How long nothing has been written of a job, s; None if there is no record of it."""
        left = self._redis.ttl(_JOB + job_id)
        return None if left == -2 else max(0.0, RECORD_SECONDS - left)

    def progress(self, shard: Shard) -> Progress:
        """How far a shard has come."""
        text = self._redis.hget(_PROGRESS + shard.job, shard.shard)
        return Progress(*orjson.loads(text)) if text else Progress()

    def progress_of_shards(self, job_id: str) -> dict[int, Progress]:
        """How far each shard of a job has come, by its number."""
        found = self._redis.hgetall(_PROGRESS + job_id)
        return {int(number): Progress(*orjson.loads(text)) for number, text in found.items()}

    def set_progress(self, shard: Shard, progress: Progress) -> None:
        """Write down how far a shard has come; one that is finished stays so."""
        keys = (_JOB + shard.job, _PROGRESS + shard.job)
        self._transitions.advance(*keys, shard.shard, orjson.dumps(progress.as_tuple()), progress)
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.expire(key, RECORD_SECONDS)
            pipe.execute()

    def tiles(self, shard: Shard) -> dict[int, TileRecord]:
        """What is known of a shard's tiles, by index."""
        fields = self._redis.hgetall(_tiles_key(shard))
        return {int(index): TileRecord.from_json(text) for index, text in fields.items()}

    def set_tiles(self, shard: Shard, records: Mapping[int, TileRecord]) -> None:
        """Write down what became of some tiles of a shard."""
        if not records:
            return
        key = _tiles_key(shard)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping={index: record.to_json() for index, record in records.items()})
            pipe.expire(key, RECORD_SECONDS)
            pipe.execute()

    def drop_tiles(self, shards: Iterable[Shard]) -> None:
        """Forget the tiles of finished shards."""
        keys = [_tiles_key(shard) for shard in shards]
        if keys:
            self._redis.unlink(*keys)

    def add_metrics(self, shard: Shard, metrics: AsyncMetricsTracker) -> None:
        """Add what one step has measured to what the shard's other steps have."""
        totals = {name: summary["total"] for name, summary in metrics.summary().items()}
        if not totals:
            return
        key = _METRICS + shard.name
        with self._redis.pipeline(transaction=False) as pipe:
            for name, total in totals.items():
                pipe.hincrbyfloat(key, name, total)
            pipe.expire(key, RECORD_SECONDS)
            pipe.execute()

    def take_metrics(self, shard: Shard) -> dict[str, float]:
        """What all steps of a shard have measured, by name; once."""
        key = _METRICS + shard.name
        with self._redis.pipeline() as pipe:
            pipe.hgetall(key)
            pipe.unlink(key)
            totals = pipe.execute()[0]
        return {name.decode(): float(total) for name, total in totals.items()}

    def expect_late(self, job_id: str, until: float) -> None:
        """Note that outputs may still appear up to a time (s since the epoch)."""
        if until > self.late_until(job_id):
            self._write(job_id, {"late_until": until})

    def late_until(self, job_id: str) -> float:
        """Up to when outputs of a job may still appear (s since the epoch), 0 if none is expected."""
        return float(self._redis.hget(_JOB + job_id, "late_until") or 0)

    def note_locations(self, job_id: str, uris: Iterable[S3Uri]) -> None:
        """Remember objects of a job that are outside of its directories, after its tiles are forgotten."""
        names = [str(uri) for uri in uris]
        if names:
            self._redis.sadd(_LOCATIONS + job_id, *names)
            self._redis.expire(_LOCATIONS + job_id, RECORD_SECONDS)

    def locations(self, job: Job) -> list[S3Uri]:
        """What an endpoint that does not honour path extensions answered for a job's tiles."""
        uris = [S3Uri.parse(uri.decode()) for uri in self._redis.smembers(_LOCATIONS + job.job_id)]
        for shard in range(job.shards):
            for text in self._redis.hvals(f"{_TILES}{job.job_id}/{shard:05d}"):
                record = TileRecord.from_json(text)
                uris += [S3Uri.parse(uri) for uri in (record.output, record.failure) if uri]
        return uris

    def endpoints(self) -> list[str]:
        """The endpoints of recent jobs."""
        return sorted(name.decode() for name in self._redis.smembers(_ENDPOINTS))


def server_time(redis: Any) -> float:
    """A Redis server's time, s since the epoch."""
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)


def _not_found(job_id: str) -> JobNotFoundError:
    return JobNotFoundError(
        f"no record of job {job_id!r}: check the id; records are kept for 7 days. "
        f"Where the broker has lost them, osml-tasks resume {job_id} goes on from S3"
    )


def _tiles_key(shard: Shard) -> str:
    return f"{_TILES}{shard.name}"
