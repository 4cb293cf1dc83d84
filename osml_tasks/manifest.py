"""A job's manifest in S3: its tiles, one a line, in their order."""

from __future__ import annotations

from osml_tasks.connections import Connections
from osml_tasks.errors import (
    ExtensionRuntimeError,
    MessageRefusedError,
    ObjectNotFoundError,
    S3AccessError,
    S3OperationError,
)
from osml_tasks.jobs import Job, Shard, plan
from osml_tasks.tile import Tile


def read_manifest(connections: Connections, job: Job) -> list[bytes]:
    """The lines of a job's manifest, in the order of its tiles.

    :raises ObjectNotFoundError: there is none.
    """
    lines = connections.s3.get(connections.input_uri(job.manifest_key)).splitlines(keepends=True)
    # A retry that stopped before it began has left more.
    return lines[: job.lines]


def read_tiles(connections: Connections, job: Job, shard: Shard) -> list[Tile]:
    """The tiles of a shard, from its lines of the job's manifest.

    :raises MessageRefusedError: the bytes that its message names are not its lines.
    """
    manifest = connections.input_uri(job.manifest_key)
    try:
        lines = connections.read_ahead.get_range(manifest, shard.start, shard.end, version=len(job.rounds))
        tiles = [*map(Tile.from_json, lines.splitlines())]
    except (ObjectNotFoundError, S3AccessError):
        raise
    except (S3OperationError, ValueError, TypeError):
        _check_lines(connections, job, shard)
        raise
    if [tile.index for tile in tiles] != [*range(shard.first, shard.first + shard.tiles)]:
        _check_lines(connections, job, shard)
        raise ExtensionRuntimeError(f"{manifest} does not have the tiles of job {job.job_id}: start the job again")
    return tiles


def _check_lines(connections: Connections, job: Job, shard: Shard) -> None:
    """Find out whether it is a message, rather than the manifest, that is wrong about a shard's lines.

    :raises MessageRefusedError: it is the message.
    """
    lines = read_manifest(connections, job)
    try:
        indexes = [Tile.from_json(line).index for line in lines]
    except (ValueError, TypeError):
        return
    if indexes == [*range(job.lines)] and shard not in plan(job, lines):
        raise MessageRefusedError(f"shard {shard.name} has other bytes of the manifest than it names")
