"""What waits in a fleet, and for what: messages for workers, shards for an endpoint's capacity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osml_tasks.capacity import Capacity, Use
from osml_tasks.celery import state_client
from osml_tasks.celery_settings import QUEUES
from osml_tasks.errors import JobNotFoundError
from osml_tasks.records import JobRecords

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Share:
    """What an endpoint, or one job there, has of its capacity.

    :ivar in_flight: tiles invoked and not through, or about to be invoked.
    :ivar limit: most tiles that may be (``max_concurrent_jobs``); of an endpoint the largest of its jobs. None
        where no record tells.
    :ivar parked_shards: shards that wait for the endpoint, whatever the number of workers.
    """

    in_flight: int
    limit: int | None
    parked_shards: int


@dataclass(frozen=True, slots=True)
class EndpointLoad(Share):
    """The same with its jobs, by their ids."""

    jobs: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class FleetLoad:
    """What waits at one moment.

    :ivar queues: messages that no worker has taken yet, by queue. What a worker is at, or holds until its
        countdown is over, is not among them.
    :ivar endpoints: those where tiles are in flight or shards wait.
    """

    queues: Mapping[str, int]
    endpoints: Mapping[str, EndpointLoad]


def fleet_load(app: Celery) -> FleetLoad:
    """Look at the queues, and at every endpoint of recent jobs.

    :raises kombu.exceptions.OperationalError: the broker does not answer.
    :raises redis.exceptions.RedisError: the server with the jobs' state does not.
    """
    redis = state_client(app)
    records, capacity = JobRecords(redis), Capacity(redis)
    loads = {endpoint: _endpoint_load(records, capacity.use(endpoint)) for endpoint in records.endpoints()}
    return FleetLoad(queue_lengths(app), {endpoint: load for endpoint, load in loads.items() if load.jobs})


def queue_lengths(app: Celery) -> dict[str, int]:
    """How many messages wait in each queue, whatever the broker.

    :raises kombu.exceptions.OperationalError: the broker does not answer.
    """
    return {queue: declared.message_count if declared else 0 for queue, declared in _declared(app)}


def consumer_counts(app: Celery) -> dict[str, int]:
    """How many consumers each queue has, by a broker that tells: RabbitMQ does.

    :raises kombu.exceptions.OperationalError: the broker does not answer.
    """
    return {queue: declared.consumer_count if declared else 0 for queue, declared in _declared(app)}


def _declared(app: Celery) -> Iterator[tuple[str, Any]]:
    """What the broker says of each queue; None of one that it does not know."""
    with app.connection_for_read(connect_timeout=5) as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        for queue in QUEUES:
            yield queue, _declare(connection, queue)


def _declare(connection: Connection, queue: str) -> Any:
    # A channel each: RabbitMQ closes the one that asked for a queue that is not there.
    channel: Any
    with connection.channel() as channel:
        try:
            # In Redis there is nothing to be declared, and kombu looks for the queue without the prefix of its keys.
            return channel.queue_declare(queue, passive=connection.transport.driver_type == "amqp")
        except connection.channel_errors as error:
            # One that no worker has declared.
            if int(getattr(error, "reply_code", None) or 0) != _NOT_FOUND:
                raise
            return None


def _endpoint_load(records: JobRecords, use: Use) -> EndpointLoad:
    jobs = {
        job: Share(use.in_flight.get(job, 0), _limit(records, job), use.parked.get(job, 0))
        for job in sorted({*use.in_flight, *use.parked})
    }
    return EndpointLoad(
        in_flight=sum(job.in_flight for job in jobs.values()),
        limit=max((job.limit for job in jobs.values() if job.limit is not None), default=None),
        parked_shards=sum(job.parked_shards for job in jobs.values()),
        jobs=jobs,
    )


def _limit(records: JobRecords, job_id: str) -> int | None:
    try:
        return records.job(job_id).options.max_concurrent_jobs
    except JobNotFoundError:
        return None
