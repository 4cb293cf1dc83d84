"""What a job consists of: tiles, shards, options, and the names that follow from them.

Everything here is plain data. Names are functions of job, shard, tile and attempt alone, so that a
message may be delivered twice and still concern the same objects.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

import orjson

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import MessageRefusedError, NotAllowedError

DEFAULT_SHARD_SIZE = 100
MAX_SHARD_SIZE = 1000
"""Tiles in a shard at most: what one page of a LIST answers."""
MAX_SHARDS = 2000
"""Shards in a job, unless ``max_concurrent_jobs`` asks for smaller ones."""

RECORD_NAME = "job.json"
"""What the copy of a job's record is called, in the job's own directory."""

_MOST = 1 << 40  # no count or offset of ours comes near
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NEW_JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-kept)?")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    ASSEMBLING = "assembling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, well or badly."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Reason(StrEnum):
    """Why a tile failed, as the report says it."""

    MODEL = "model"
    TIMEOUT = "timeout"
    UNPARSABLE = "unparsable"
    INPUT = "input"
    THROTTLED = "throttled"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of a job's tiles that one submit → poll chain carries. All of it fits in a message.

    :ivar job: the job's id.
    :ivar shard: its number in the job, from 0.
    :ivar first: index of its first tile.
    :ivar tiles: how many tiles it has.
    :ivar start: first byte of its lines in the manifest.
    :ivar end: the byte after its last line.
    """

    job: str
    shard: int
    first: int
    tiles: int
    start: int
    end: int

    @classmethod
    def from_message(cls, arguments: dict[str, Any]) -> Shard:
        """Check a message's arguments before anything is done with them.

        :raises MessageRefusedError: if they are not those of a shard.
        """
        names = {field.name for field in fields(cls)}
        if arguments.keys() != names:
            raise MessageRefusedError(
                f"a shard has the arguments {', '.join(sorted(names))}, each of them, and no other"
            )
        shard = cls(**arguments)
        try:
            check_job_id(shard.job)
        except NotAllowedError as error:
            raise MessageRefusedError(str(error)) from None
        numbers = (shard.shard, shard.first, shard.tiles, shard.start, shard.end)
        if not all(type(number) is int and 0 <= number <= _MOST for number in numbers):
            raise MessageRefusedError("a number of the shard that it names is no count")
        if not 0 < shard.tiles <= MAX_SHARD_SIZE or shard.end <= shard.start:
            raise MessageRefusedError(f"it names the shard {numbers!r}: empty, too large, or back to front")
        return shard

    def to_message(self) -> dict[str, Any]:
        """The arguments of this shard's messages."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Job and shard in one word, for leases and path extensions."""
        return f"{self.job}/{self.shard:05d}"

    @property
    def ids(self) -> dict[str, Any]:
        """Job and shard as a line of the log names them."""
        return {"job": self.job, "shard": self.shard}


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the client's configuration fixes for the whole job; units as in ``AsyncEndpointConfig``."""

    max_wait_time: float
    polling_interval: float
    max_polling_interval: float
    exponential_backoff_multiplier: float
    max_retries: int
    max_concurrent_jobs: int
    inline_payload_max_bytes: int
    cleanup_policy: str
    cleanup_delay_seconds: float = 300.0

    @classmethod
    def from_config(cls, config: AsyncEndpointConfig) -> JobOptions:
        """Take a job's options from a configuration."""
        options = {field.name: getattr(config, field.name) for field in fields(cls)}
        return cls(**options | {"cleanup_policy": config.policy_in_force.value})


@dataclass(frozen=True, slots=True)
class Round:
    """A go at some of a job's tiles: the first is at all of them, each retry adds one at those that failed.

    :ivar tiles: how many it has; their lines in the manifest follow those of the round before.
    :ivar shard_size: tiles in each of its shards but the last.
    """

    tiles: int
    shard_size: int

    @property
    def shards(self) -> int:
        """How many shards it has; their numbers follow those of the round before."""
        return -(-self.tiles // self.shard_size)


@dataclass(frozen=True, slots=True)
class Job:
    """One request: an endpoint, tiles, options. Only a retry changes it; a copy in S3 outlives the broker.

    :ivar created: seconds since the epoch.
    :ivar assume_role_arn: the role that all its AWS calls are made as, or None.
    :ivar images: how many images its tiles are windows of; 0 where they are payloads as they stand.
    """

    job_id: str
    endpoint: str
    rounds: tuple[Round, ...]
    created: float
    input_bucket: str
    input_prefix: str
    output_bucket: str
    options: JobOptions
    assume_role_arn: str | None = None
    images: int = 0

    def to_json(self) -> bytes:
        """The job as it stands in its record."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Job:
        """Read a job's record.

        :raises NotAllowedError: it is the record of nothing that can be a job.
        """
        try:
            values = orjson.loads(text)
            check_job_id(values["job_id"])
            rounds = tuple(Round(**one) for one in values["rounds"])
            return cls(**values | {"options": JobOptions(**values["options"]), "rounds": rounds})
        except (ValueError, KeyError, TypeError) as error:
            raise NotAllowedError(f"what is kept of a job is no record of one ({error})") from None

    @property
    def tiles(self) -> int:
        """How many tiles it has, each counted once."""
        return self.rounds[0].tiles

    @property
    def lines(self) -> int:
        """How many lines its manifest has: a tile that is tried again has another."""
        return sum(one.tiles for one in self.rounds)

    @property
    def shards(self) -> int:
        """How many shards all rounds have."""
        return sum(one.shards for one in self.rounds)

    @property
    def latest_shards(self) -> range:
        """The numbers of the last round's shards: what failed in those before was tried again."""
        return range(self.shards - self.rounds[-1].shards, self.shards)

    @property
    def prefix(self) -> str:
        """Where in the input bucket everything of this job lies, with a slash at its end."""
        return f"{self.input_prefix}{self.job_id}/"

    @property
    def record_key(self) -> str:
        """The copy of this record, for when the broker is lost."""
        return f"{self.prefix}{RECORD_NAME}"

    @property
    def paths_key(self) -> str:
        """Where the endpoint writes, as it was learnt."""
        return f"{self.prefix}paths.json"

    @property
    def manifest_key(self) -> str:
        """The object with a line for each tile."""
        return f"{self.prefix}tiles.jsonl"

    @property
    def images_key(self) -> str:
        """What is known of the images that its tiles are cut from, and how."""
        return f"{self.prefix}images.json"

    @property
    def result_key(self) -> str:
        """The assembled FeatureCollection."""
        return f"{self.prefix}result.geojson"

    @property
    def report_key(self) -> str:
        """The job's report."""
        return f"{self.prefix}report.json"

    def payloads_prefix(self, shard: int) -> str:
        """Where the payloads of one shard lie."""
        return f"{self.prefix}payloads/{shard:05d}/"

    def payload_key(self, shard: int, index: int, name: str) -> str:
        """The object that holds a tile's payload, where it has to be uploaded."""
        return f"{self.payloads_prefix(shard)}{index:07d}{suffix(name)}"

    def image_key(self, image: int, name: str) -> str:
        """The object that holds a whole image, where it has to be uploaded."""
        return f"{self.prefix}images/{image:05d}{suffix(name)}"

    def dem_key(self, name: str) -> str:
        """The object that holds the height model, where it has to be uploaded."""
        return f"{self.prefix}images/dem{suffix(name)}"

    def part_key(self, shard: int) -> str:
        """The features of one finished shard."""
        return f"{self.prefix}parts/{shard:05d}.geojsonl"

    def failures_key(self, shard: int) -> str:
        """The failed tiles of one finished shard; missing where there are none."""
        return f"{self.prefix}failures/{shard:05d}.jsonl"

    def skipped_key(self, shard: int) -> str:
        """The tiles of one finished shard that had nothing in them; missing where there are none."""
        return f"{self.prefix}skipped/{shard:05d}.jsonl"

    def inference_id(self, index: int, attempt: int) -> str:
        """``InferenceId`` of an invocation; at most 64 characters."""
        return f"{self.job_id}.{index:07d}.{attempt}"


def output_filename(index: int, attempt: int) -> str:
    """``Filename`` of an invocation; at most 32 characters, one dot."""
    return f"{index:07d}-{attempt}.out"


def failure_filename(index: int, attempt: int) -> str:
    """The name of a failure object where the endpoint derives it from ``Filename``."""
    return f"{index:07d}-{attempt}-error.out"


def suffix(name: str) -> str:
    """The ending of a tile's name that its object may keep: it tells people what is inside."""
    ending = PurePosixPath(name).suffix
    return ending.lower() if _SUFFIX.fullmatch(ending) else ""


def new_job_id(now: float, *, kept: bool = False) -> str:
    """A job id that sorts by time and is safe in keys, file names and shells.

    :param kept: whether the job's objects are to stay for ever: its id says so, see :func:`may_be_swept`.
    """
    name = f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return f"{name}-kept" if kept else name


def may_be_swept(name: str) -> bool:
    """Whether a directory is one that this program made for a job, and not to be kept.

    The name alone tells, so that it is known even when every record of the job is lost.
    """
    return is_made_here(name) and not name.endswith("-kept")


def is_made_here(name: str) -> bool:
    """Whether a name has the form of our job ids."""
    return _NEW_JOB_ID.fullmatch(name) is not None


def made_at(name: str) -> float:
    """When a job id of ours was made, s since the epoch."""
    return datetime.strptime(name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()


def check_job_id(job_id: object) -> str:
    """Refuse what cannot be a job id before it becomes part of a key.

    :raises NotAllowedError: if it is anything but letters, digits, ``-`` and ``_``, at most 40.
    """
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        named = repr(job_id) if isinstance(job_id, str) else f"a {type(job_id).__name__}"
        raise NotAllowedError(f"{named} is not a job id: use at most 40 letters, digits, '-' and '_'")
    return job_id


def shard_size(tiles: int, max_concurrent_jobs: int) -> int:
    """How many tiles a shard has.

    Large enough that a job has at most :data:`MAX_SHARDS` shards, yet at most a quarter of what may
    be in flight: one shard's wait then leaves three quarters of the endpoint busy.
    """
    wanted = max(DEFAULT_SHARD_SIZE, -(-tiles // MAX_SHARDS))
    return max(1, min(wanted, max_concurrent_jobs // 4, MAX_SHARD_SIZE))


def plan(job: Job, lines: Sequence[bytes]) -> Iterator[Shard]:
    """The shards of a job, from the lines of its manifest; the tiles of a shard are of one round."""
    start = number = first = 0
    for one in job.rounds:
        last = first + one.tiles
        while first < last:
            run = lines[first : min(first + one.shard_size, last)]
            end = start + sum(map(len, run))
            yield Shard(job=job.job_id, shard=number, first=first, tiles=len(run), start=start, end=end)
            start, number, first = end, number + 1, first + len(run)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job, or one of its shards, has come; counts of tiles, and of features.

    A shard writes its own and overwrites it, so that a step which runs twice counts once.
    """

    invoked: int = 0
    succeeded: int = 0
    failed: int = 0
    features: int = 0
    shards_finished: int = 0

    def __add__(self, other: Progress) -> Progress:
        return Progress(*(a + b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def as_tuple(self) -> tuple[int, ...]:
        """The counts in the order of the fields."""
        return (self.invoked, self.succeeded, self.failed, self.features, self.shards_finished)

    @property
    def finished(self) -> int:
        """Tiles that are through, well or badly."""
        return self.succeeded + self.failed

    @property
    def forgiven(self) -> Progress:
        """The same without the failed tiles: they are tried again, and count there."""
        return replace(self, invoked=self.invoked - self.failed, failed=0)
