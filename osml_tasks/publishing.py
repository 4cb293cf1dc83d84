"""A job as messages: a chain of submit → poll for each shard, linked by a chord to the assembly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, Signature, chain, chord

from osml_tasks.connections import Connections
from osml_tasks.jobs import Job, Shard, plan
from osml_tasks.manifest import read_manifest


def publish_job(app: Celery, job: Job, shards: Sequence[Shard]) -> None:
    """Send the messages of some shards of a job, or of its assembly where none is left to be done."""
    (job_chord(app, job, shards) if shards else _assembly(app, job)).apply_async()


def job_chord(app: Celery, job: Job, shards: Sequence[Shard], *, keep_report: bool = False) -> Signature[Any]:
    """The messages of some shards, and of the assembly after them.

    :param keep_report: whether the chord's result is the job's report; by default it has none.
    """
    messages = [shard.to_message() for shard in shards]
    chains = [
        chain(_step(app, "osml_tasks.submit", **message), _step(app, "osml_tasks.poll", **message), app=app)
        for message in messages
    ]
    assembly = _assembly(app, job, keep_report=keep_report)
    # Where Celery holds a step for failed because it could not send the next one, the parts tell.
    assembly.on_error(_assembly(app, job))
    return chord(chains, assembly, app=app)


def _assembly(app: Celery, job: Job, *, keep_report: bool = False) -> Signature[Any]:
    return _step(app, "osml_tasks.assemble", ignore_result=not keep_report, job=job.job_id, rounds=len(job.rounds))


def _step(app: Celery, name: str, *, ignore_result: bool = True, **arguments: Any) -> Signature[Any]:
    return app.signature(name, kwargs=arguments, immutable=True, ignore_result=ignore_result)


def planned_shards(connections: Connections, job: Job) -> list[Shard]:
    """The shards of a job that was created before, from its manifest.

    :raises ObjectNotFoundError: there is none, so it never was.
    """
    return list(plan(job, read_manifest(connections, job)))
