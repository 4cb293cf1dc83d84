"""Which messages a worker lets in: those that its own program writes, as JSON; any other is one line in the log.

Celery itself would write the whole of a foreign message to the log, or end with it, or call what it names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from traceback import walk_tb
from typing import Annotated, Any

from celery.app.task import Context
from celery.worker import consumer
from kombu.exceptions import ContentDisallowed, DecodeError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osml_tasks.celery_settings import QUEUES
from osml_tasks.errors import MessageRefusedError
from osml_tasks.messages import TASKS, brief, check_following, log_refused
from osml_tasks.polling import MAX_COUNTDOWN

MOST_BYTES = 1_000_000
"""The largest body of a message; this program's own take a few kB."""
FARTHEST = timedelta(seconds=MAX_COUNTDOWN) + timedelta(hours=1)
"""How far ahead a message may lie in a worker's memory; an hour of it for clocks that are wrong."""
_DEEPEST = 24

_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")
_JSON = "application/json"

logger = logging.getLogger(__name__)

Word = Annotated[str, Field(min_length=1, max_length=255)]
Text = Annotated[str, Field(max_length=8192)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Headers(BaseModel):
    """What Celery's second protocol has in the headers of a message, as far as a worker makes use of it."""

    model_config = ConfigDict(extra="allow", strict=True)

    task: Word
    id: Word
    root_id: Word | None = None
    parent_id: Word | None = None
    group: Word | None = None
    group_index: int | None = None
    lang: Word | None = None
    origin: Word | None = None
    shadow: Word | None = None
    argsrepr: Text | None = None
    kwargsrepr: Text | None = None
    eta: Word | None = None
    expires: Word | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    timelimit: Annotated[list[Seconds | None], Field(min_length=2, max_length=2)] | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Annotated[int, Field(ge=0)] = 0
    redelivered: bool = False
    # Stamps would be options of whatever is sent because of this message, its queue for one.
    stamped_headers: Annotated[list[str], Field(max_length=0)] | None = None
    stamps: Annotated[dict[str, Any], Field(max_length=0)] | None = None


class Consumer(consumer.Consumer):
    """Celery's consumer, behind a door."""

    connection_errors: tuple[type[Exception], ...]

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """The connection that messages come over."""
        connection = super().connection_for_read(heartbeat)
        _guard(connection.transport)
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of a connection that is lost, so that there can be another."""
        # kombu 5.7 closes a Redis channel again whose client is gone already, where a broker goes away twice
        # within seconds. By then there is nothing left to be done.
        _unless_gone(super().on_connection_error_after_connected)(exc)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge a message, or return it; one that came over a lost connection comes back by itself."""
        return super().call_soon_ack(_unless_gone(p), *args, **kwargs)  # type: ignore[misc]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        handle = super().create_task_handler(*args, **options)

        def admit(message: Any) -> None:
            try:
                check_message(message)
            except MessageRefusedError as error:
                self._refuse(message, error)
                return
            bound_countdown(message.headers)
            try:
                handle(message)
            except self.connection_errors:
                raise
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
                # What nobody has thought of yet: Celery would end with it, and so would the next worker.
                self._refuse(message, f"Celery cannot read it: {type(error).__name__}")

        return admit

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that is not what its content type says."""
        self._refuse(message, f"it cannot be decoded: {type(exc).__name__}")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message that is not one of Celery's."""
        self._refuse(message, "it is none of Celery's")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message for a task that there is not."""
        self._refuse(message, "it is for no task of this program")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A message whose time, content type or arguments Celery refuses."""
        self._refuse(message, f"Celery refuses it: {type(exc).__name__}")

    def _refuse(self, message: Any, reason: object) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        log_refused(headers.get("task", "no task"), reason)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)


def _unless_gone(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with a connection, of which nothing comes where its client is gone: kombu has no error for that."""

    def take(*args: Any, **kwargs: Any) -> Any:
        try:
            return step(*args, **kwargs)
        except AttributeError as error:
            logger.debug("the connection was lost before: %s", error)
            return None

    return take


def check_message(message: Any) -> None:
    """Refuse a message of whose parts one is not as this program, or a caller of its tasks, would write it.

    :raises MessageRefusedError: with the first thing that is wrong.
    """
    headers = _check_headers(message.headers)
    if headers.task not in TASKS:
        raise MessageRefusedError("it is for no task of this program")
    if message.content_type != _JSON:
        raise MessageRefusedError(f"its content is {brief(message.content_type)}, not {_JSON}")
    if message.delivery_info.get("routing_key") not in QUEUES:
        # Where it would be put, were it returned.
        raise MessageRefusedError("it says that it came from none of this program's queues")
    body = message.body
    if not isinstance(body, str | bytes) or len(body) > MOST_BYTES:
        raise MessageRefusedError(f"its body has more than {MOST_BYTES:,} bytes, or none")
    try:
        payload = message.payload
    except (ContentDisallowed, DecodeError, RecursionError, LookupError, ValueError, TypeError) as error:
        raise MessageRefusedError(f"its body cannot be decoded: {type(error).__name__}") from None
    _check_payload(payload)


def bound_countdown(headers: dict[str, Any]) -> None:
    """Have a step of a job be due no later than any countdown lasts: more is the error of its sender's clock."""
    if headers.get("eta") is None or headers["task"] == "osml_tasks.detect":
        return
    latest = datetime.now(UTC) + timedelta(seconds=MAX_COUNTDOWN)
    if _due(headers["eta"]) > latest:
        headers["eta"] = latest.isoformat()


def _due(eta: str) -> datetime:
    due = datetime.fromisoformat(eta)
    return due if due.tzinfo else due.replace(tzinfo=UTC)


def _check_headers(headers: Any) -> _Headers:
    if not isinstance(headers, dict):
        raise MessageRefusedError("it has no headers")
    try:
        checked = _Headers.model_validate(headers)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise MessageRefusedError(f"its header {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for name, value in (checked.model_extra or {}).items():
        if hasattr(Context, name) or name in _EMBEDDED or name.startswith("_"):
            raise MessageRefusedError(f"its header {brief(name)} is none that may come with a message")
        if (isinstance(value, str) and len(value) > 8192) or _is_deep(value):
            raise MessageRefusedError(f"its header {brief(name)} is too large")
    _check_eta(checked.eta)
    return checked


def _check_eta(eta: str | None) -> None:
    """One that lies far ahead would come back from the broker again and again, and never be done."""
    if eta is None:
        return
    try:
        ahead = _due(eta) - datetime.now(UTC)
    except (ValueError, OverflowError):
        raise MessageRefusedError("its header eta is no time") from None
    if ahead > FARTHEST:
        raise MessageRefusedError(f"its time is more than {FARTHEST.total_seconds():.0f} s away")


def _check_payload(payload: Any) -> None:
    if not isinstance(payload, list) or len(payload) != 3:
        raise MessageRefusedError("its body is no list of arguments, keywords and what follows")
    arguments, keywords, following = payload
    if not isinstance(arguments, list) or not isinstance(keywords, dict):
        raise MessageRefusedError("its arguments are no list and mapping")
    if _is_deep(payload):
        raise MessageRefusedError(f"its body is nested more than {_DEEPEST} deep")
    if following is None:
        return
    if not isinstance(following, dict) or not following.keys() <= {*_EMBEDDED}:
        raise MessageRefusedError("what is to follow it is none of Celery's")
    for name, messages in following.items():
        check_following(name, messages)


def _is_deep(value: Any) -> bool:
    """Whether something is nested deeper than what the pool's processes are sent could be."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [*chain.from_iterable(map(_within, level))]
        if not level:
            return False
    return True


def _within(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list) else iter(())


def _guard(transport: Any) -> None:
    """Have a transport of Redis drop what is no message at all: it would end the worker, and then the next."""
    cycle: Any = getattr(transport, "cycle", None)
    if not hasattr(cycle, "on_readable"):
        return
    read, deliver = cycle.on_readable, transport._deliver

    def on_readable(descriptor: int) -> Any:
        try:
            return read(descriptor)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            if not _was_decoding(error):
                raise
            log_refused("no task", f"it is no JSON: {type(error).__name__}")
            return None

    def _deliver(raw: Any, queue: str) -> None:
        if complaint := _complaint(raw):
            log_refused("no task", complaint)
            return
        try:
            deliver(raw, queue)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            log_refused("no task", f"it is none of Celery's: {type(error).__name__}")

    cycle.on_readable, transport._deliver = on_readable, _deliver


def _was_decoding(error: BaseException) -> bool:
    """Whether an error is that of an item in Redis, rather than of the connection."""
    modules = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
    return not modules.isdisjoint({"kombu.utils.json", "kombu.utils.encoding"})


def _complaint(raw: Any) -> str | None:
    """What is wrong with an item of a queue in Redis, before anything is made of it."""
    if not isinstance(raw, dict) or not isinstance(raw.get("properties"), dict):
        return "it is none of Celery's"
    properties, headers = raw["properties"], raw.get("headers")
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(properties.get("delivery_info"), dict):
        return "it is none of Celery's"
    if headers is not None and (not isinstance(headers, dict) or "compression" in headers):
        return "its headers are none of Celery's, or say that it is compressed"
    if len(raw.get("body") or "") > 2 * MOST_BYTES:
        return f"its body has more than {MOST_BYTES:,} bytes"
    return None
