"""What beat has done for jobs of which something was lost: their messages are sent again, their records restored.

A message may go with a broker, with a machine, or with a process between two steps of a shard. What is
sent again may turn out not to have been lost: then some steps are done twice, to no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from osml_tasks.assembly import end_job
from osml_tasks.celery import state_address
from osml_tasks.celery_settings import ASSEMBLE_QUEUE, POLL_QUEUE, SUBMIT_QUEUE
from osml_tasks.connections import Connections
from osml_tasks.errors import ExtensionError, JobNotFoundError, NotAllowedError, S3OperationError
from osml_tasks.job_cleanup import expect_late_outputs, in_directories
from osml_tasks.job_copy import read_job
from osml_tasks.jobs import Job, JobState, Progress, is_made_here, made_at
from osml_tasks.logs import log_step
from osml_tasks.publishing import planned_shards, publish_job
from osml_tasks.queues import queue_lengths
from osml_tasks.records import RECORD_SECONDS
from osml_tasks.resume import catch_up, restore_job
from osml_tasks.two_clocks import earlier

SILENT_SECONDS = 85
"""How long nothing must have been heard of a job, or of a shard, for its message to count as lost, s. More than two
signs of life are apart; and, with the sweep's 30 s, less than two minutes: a message may be lost with a worker that is
killed while it takes it. One that was not lost comes back at about the same time, and its step is done twice."""
UNASSEMBLED_SECONDS = 30
"""The same for the assembly of a job whose shards are finished, s: it follows at once."""
STAGING_SECONDS = 300
"""The same for a client that stages tiles, s; it says that it lives every few seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Lack:
    """A live job, and the numbers of its shards of which nothing is heard; without any, it lacks its assembly."""

    job: Job
    shards: frozenset[int]


def send_lost_messages(connections: Connections, silent: float = SILENT_SECONDS) -> None:
    """Send again what live jobs lack for their end, if it does not wait in a queue.

    :param silent: see :data:`SILENT_SECONDS`.
    """
    lacks = [lack for job_id in connections.records.live() if (lack := _lack(connections, job_id, silent))]
    if not lacks:
        return
    # Should its message wait there, it would only have another before it.
    waiting = queue_lengths(connections.app)
    if any(waiting[queue] for queue in (SUBMIT_QUEUE, POLL_QUEUE, ASSEMBLE_QUEUE)):
        return
    for lack in lacks:
        try:
            _send_again(connections, lack)
        except ExtensionError as error:
            logger.warning("job %s lacks messages that cannot be sent now: %s", lack.job.job_id, error)


def _lack(connections: Connections, job_id: str, silent: float) -> _Lack | None:
    records = connections.records
    try:
        job, state = connections.job(job_id), records.state(job_id)
    except JobNotFoundError:
        records.bury(job_id)
        return None
    except NotAllowedError:
        # Of another fleet, which has a sweep of its own.
        return None
    if state.is_over:
        records.bury(job_id)
        return None
    idle = records.idle_seconds(job_id) or 0.0
    progress = records.progress_of_shards(job_id)
    unfinished = {number for number in range(job.shards) if not progress.get(number, Progress()).shards_finished}
    if not unfinished:
        # One that has begun may be deleting thousands of objects.
        patience = silent if state is JobState.ASSEMBLING else min(silent, UNASSEMBLED_SECONDS)
        return _Lack(job, frozenset()) if idle > patience else None
    shards = _silent(connections, job, unfinished, idle, silent)
    return _Lack(job, shards) if shards else None


def _silent(connections: Connections, job: Job, unfinished: set[int], idle: float, silent: float) -> frozenset[int]:
    """Those of a job's unfinished shards that seem to have no message any more."""
    hand = connections.capacity.in_hand(job.endpoint, job.job_id)
    if idle > silent:
        return frozenset(unfinished - hand.parked)
    # A shard that is at work renews its lease, or has just given it back to write its part.
    since = connections.claims.lasts(job.job_id, unfinished - hand.parked - hand.held, round(2 * silent) + 1)
    return frozenset(number for number, seconds in since.items() if seconds > silent)


def _send_again(connections: Connections, lack: _Lack) -> None:
    job = lack.job
    if connections.s3.head(connections.input_uri(job.record_key)) is None:
        # Its client has not written it yet: it is staging tiles, or was killed over that.
        idle = connections.records.idle_seconds(job.job_id) or 0.0
        if idle > STAGING_SECONDS and not is_being_staged(connections, job.job_id):
            error = "its client stopped before all tiles were staged: start it again"
            end_job(connections, job.job_id, JobState.FAILED, error)
        return
    shards = [shard for shard in planned_shards(connections, job) if shard.shard in lack.shards]
    publish_job(connections.app, job, shards)
    expect_late_outputs(connections, job, connections.records.now())
    connections.claims.forget(job.job_id, lack.shards)
    connections.records.touch(job.job_id)
    what = {"shards": len(shards)} if shards else {"assembly": 1}
    log_step(logger, "sent again", level=logging.WARNING, job=job.job_id, **what)


def is_being_staged(connections: Connections, job_id: str) -> bool:
    """Whether a client has just put tiles of a job into S3."""
    staged = [found.last_modified.timestamp() for found in in_directories(connections, job_id, ())]
    return bool(staged) and earlier(connections.records.now()) - max(staged) < STAGING_SECONDS


def restore_jobs(connections: Connections) -> None:
    """Look, once after each start of the server with the fleet's state, for jobs in S3 of which it knows less."""
    place = f"restored/{connections.input_uri(connections.config.input_prefix)}"
    run = connections.records.server_run()
    if connections.claims.noted(place) == run:
        return
    to_come = False
    for job_id in _recent(connections):
        try:
            _restore(connections, job_id)
        except ExtensionError as error:
            logger.warning("job %s is not restored: %s", job_id, error)
            # The next sweep finds S3 in order, but no manifest that is gone.
            to_come |= isinstance(error, S3OperationError)
    if not to_come:
        connections.claims.note(place, run)


def _recent(connections: Connections) -> Sequence[str]:
    """The jobs that are in S3 and that there may have been records of."""
    first = connections.records.now() - RECORD_SECONDS
    folders = connections.s3.folders(connections.input_uri(connections.config.input_prefix))
    return sorted(name for name in folders if is_made_here(name) and made_at(name) > first)


def _restore(connections: Connections, job_id: str) -> None:
    try:
        copy = read_job(connections, job_id)
    except JobNotFoundError:
        # It was not started yet, or is being deleted.
        return
    if copy.ended or copy.fleet != state_address(connections.app):
        return
    try:
        status = connections.records.status(job_id)
    except JobNotFoundError:
        lost = True
    else:
        lost = len(status.job.rounds) < len(copy.job.rounds)
        if not lost and status.state.is_over:
            return
    if not lost:
        # Its copy is older for a moment when a retry begins.
        catch_up(connections, status.job)
        return
    found = restore_job(connections, copy.job)
    expect_late_outputs(connections, copy.job, connections.records.now())
    counts = {"finished": found.finished, "shards": found.shards, "answers": found.answers}
    log_step(logger, "restored", level=logging.WARNING, job=job_id, **counts)
