"""Edges of configuration, jobs, polling and features that the modules' own tests leave out."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError, NotAllowedError, UnparsableOutputError
from osml_tasks.features import add_provenance, join_lines, parse, source_of, to_lines
from osml_tasks.jobs import Job, JobOptions, JobState, Round, Shard, failure_filename, output_filename
from osml_tasks.polling import backoff, failure_reason, next_poll
from osml_tasks.tile import Tile

ROLE = "arn:aws:iam::123456789012:role/tiles"
SHARD: dict[str, Any] = {"job": "job-1", "shard": 0, "first": 0, "tiles": 5, "start": 0, "end": 100}
OPTIONS = JobOptions(3600.0, 5.0, 60.0, 1.5, 3, 100, 128_000, "immediate")


@pytest.fixture(autouse=True)
def only_the_buckets_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.upper().startswith(("ASYNC_SM_", "ARTIFACT_BUCKET")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("ARTIFACT_BUCKET", "tiles")
    monkeypatch.setenv("ASYNC_SM_OUTPUT_BUCKET", "outputs")


def complaint(**options: object) -> str:
    with pytest.raises(ExtensionConfigurationError) as caught:
        AsyncEndpointConfig(**options)
    return str(caught.value)


WRONG = [
    ("input_bucket", "ARTIFACT_BUCKET", "No_Bucket"),
    ("output_bucket", "ASYNC_SM_OUTPUT_BUCKET", "s3://out"),
    ("input_prefix", "ASYNC_SM_INPUT_PREFIX", "a b"),
    ("output_prefix", "ASYNC_SM_OUTPUT_PREFIX", "ü"),
    ("failure_bucket", "ASYNC_SM_FAILURE_BUCKET", "x"),
    ("max_wait_time", "ASYNC_SM_MAX_WAIT_TIME", "0"),
    ("polling_interval", "ASYNC_SM_POLLING_INTERVAL", "-1"),
    ("max_polling_interval", "ASYNC_SM_MAX_POLLING_INTERVAL", "inf"),
    ("exponential_backoff_multiplier", "ASYNC_SM_BACKOFF_MULTIPLIER", "0.9"),
    ("max_retries", "ASYNC_SM_MAX_RETRIES", "2.5"),
    ("cleanup_enabled", "ASYNC_SM_CLEANUP_ENABLED", "perhaps"),
    ("cleanup_policy", "ASYNC_SM_CLEANUP_POLICY", "later"),
    ("cleanup_delay_seconds", "ASYNC_SM_CLEANUP_DELAY_SECONDS", "soon"),
    ("enable_worker_optimization", "ASYNC_SM_WORKER_OPTIMIZATION", "2"),
    ("submission_workers", "ASYNC_SM_SUBMISSION_WORKERS", "0"),
    ("polling_workers", "ASYNC_SM_POLLING_WORKERS", "two"),
    ("max_concurrent_jobs", "ASYNC_SM_MAX_CONCURRENT_JOBS", "0"),
    ("job_queue_timeout", "ASYNC_SM_JOB_QUEUE_TIMEOUT", "nan"),
    ("inline_payload_max_bytes", "ASYNC_SM_INLINE_PAYLOAD_MAX_BYTES", "128001"),
    ("max_output_bytes", "ASYNC_SM_MAX_OUTPUT_BYTES", "0"),
    ("max_block_bytes", "ASYNC_SM_MAX_BLOCK_BYTES", "0"),
    ("max_image_memory_bytes", "ASYNC_SM_MAX_IMAGE_MEMORY_BYTES", "1000"),
    ("max_cut_seconds", "ASYNC_SM_MAX_CUT_SECONDS", "3601"),
    ("tile_roots", "ASYNC_SM_TILE_ROOTS", "data/tiles"),
    ("assume_role_arn", "ASYNC_SM_ASSUME_ROLE_ARN", "tiles"),
]


@pytest.mark.parametrize(("option", "variable", "text"), WRONG)
@pytest.mark.parametrize("source", ["variable", "keyword"])
def test_a_wrong_value_is_said_in_one_line_with_option_variable_and_value(
    option: str, variable: str, text: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "variable":
        monkeypatch.setenv(variable, text)
    message = complaint(**{option: text} if source == "keyword" else {})
    assert message.count("\n") == 0
    assert all(part in message for part in (option, variable, text))


def test_all_wrong_variables_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, variable, text in WRONG:
        monkeypatch.setenv(variable, text)
    lines = complaint().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(option for option, *_ in WRONG)


def test_every_rule_that_options_break_together_has_its_line() -> None:
    assert len(complaint(max_polling_interval=1, external_id="xy").splitlines()) == 2


def test_what_breaks_a_rule_together_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNC_SM_MAX_POLLING_INTERVAL", "2")
    assert "ASYNC_SM_MAX_POLLING_INTERVAL" in complaint()


def test_an_external_id_goes_with_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNC_SM_EXTERNAL_ID", "theirs")
    assert "assume_role_arn" in complaint()
    assert AsyncEndpointConfig(assume_role_arn=ROLE).external_id == "theirs"
    assert AsyncEndpointConfig(assume_role_arn=ROLE, external_id="mine").external_id == "mine"


def test_artifact_bucket_comes_before_its_second_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNC_SM_INPUT_BUCKET", "second")
    assert AsyncEndpointConfig().input_bucket == "tiles"


@pytest.mark.parametrize("prefix", ["..", "a/../b", "./a"])
def test_a_prefix_that_no_object_can_be_written_under_is_refused(prefix: str) -> None:
    assert "input_prefix" in complaint(input_prefix=prefix)


def test_cleanup_that_is_not_enabled_is_a_disabled_policy() -> None:
    config = AsyncEndpointConfig(cleanup_enabled=False, cleanup_policy="delayed")
    assert JobOptions.from_config(config).cleanup_policy == "disabled"


@pytest.mark.parametrize("field", ["shard", "first", "tiles", "start", "end"])
@pytest.mark.parametrize("value", [-1, 1.0, "1", None, [1], float("nan"), True])
def test_a_message_with_a_wrong_number_is_refused(field: str, value: object) -> None:
    with pytest.raises(NotAllowedError):
        Shard.from_message(SHARD | {field: value})


@pytest.mark.parametrize("field", [*SHARD])
def test_a_message_that_lacks_something_is_refused(field: str) -> None:
    with pytest.raises(NotAllowedError):
        Shard.from_message({key: value for key, value in SHARD.items() if key != field})


def test_a_message_that_names_more_bytes_than_there_can_be_is_refused() -> None:
    with pytest.raises(NotAllowedError):
        Shard.from_message(SHARD | {"end": 1 << 200})


@given(st.integers(0, 1 << 40), st.text(), st.text())
def test_a_tile_reads_back_as_it_was_whatever_it_is_called(index: int, location: str, name: str) -> None:
    tile = Tile(index, location, name)
    line = tile.to_json()
    assert line.splitlines() == [line[:-1]]
    assert Tile.from_json(line) == tile


@given(st.lists(st.tuples(st.integers(0, 99_999_999), st.integers(1, 101)), unique=True))
def test_no_two_invocations_share_a_name(invocations: list[tuple[int, int]]) -> None:
    job = Job("job-1", "ships", (Round(1, 1),), 0.0, "tiles", "in/", "outputs", OPTIONS)
    used = [name(*one) for name in (job.inference_id, output_filename, failure_filename) for one in invocations]
    assert len({*used}) == len(used) == 3 * len(invocations)


def test_three_states_are_the_end_of_a_job() -> None:
    assert {state.value for state in JobState if state.is_over} == {"completed", "failed", "cancelled"}


@pytest.mark.parametrize("body", [b'{"message": " "}', b'{"error": "\\n"}', b"[" * 100_000, b"\xff" * 5000])
def test_a_failure_object_of_any_kind_gives_one_short_line(body: bytes) -> None:
    _, message = failure_reason(body)
    assert 0 < len(message) <= 1000
    assert len(message.splitlines()) == 1


OPTIONS_OF_ANY_JOB = st.builds(
    lambda first, longest, growth: replace(
        OPTIONS,
        polling_interval=first,
        max_polling_interval=first * longest,
        exponential_backoff_multiplier=growth,
    ),
    st.floats(0.01, 1e4),
    st.floats(1, 1e3),
    st.floats(1, 10),
)


@given(OPTIONS_OF_ANY_JOB)
def test_waits_of_any_job_start_at_the_interval_grow_and_stop_at_the_longest(options: JobOptions) -> None:
    waits = list(islice(backoff(options, jitter=lambda: 0.0), 60))
    assert waits[0] == options.polling_interval
    assert all(before <= after <= options.max_polling_interval for before, after in pairwise(waits))


@given(OPTIONS_OF_ANY_JOB, st.integers(0, 10**9))
def test_chance_takes_a_tenth_off_at_most(options: JobOptions, start: int) -> None:
    full = next(backoff(options, start=start, jitter=lambda: 0.0))
    assert full * 0.8999 <= next(backoff(options, start=start)) <= full


@given(OPTIONS_OF_ANY_JOB, st.integers(0, 10**6), st.lists(st.floats(-100, 1e5), min_size=1))
def test_a_poll_comes_just_after_the_first_deadline_at_the_latest(
    options: JobOptions, idle: int, ahead: list[float]
) -> None:
    wait = next_poll(options, idle, [1e9 + seconds for seconds in ahead], 1e9)
    assert 0.05 <= wait <= max(0.05, min(ahead) + 0.1)


def collection(feature: object) -> bytes:
    return orjson.dumps({"type": "FeatureCollection", "features": [feature]})


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "output",
    [
        collection({"type": "Feature", "geometry": {"type": ["Point"], "coordinates": [0, 0]}}),
        collection({"type": "Feature", "geometry": {"type": {}, "coordinates": [0, 0]}}),
        b"",
        b"NaN",
        nested(1000),
        b'{"type": "FeatureCollection", "features": [' + nested(1000) + b"]}",
        b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"a": 1e400}}]}',
        b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"a": Infinity}}]}',
    ],
    ids=["type is a list", "type is an object", "empty", "NaN", "deep", "deep feature", "1e400", "infinity"],
)
def test_what_is_no_collection_is_unparsable_and_nothing_worse(output: bytes) -> None:
    with pytest.raises(UnparsableOutputError) as caught:
        parse(output)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [10, 250, 300, 1000])
def test_what_was_parsed_can_be_written_down(depth: int) -> None:
    output = b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"a": %b}}]}'
    try:
        features = parse(output % nested(depth))
    except UnparsableOutputError:
        return
    add_provenance(features, job_id="job-1", source=source_of("a.png"), inferred=datetime(2026, 1, 1, tzinfo=UTC))
    assert orjson.loads(to_lines(features)) == features[0]


@pytest.mark.parametrize(
    "given",
    [{"location": "orbit"}, "orbit", [{"location": "orbit"}]],
    ids=["object", "text", "list"],
)
def test_what_a_model_says_of_its_sources_is_not_lost(given: object) -> None:
    feature = {"type": "Feature", "geometry": None, "properties": {"sourceMetadata": given, "score": 0.5}}
    add_provenance([feature], job_id="job-1", source=source_of("a.png"), inferred=datetime(2026, 1, 1, tzinfo=UTC))
    assert b"orbit" in to_lines([feature])
    assert b'{"location":"a.png","format":"PNG"}' in to_lines([feature])


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_no_lines_make_no_elements(chunks: list[bytes]) -> None:
    assert b"".join(join_lines(chunks)) == b""


@given(st.lists(st.sampled_from([b"1\n", b"2", b"3", b"\n", b""])))
def test_elements_come_out_as_they_went_in_however_often_there_is_nothing(chunks: list[bytes]) -> None:
    text = b"".join(chunks)
    joined = b"".join(join_lines(chunks))
    assert joined == text.removesuffix(b"\n").replace(b"\n", b",\n")
