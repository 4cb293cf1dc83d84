"""A line of the log, for people and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from osml_tasks.logs import HumanFormatter, JsonFormatter, about, log_step
from osml_tasks.redaction import Redaction

HUMAN, JSON = HumanFormatter(Redaction(["external-4711"])), JsonFormatter(Redaction(["external-4711"]))
AT = 1795510800.25
names = st.text(st.characters(codec=None))  # lone surrogates too, as in a file name that is no UTF-8


def recorded(call: Callable[[logging.Logger], None]) -> logging.LogRecord:
    """The one record that a call makes."""
    logger, records = logging.Logger("osml_tasks.test"), []  # type: list[logging.LogRecord]
    logger.addFilter(lambda record: records.append(record) or False)  # type: ignore[func-returns-value]
    call(logger)
    (record,) = records
    record.created = AT
    return record


def failed() -> logging.LogRecord:
    def call(logger: logging.Logger) -> None:
        try:
            raise ValueError("https://host/k?X-Amz-Signature=abc\n2026-11-24T09:00:00Z INFO forged")
        except ValueError:
            logger.exception("it failed", extra=about(job="j", shard=3))

    return recorded(call)


def test_a_step_for_people() -> None:
    record = recorded(lambda log: log_step(log, "submit", job="j-1", shard=3, tiles=50, seconds=1.23456, note=None))
    assert HUMAN.format(record) == "2026-11-24T09:00:00Z INFO submit job=j-1 shard=00003 tiles=50 seconds=1.235"
    record.node = "submit-1@host"
    assert HUMAN.format(record).endswith(" worker=submit-1@host")


def test_a_step_as_json() -> None:
    record = recorded(lambda log: log_step(log, "submit", job="j-1", shard=3, tiles=50, seconds=1.23456))
    record.node = "submit-1@host"
    said = json.loads(JSON.format(record))
    assert said.pop("pid") > 0
    assert said == {
        "time": "2026-11-24T09:00:00.250Z",
        "level": "INFO",
        "logger": "osml_tasks.test",
        "worker": "submit-1@host",
        "process": "MainProcess",
        "message": "submit",
        "step": "submit",
        "job": "j-1",
        "shard": "00003",
        "tiles": 50,
        "seconds": 1.235,
    }


def test_a_value_with_spaces_is_quoted() -> None:
    record = recorded(lambda log: log_step(log, "failed", level=logging.ERROR, job="j", error='no "x"=1 here'))
    assert HUMAN.format(record) == '2026-11-24T09:00:00Z ERROR failed job=j error="no \\"x\\"=1 here"'


def test_an_exception_is_a_field_of_the_one_line_and_indented_for_people() -> None:
    said = json.loads(JSON.format(failed()))
    assert said["exception"].startswith("Traceback")
    assert (said["message"], said["job"], said["shard"]) == ("it failed", "j", "00003")
    first, *others = HUMAN.format(failed()).split("\n")
    assert first == "2026-11-24T09:00:00Z ERROR it failed job=j shard=00003"
    assert len(others) > 3
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("written", [HUMAN, JSON])
def test_nothing_secret_is_in_message_field_or_traceback(written: logging.Formatter) -> None:
    record = failed()
    record.msg = "no luck with redis://:sesame@broker/0 and external-4711"
    record.fields = about(job="j", error="https://host/k?X-Amz-Signature=abc")["fields"]
    said = written.format(record)
    assert "***@broker" in said
    assert not [secret for secret in ("sesame", "external-4711", "X-Amz-Signature", "?") if secret in said]


@given(message=names, value=names)
@example(message="a\u2028b\x85c\x1bd", value="two\nlines")
def test_a_line_is_one_line_whatever_is_in_it(message: str, value: str) -> None:
    record = recorded(lambda log: log.warning("%s", message, extra=about(job="j", error=value)))
    human, written = HUMAN.format(record), JSON.format(record)
    assert human.isprintable()
    assert len(written.splitlines()) == 1
    assert json.loads(written)["job"] == "j"


@given(message=st.text(st.sampled_from("aä船 \"'\\\n\t{}"), min_size=1))
def test_json_says_exactly_what_was_said(message: str) -> None:
    said: dict[str, Any] = json.loads(JSON.format(recorded(lambda log: log.info("%s", message))))
    assert said["message"] == message


def test_a_stack_is_shown_and_no_exception_is_none() -> None:
    assert "Stack (most recent" in JSON.format(recorded(lambda log: log.info("here", stack_info=True)))
    assert sys.exc_info()[0] is None
    assert "exception" not in json.loads(JSON.format(recorded(lambda log: log.error("no", exc_info=True))))
