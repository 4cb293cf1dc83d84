"""Lines of a log: what each is about, and how it is written, for people or as JSON.

Nothing here knows Celery; ``celery_logs`` has its workers write this way.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from osml_tasks.config import LogFormat
from osml_tasks.one_line import in_one_line

Redact = Callable[[str], str]

_OTHER_LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # JSON lets them stand as they are


def about(*, shard: int | None = None, **fields: str | float | None) -> dict[str, Any]:
    """``extra`` for a call of a logger: what the line is about, beside its message; None is left out.

    :param shard: its number in its job.
    :param fields: ``job``, and whatever else is to be found by its name.
    """
    named: dict[str, str | float | None] = {"job": fields.pop("job", None), "shard": _padded(shard)}
    return {"fields": {name: value for name, value in (named | fields).items() if value is not None}}


def log_step(logger: logging.Logger, step: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write the one line of a step: its name is the message, and what came of it are the fields.

    :param fields: as :func:`about` takes them; durations are ``seconds``.
    """
    logger.log(level, step, extra=about(**fields) | {"step": step})


def _padded(shard: int | None) -> str | None:
    """A shard as it stands in the names of objects."""
    return None if shard is None else f"{shard:05d}"


@dataclass(frozen=True, slots=True)
class _Line:
    """What a record says, with nothing in it that may not be said.

    :ivar node: the worker that says it; empty outside of one.
    :ivar trace: traceback or stack; empty where there is none.
    """

    message: str
    step: str | None
    fields: dict[str, str | float]
    node: str
    trace: str


class _Formatter(logging.Formatter):
    """What both forms have in common.

    :param redact: takes out of a text what may not be said.
    """

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        return self._write(
            record,
            _Line(
                message=self._clean(record.getMessage()),
                step=getattr(record, "step", None),
                fields={name: self._value(value) for name, value in fields.items()},
                node=getattr(record, "node", ""),
                trace=self._clean("\n".join(self._traces(record))),
            ),
        )

    def _write(self, record: logging.LogRecord, line: _Line) -> str:
        raise NotImplementedError

    def _value(self, value: object) -> str | float:
        if isinstance(value, float):
            return round(value, 3)
        return value if isinstance(value, int) else self._clean(str(value))

    def _traces(self, record: logging.LogRecord) -> Iterator[str]:
        if record.exc_info and record.exc_info[0] is not None:
            yield self.formatException(record.exc_info)
        elif record.exc_text:
            yield record.exc_text
        if record.stack_info:
            yield self.formatStack(record.stack_info)

    def _clean(self, text: str) -> str:
        # File names may have bytes that are no UTF-8, and neither file nor JSON takes those.
        return self._redact(text).encode("utf-8", "backslashreplace").decode()


class HumanFormatter(_Formatter):
    """``2026-11-24T09:00:00Z INFO submit job=… shard=00003 tiles=50 … worker=…``, and tracebacks indented below."""

    def _write(self, record: logging.LogRecord, line: _Line) -> str:
        fields = line.fields | ({"worker": line.node} if line.node else {})
        pairs = [f"{name}={_quoted(value)}" for name, value in fields.items()]
        first = " ".join([_time(record, "seconds"), record.levelname, in_one_line(line.message), *pairs])
        # Indented, so that a line which begins with a time is one that this program wrote.
        return "\n  ".join([first, *map(in_one_line, line.trace.splitlines())])


class JsonFormatter(_Formatter):
    """One JSON object a line, whatever is in it."""

    def _write(self, record: logging.LogRecord, line: _Line) -> str:
        said = {
            "time": _time(record, "milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "worker": line.node,
            "process": record.processName,
            "pid": record.process,
            "message": line.message,
            "step": line.step,
            **line.fields,
            "exception": line.trace,
        }
        text = orjson.dumps({name: value for name, value in said.items() if value not in (None, "")}).decode()
        return _OTHER_LINE_ENDS.sub(lambda end: f"\\u{ord(end[0]):04x}", text)


_FORMATTERS: dict[LogFormat, Callable[[Redact], logging.Formatter]] = {
    LogFormat.HUMAN: HumanFormatter,
    LogFormat.JSON: JsonFormatter,
}


def formatter(log_format: LogFormat, redact: Redact) -> logging.Formatter:
    """What writes a log in a format.

    :param redact: takes out of a text what may not be said.
    """
    return _FORMATTERS[log_format](redact)


def _time(record: logging.LogRecord, timespec: str) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def _quoted(value: str | float) -> str:
    text = in_one_line(str(value))
    if text and not set(text) & set(' "='):
        return text
    return '"{}"'.format(text.replace('"', '\\"'))
