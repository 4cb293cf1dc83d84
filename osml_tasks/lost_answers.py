"""Tiles whose invocation was sent and whose answer was lost: the endpoint may be at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from osml_tasks.connections import Connections
from osml_tasks.errors import AnswerLostError
from osml_tasks.jobs import JobOptions, Reason, Shard, output_filename
from osml_tasks.pace import Pace, first_look
from osml_tasks.polling import TileRecord, try_again
from osml_tasks.s3 import S3Uri

LOST_SECONDS = 20.0
"""How long at least the output of such a tile is waited for before it is invoked again, s."""
LOST_LOOKS = 3
"""The same as a multiple of how long the endpoint's latest shards took."""
ANSWERS_LOST = 8
"""How many invocations of a tile, beyond ``max_retries``, may have their answers lost before it is given up."""


def until_answered(
    record: TileRecord, error: AnswerLostError, options: JobOptions, now: float, pace: Pace | None
) -> TileRecord:
    """The record of such a tile: due again once its output would be there, had it been accepted.

    Polls take up an output as soon as it comes; the wait is long only for what was not accepted.
    """
    patient = replace(options, max_retries=options.max_retries + ANSWERS_LOST)
    waiting = try_again(record, Reason.THROTTLED, str(error), patient, now)
    return replace(waiting, due=max(waiting.due, now + max(LOST_SECONDS, LOST_LOOKS * first_look(pace))))


def answered_attempts(
    connections: Connections, shard: Shard, root: str | None, attempts: Mapping[int, int]
) -> dict[int, int]:
    """Which earlier attempt of tiles has an output, with one LIST for all of them.

    :param root: where the endpoint writes, if that is known.
    :param attempts: the attempt that each is due for, by index.
    """
    before = {index: range(1, attempt) for index, attempt in attempts.items() if attempt > 1}
    if not before or root is None:
        return {}
    directory = S3Uri.parse(f"{root}/{shard.name}")
    if directory.bucket not in connections.config.readable_output_buckets:
        return {}
    there = {found.uri for found in connections.s3.list(directory)}
    return {
        index: attempt
        for index, earlier in before.items()
        for attempt in earlier
        if directory.child(output_filename(index, attempt)) in there
    }
