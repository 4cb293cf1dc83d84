"""What becomes of a tile, and when to look again."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.jobs import JobOptions, Reason
from osml_tasks.polling import (
    MAX_COUNTDOWN,
    Standing,
    TileRecord,
    backoff,
    due_again,
    expire,
    failure_reason,
    give_up,
    next_poll,
    standing,
    try_again,
)

OPTIONS = JobOptions(
    max_wait_time=100.0,
    polling_interval=2.0,
    max_polling_interval=10.0,
    exponential_backoff_multiplier=2.0,
    max_retries=2,
    max_concurrent_jobs=100,
    inline_payload_max_bytes=128_000,
    cleanup_policy="immediate",
)
IN_FLIGHT = TileRecord(invoked_at=1000.0)
RECORDS = st.builds(
    TileRecord,
    attempt=st.integers(1, 100),
    invoked_at=st.none() | st.floats(0, 2e9),
    due=st.floats(0, 2e9),
    output=st.none() | st.text(),
    failure=st.none() | st.text(),
    reason=st.none() | st.sampled_from(Reason),
    error=st.text(),
    given_up=st.booleans(),
    uploaded=st.booleans(),
)


def judged(record: TileRecord | None, *, output: bool = False, failure: bool = False, now: float = 1001.0) -> Standing:
    return standing(record, output_arrived=output, failure_arrived=failure, options=OPTIONS, now=now)


def test_a_tile_is_judged_by_its_record_and_what_has_arrived() -> None:
    assert judged(None) is Standing.WAITING
    assert judged(TileRecord(due=5.0)) is Standing.WAITING
    assert judged(IN_FLIGHT) is Standing.IN_FLIGHT
    assert judged(IN_FLIGHT, failure=True) is Standing.REFUSED
    assert judged(IN_FLIGHT, now=1100.1) is Standing.EXPIRED
    assert judged(replace(IN_FLIGHT, given_up=True), failure=True) is Standing.FAILED


@given(st.none() | RECORDS, st.booleans(), st.floats(0, 2e9))
def test_an_output_beats_everything_else(record: TileRecord | None, failure: bool, now: float) -> None:
    assert judged(record, output=True, failure=failure, now=now) is Standing.SUCCEEDED


def test_a_failed_tile_is_tried_again_until_its_retries_are_used_up() -> None:
    record = TileRecord()
    attempts = 1
    while not (record := try_again(record, Reason.MODEL, "out of memory", OPTIONS, now=50.0)).given_up:
        assert record.due > 50.0
        assert record.invoked_at is None
        attempts += 1
    assert (attempts, record.attempt, record.reason, record.error) == (3, 3, Reason.MODEL, "out of memory")


def test_no_retries_means_one_attempt() -> None:
    assert try_again(TileRecord(), Reason.MODEL, "no", replace(OPTIONS, max_retries=0), now=0).given_up


def test_a_retry_remembers_that_its_payload_was_uploaded() -> None:
    assert try_again(TileRecord(uploaded=True), Reason.MODEL, "no", OPTIONS, now=0).uploaded


def test_an_expired_tile_says_what_to_change() -> None:
    record = expire(IN_FLIGHT, OPTIONS)
    assert (record.given_up, record.reason) == (True, Reason.TIMEOUT)
    assert "100 s" in record.error
    assert "ASYNC_SM_MAX_WAIT_TIME" in record.error


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"failureReason": "Received server error (500)\\nfrom model"}',
            (Reason.MODEL, "Received server error (500) from model"),
        ),
        (b'{"message": "Request expired in the queue"}', (Reason.TIMEOUT, "Request expired in the queue")),
        (b"the model timed out", (Reason.TIMEOUT, "the model timed out")),
        (b"[1, 2]", (Reason.MODEL, "[1, 2]")),
        (b"", (Reason.MODEL, "the failure object is empty")),
        (b'{"message": " ", "error": 500}', (Reason.MODEL, '{"message": " ", "error": 500}')),
        (b'{"error": {"code": 7, "message": "no"}}', (Reason.MODEL, '{"error": {"code": 7, "message": "no"}}')),
        ('{"message": "\x7fa\u202eb\\u001b[31m"}'.encode(), (Reason.MODEL, r"\x7fa\u202eb\x1b[31m")),
        (b"\x00\xff\x1b]0;title\x07", (Reason.MODEL, "\\x00\ufffd\\x1b]0;title\\x07")),
    ],
)
def test_a_failure_object_gives_its_reason(body: bytes, expected: tuple[Reason, str]) -> None:
    assert failure_reason(body) == expected


FAILURES = st.dictionaries(st.sampled_from(["message", "error", "failureReason"]), st.text() | st.lists(st.text()))


@given(st.binary(max_size=3000) | st.text().map(str.encode) | FAILURES.map(json.dumps).map(str.encode))
def test_any_failure_object_gives_one_short_line(body: bytes) -> None:
    _, message = failure_reason(body)
    assert 0 < len(message) <= 1000
    assert message.isprintable()


def test_a_failure_object_that_is_long_or_deep_gives_one_short_line_too() -> None:
    for body in (b'{"message":' + b"[" * 1000 + b"]" * 1000 + b"}", b'{"message":"' + b"\\u0000" * 100_000 + b'"}'):
        _, message = failure_reason(body)
        assert 0 < len(message) <= 1000
        assert message.isprintable()


@given(st.text())
def test_whatever_an_error_says_its_record_holds_one_short_line(error: str) -> None:
    for record in (
        give_up(TileRecord(), Reason.INPUT, error * 99),
        try_again(TileRecord(), Reason.INPUT, error, OPTIONS, 0),
    ):
        assert record.error.isprintable()
        assert len(record.error) <= 1000
        assert TileRecord.from_json(record.to_json()) == record


def test_backoff_starts_grows_and_stops() -> None:
    waits = list(islice(backoff(OPTIONS, jitter=lambda: 0.0), 5))
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_jitter_takes_off_a_tenth_at_most() -> None:
    assert next(backoff(OPTIONS, jitter=lambda: 1.0)) == pytest.approx(1.8)


def test_backoff_never_overflows() -> None:
    assert next(backoff(OPTIONS, start=10**9, jitter=lambda: 0.0)) == 10.0


@given(st.integers(0, 10**6), st.lists(st.floats(0, 2e9)), st.floats(1e9, 2e9))
def test_the_next_poll_is_never_further_than_a_hop(idle: int, deadlines: list[float], now: float) -> None:
    slow = replace(OPTIONS, polling_interval=1000.0, max_polling_interval=5000.0)
    assert 0.05 <= next_poll(slow, idle, deadlines, now) <= MAX_COUNTDOWN


def test_the_next_poll_does_not_sleep_past_a_deadline() -> None:
    assert next_poll(OPTIONS, 5, [1001.0], now=1000.0) == pytest.approx(1.05)


def test_the_first_tile_that_waits_says_when_to_invoke_again() -> None:
    records = {1: TileRecord(due=7.0), 2: TileRecord(due=5.0), 3: IN_FLIGHT, 4: give_up(TileRecord(), Reason.INPUT, "")}
    assert due_again(records) == 5.0
    assert due_again({3: IN_FLIGHT}) is None


@given(RECORDS)
def test_a_record_is_read_back_as_it_was_written(record: TileRecord) -> None:
    assert TileRecord.from_json(record.to_json()) == record
