"""What a message may say, checked before anything is done with it: arguments of the tasks, and what is to follow.

Whoever can write to the broker can write a message. One that is refused concerns nobody else: no job is
ended because of it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any

from osml_tasks.celery_settings import QUEUES
from osml_tasks.errors import MessageRefusedError, NotAllowedError
from osml_tasks.jobs import Job, Shard, check_job_id

MOST_SOURCES = 10_000
"""How many sources a message may name; a prefix or a directory is one."""
LONGEST_SOURCE = 4096
"""Characters of a source: a path as long as Linux takes it, an S3 URI is shorter."""
MOST_ROUNDS = 1000
"""A job has one, and one more for each time that its failed tiles were tried again."""

_MOST_OPTIONS = 100
_MOST_POLLS = 1 << 31
_LONGEST_REASON = 300
_DEEPEST = 4  # an assembly in the chord of a poll in the chain of a submit, and what follows its failure
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointAsync.html
_ENDPOINT = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_LONGEST_ENDPOINT = 63
# Options of a signature, as Celery writes them; those that name other signatures are looked at by themselves.
_NEXT = frozenset({"chain", "chord", "link", "link_error"})
_PLAIN = frozenset(
    {
        *("task_id", "root_id", "parent_id", "group_id", "group_index", "reply_to", "origin", "shadow"),
        *("ignore_result", "retries", "expires", "time_limit", "soft_time_limit", "replaced_task_nesting"),
        *("priority", "redelivered", "delivery_mode"),
    }
)
_WHERE: Mapping[str, frozenset[str | None]] = {
    "queue": frozenset(QUEUES),
    "routing_key": frozenset(QUEUES),
    "exchange": frozenset({None, "", "osml"}),
}

logger = logging.getLogger(__name__)
_signature = cache(signature)


def log_refused(task: object, reason: object) -> None:
    """Write the one line of a message that is refused."""
    name = brief(task) if isinstance(task, str) else "no task"
    logger.warning("message refused: %s: %s", name, brief(reason))


def brief(reason: object) -> str:
    """A reason as it may stand in a log: one line of bounded length, for its words may be a stranger's."""
    text = " ".join(str(reason).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def check_arguments(task: str, positional: Any, keywords: Any) -> None:
    """Refuse a message whose arguments are not those of its task.

    :raises MessageRefusedError: with the first thing that is wrong.
    """
    check = _CHECKS.get(task)
    if check is None:
        raise MessageRefusedError("it is for no task of this program")
    if not isinstance(positional, list | tuple) or not isinstance(keywords, dict):
        raise MessageRefusedError("its arguments are no list and mapping")
    try:
        _signature(check).bind(*positional, **keywords)
    except TypeError as error:
        raise MessageRefusedError(brief(error)) from None
    try:
        check(*positional, **keywords)
    except NotAllowedError as error:
        raise MessageRefusedError(brief(error)) from None


def check_planned(job: Job, shard: Shard) -> None:
    """Refuse a message about a shard that its job does not have.

    :raises MessageRefusedError: the job has no shard of this number, or other tiles are in it.
    """
    number = first = 0
    for one in job.rounds:
        if shard.shard < number + one.shards:
            begin = first + (shard.shard - number) * one.shard_size
            planned = (begin, min(one.shard_size, first + one.tiles - begin))
            if (shard.first, shard.tiles) != planned:
                raise MessageRefusedError(
                    f"shard {shard.name} has {planned[1]} tiles from {begin} on, not those it names"
                )
            return
        number, first = number + one.shards, first + one.tiles
    raise MessageRefusedError(f"job {job.job_id} has {job.shards} shards, and none is number {shard.shard}")


def check_rounds(job: Job, rounds: int) -> None:
    """Refuse an assembly of more rounds than a job has.

    :raises MessageRefusedError: it has fewer.
    """
    if rounds > len(job.rounds):
        raise MessageRefusedError(f"job {job.job_id} has {len(job.rounds)} rounds, not {rounds}")


def parked_message(text: str) -> dict[str, Any]:
    """The message of a shard that waited for capacity, from what Redis has kept.

    :raises MessageRefusedError: it is anything but a submit task of this program, for one of its queues.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageRefusedError("what was parked is no JSON") from None
    check_signature(message, first=True)
    if message["task"] != "osml_tasks.submit":
        raise MessageRefusedError("what was parked is no submit task")
    return dict(message)


def check_signature(message: Any, *, first: bool = False, depth: int = 1) -> None:
    """Refuse what a message would have sent after it, unless that is a task of this program with its arguments.

    :param first: whether it is a message by itself, rather than what follows one.
    :raises MessageRefusedError: with the first thing that is wrong.
    """
    if depth > _DEEPEST:
        raise MessageRefusedError("too many messages follow each other")
    if not isinstance(message, dict) or not isinstance(message.get("task"), str):
        raise MessageRefusedError("what follows it is no message")
    if message.get("subtask_type") is not None:
        raise MessageRefusedError("what follows it is made of several messages")
    if not (first or message.get("immutable") is True):
        raise MessageRefusedError(f"the result of what it follows is no argument of {brief(message['task'])}")
    check_arguments(message["task"], message.get("args"), message.get("kwargs"))
    options = message.get("options")
    if not isinstance(options, dict):
        raise MessageRefusedError("what follows it has no options")
    for name, value in options.items():
        _check_option(name, value, depth)


def check_following(name: str, messages: Any, depth: int = 0) -> None:
    """The same for all that a message names as its ``chain``, ``chord``, callbacks or errbacks.

    :raises MessageRefusedError: with the first thing that is wrong.
    """
    if messages is None:
        return
    if name == "chord":
        messages = [messages]
    if isinstance(messages, dict) and name != "chain":
        messages = [messages]
    if not isinstance(messages, list) or len(messages) > _DEEPEST:
        raise MessageRefusedError(f"its {name} is no list of a few messages")
    for message in messages:
        check_signature(message, depth=depth + 1)


def _check_option(name: str, value: Any, depth: int) -> None:
    if name in _NEXT:
        check_following(name, value, depth)
    elif name in _WHERE:
        if not isinstance(value, str | None) or value not in _WHERE[name]:
            raise MessageRefusedError(f"the {name} that it is to be sent to is none of this program")
    elif name in ("headers", "stamped_headers"):
        if value:
            raise MessageRefusedError(f"what follows it has {name} of its own")
    elif name not in _PLAIN:
        raise MessageRefusedError(f"{brief(name)} is no option of a message")
    elif not isinstance(value, str | int | float | bool | None):
        raise MessageRefusedError(f"the option {name} of what follows it is no plain value")


def _detect(sources: object, *, endpoint: object, **options: object) -> None:
    _check_endpoint(endpoint)
    named = [sources] if isinstance(sources, str) else sources
    if not isinstance(named, list) or not 0 < len(named) <= MOST_SOURCES:
        raise MessageRefusedError(f"sources are a text, or a list of 1 to {MOST_SOURCES:,}: name a prefix for more")
    if not all(isinstance(source, str) and 0 < len(source) <= LONGEST_SOURCE for source in named):
        raise MessageRefusedError(f"a source is no text of 1 to {LONGEST_SOURCE} characters")
    if any("\0" in source for source in named):
        raise MessageRefusedError("a source has a NUL in it")
    if len(options) > _MOST_OPTIONS:
        raise MessageRefusedError(f"it has {len(options)} options")


def _check_endpoint(name: object) -> None:
    if not isinstance(name, str) or len(name) > _LONGEST_ENDPOINT or not _ENDPOINT.fullmatch(name):
        raise MessageRefusedError("endpoint is no endpoint's name: use at most 63 letters, digits and '-'")


def _submit(**shard: object) -> None:
    Shard.from_message(shard)


def _poll(*, idle: object = 0, seen: object = 0, **shard: object) -> None:
    tiles = Shard.from_message(shard).tiles
    _check_count("idle", idle, _MOST_POLLS)
    _check_count("seen", seen, tiles)


def _assemble(*, job: object, rounds: object = 1) -> None:
    check_job_id(job)
    _check_count("rounds", rounds, MOST_ROUNDS, least=1)


def _cleanup(*, job: object = None) -> None:
    if job is not None:
        check_job_id(job)


def _check_count(name: str, value: object, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise MessageRefusedError(f"{name} is no count from {least} to {most}")


_CHECKS: Mapping[str, Callable[..., None]] = {
    "osml_tasks.detect": _detect,
    "osml_tasks.submit": _submit,
    "osml_tasks.poll": _poll,
    "osml_tasks.assemble": _assemble,
    "osml_tasks.cleanup": _cleanup,
}
TASKS = frozenset(_CHECKS)
"""The tasks that a worker does, by name; Celery's own are none of them."""
