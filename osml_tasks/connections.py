"""Everything a process talks to, made once and passed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from celery import Celery

from osml_tasks.accounts import session_of
from osml_tasks.capacity import Capacity
from osml_tasks.celery import client_app, state_client
from osml_tasks.claims import Claims
from osml_tasks.cleanup import ResourceManager
from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import MessageRefusedError, NotAllowedError
from osml_tasks.image_tiles import ImageTiles
from osml_tasks.jobs import Job, Shard
from osml_tasks.ledger import RedisLedger
from osml_tasks.losses import Losses
from osml_tasks.messages import check_planned, log_refused, parked_message
from osml_tasks.pace import Paces
from osml_tasks.read_ahead import ReadAhead
from osml_tasks.records import JobRecords
from osml_tasks.runtime import runtime_client
from osml_tasks.s3 import S3Manager, S3Uri
from osml_tasks.s3_settings import S3Settings
from osml_tasks.stopping import Stop

if TYPE_CHECKING:
    import boto3

CALLS_AT_A_TIME = 16
"""AWS calls that one process has open at a time: each takes 20 to 60 ms on AWS."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Connections:
    """What the work of every task needs. Thread-safe; made after a fork.

    :ivar app: where messages are sent.
    :ivar runtime: what :func:`~osml_tasks.runtime.runtime_client` gives.
    :ivar pool: threads for calls that overlap.
    :ivar stop: whether the work is to be left to another worker; a client's never is.
    """

    app: Celery
    config: AsyncEndpointConfig
    s3: S3Manager
    read_ahead: ReadAhead
    runtime: Any
    records: JobRecords
    claims: Claims
    losses: Losses
    capacity: Capacity
    paces: Paces
    resources: ResourceManager
    image_tiles: ImageTiles
    pool: ThreadPoolExecutor
    stop: Stop = field(default_factory=Stop)

    def input_uri(self, key: str) -> S3Uri:
        """An object of this program's own, in the input bucket."""
        return S3Uri(self.config.input_bucket, key)

    def job(self, job_id: str) -> Job:
        """A job's record, if this process may work on it.

        :raises JobNotFoundError: if there is none.
        :raises NotAllowedError: if it uses buckets, a prefix or a role other than the configured ones.
        """
        job = self.records.job(job_id)
        self.check_job(job)
        return job

    def job_of(self, shard: Shard) -> Job:
        """The job of a shard that a message names.

        :raises JobNotFoundError: if there is none.
        :raises MessageRefusedError: the job has no such shard.
        :raises NotAllowedError: as :meth:`job`.
        """
        job = self.job(shard.job)
        check_planned(job, shard)
        return job

    def check_job(self, job: Job) -> None:
        """Refuse a job that this process may not work on.

        :raises NotAllowedError: it uses buckets, a prefix or a role other than the configured ones.
        """
        theirs = (job.input_bucket, job.input_prefix, job.output_bucket)
        ours = (self.config.input_bucket, self.config.input_prefix, self.config.output_bucket)
        if theirs != ours:
            raise NotAllowedError(
                f"job {job.job_id} keeps its objects in s3://{theirs[0]}/{theirs[1]} with outputs in {theirs[2]!r}, "
                f"this worker is configured for s3://{ours[0]}/{ours[1]} and {ours[2]!r}: give client and "
                "workers the same ARTIFACT_BUCKET, ASYNC_SM_INPUT_PREFIX and ASYNC_SM_OUTPUT_BUCKET"
            )
        if job.assume_role_arn != self.config.assume_role_arn:
            raise NotAllowedError(
                f"job {job.job_id} is to be done as {job.assume_role_arn or 'no role'}, this worker is configured for "
                f"{self.config.assume_role_arn or 'no role'}: give client and workers the same ASYNC_SM_ASSUME_ROLE_ARN"
            )

    def publish(self, messages: Iterable[str]) -> None:
        """Send messages that were parked; what Redis has kept for one and is none is left out."""
        for message in messages:
            try:
                parked = parked_message(message)
            except MessageRefusedError as error:
                log_refused("osml_tasks.submit", error)
            else:
                self.app.signature(parked).apply_async()

    def give_back(self, shard: Shard) -> None:
        """Give back what a shard of a forgotten job holds, at whichever endpoint that is."""
        for endpoint in self.records.endpoints():
            self.publish(self.capacity.keep(endpoint, shard, 0).messages)

    def close(self) -> None:
        """End the threads for calls that overlap, and wait for what is under way."""
        self.pool.shutdown(cancel_futures=True)

    def overlap(
        self, function: Callable[[Item], Result], items: Iterable[Item], ahead: int = CALLS_AT_A_TIME
    ) -> Generator[Result, None, None]:
        """``map`` over the pool, in order, with at most ``ahead`` results waiting in memory.

        When it is closed or fails, nothing of it goes on in the background.
        """
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(self.pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            call_off(pending)


def call_off(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun, and wait for what has: afterwards none of it changes anything any more."""
    unfinished = [future for future in futures if not future.cancel()]
    wait(unfinished)


def open_connections(
    config: AsyncEndpointConfig, session: boto3.Session | None = None, s3: S3Manager | None = None
) -> Connections:
    """What a client talks to: the same as a worker, with the state where Celery's results are."""
    return connect(config, client_app(), session, s3)


def connect(
    config: AsyncEndpointConfig, app: Celery, session: boto3.Session | None = None, s3: S3Manager | None = None
) -> Connections:
    """Open what a process needs for a configuration.

    :param app: its result backend is the server that holds the fleet's state.
    :param session: where AWS credentials come from, those that assume a configured role included;
        default: as boto3 finds them.
    :param s3: default: a new one of the session.
    :raises ExtensionConfigurationError: if there are no AWS credentials.
    """
    session = session_of(config, session)
    redis = state_client(app)
    s3 = s3 or S3Manager(session, S3Settings.of(config))
    return Connections(
        app=app,
        config=config,
        s3=s3,
        read_ahead=ReadAhead(s3),
        runtime=runtime_client(session, CALLS_AT_A_TIME, says_lost=True),
        records=JobRecords(redis),
        claims=Claims(redis),
        losses=Losses(redis),
        capacity=Capacity(redis),
        paces=Paces(redis),
        resources=ResourceManager(config, s3, RedisLedger(redis)),
        image_tiles=ImageTiles(config, s3, session),
        pool=ThreadPoolExecutor(CALLS_AT_A_TIME, thread_name_prefix="osml-call"),
    )
