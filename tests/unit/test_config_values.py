"""Whatever an option is set to: a configuration that works, or a line for each value that is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osml_tasks.config import AsyncEndpointConfig
from osml_tasks.errors import ExtensionConfigurationError
from osml_tasks.jobs import JobOptions, shard_size
from osml_tasks.polling import backoff, next_poll

FAST = settings(deadline=None, max_examples=60, derandomize=True)
BUCKETS = {"input_bucket": "tiles-in", "output_bucket": "tiles-out"}
ROLE = "arn:aws:iam::111122223333:role/r"
SECRET = "sesame-4711"
OPTIONS = sorted(AsyncEndpointConfig.model_fields)
VARIABLES = {
    name: [str(choice) for choice in field.validation_alias.choices]  # type: ignore[union-attr]
    for name, field in AsyncEndpointConfig.model_fields.items()
}
ROOM = 300
"""Characters beside a value in an error's line, at most."""


def _is_storable(text: str) -> bool:
    try:
        return os.fsdecode(os.fsencode(text)) == text
    except UnicodeError:
        return False


# What an environment can hold: no NUL, and what is not UTF-8 as lone surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=())).filter(_is_storable)
TELLING_TEXTS = st.sampled_from(
    ["", " ", "0", "-1", "1e300", "1e-9", "nan", "inf", "-inf", "1_000", "٣", "9" * 5000, "0x10", "true", "None", "[1]"]
) | st.sampled_from(["/", "/:", ":", "a:/b", "/a/../b", "//", "..", "a//b", "s3://bucket", "A", "a" * 64, "\n", "{}"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.sampled_from([10**30, -(10**30), 10**5000, 1e300, 1e-300, 2**63, Decimal("1e999"), timedelta(1), object(), 1j])
    | st.sampled_from([Path("/a"), Path("a"), (Path("/a:b"),), ("/a", "b"), [], {}, {"a": object()}, {1}, int, print])
    | st.lists(st.text() | st.integers(), max_size=3)
    | TELLING_TEXTS
)


@contextmanager
def environment(values: Mapping[str, str]) -> Any:
    foreign = ("ASYNC_SM_", "ARTIFACT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with patch.dict(os.environ, kept | values, clear=True):
        yield


def configuration(variables: Mapping[str, str], **options: Any) -> AsyncEndpointConfig | None:
    """A configuration; or None, where each wrong option has had its line."""
    with environment(variables):
        try:
            return AsyncEndpointConfig(**options)
        except ExtensionConfigurationError as error:
            text = str(error)
    lines = text.splitlines()
    assert lines
    for line in lines:
        assert line.isprintable()
        assert len(line) <= 200 + ROOM
        assert line.split()[0] in OPTIONS
    return None


def works(config: AsyncEndpointConfig) -> None:
    """Do what is done with numbers of a configuration, with those of one that was let through."""
    with environment(config.environment):
        assert AsyncEndpointConfig() == config
    options = JobOptions.from_config(config)
    assert orjson.loads(orjson.dumps(options)) == {
        name: getattr(options, name) for name in JobOptions.__dataclass_fields__
    }
    assert 1 <= shard_size(100_000, options.max_concurrent_jobs) <= 1000
    assert 0 < next(backoff(options, start=10**6)) <= options.max_polling_interval
    assert 0.05 <= next_poll(options, 10**6, [1e9], 1e9) <= 30
    for seconds in (options.max_wait_time, options.cleanup_delay_seconds, config.cleanup_leftover_seconds):
        assert timedelta(seconds=seconds) < timedelta(days=400)


@pytest.mark.parametrize("option", OPTIONS)
@settings(FAST, max_examples=20)
@given(value=VALUES)
def test_any_value_of_a_keyword_gives_a_configuration_that_works_or_one_line(option: str, value: object) -> None:
    role = {} if option == "assume_role_arn" else {"assume_role_arn": ROLE}
    if config := configuration({}, **BUCKETS | role | {option: value}):
        works(config)


@pytest.mark.parametrize("option", OPTIONS)
@settings(FAST, max_examples=20)
@given(text=TEXTS | TELLING_TEXTS)
def test_any_text_of_a_variable_gives_a_configuration_that_works_or_one_line(option: str, text: str) -> None:
    others = {VARIABLES[name][0]: bucket for name, bucket in BUCKETS.items() if name != option}
    role = {} if option == "assume_role_arn" else {"ASYNC_SM_ASSUME_ROLE_ARN": ROLE}
    for variable in VARIABLES[option]:
        if config := configuration(others | role | {variable: text}):
            works(config)


@FAST
@given(
    st.dictionaries(st.sampled_from(OPTIONS), VALUES), st.dictionaries(st.sampled_from(OPTIONS), TEXTS | TELLING_TEXTS)
)
def test_options_that_are_wrong_together_have_a_line_each_and_tell_no_secret(
    options: dict[str, Any], variables: dict[str, str]
) -> None:
    secret = {"external_id": f"{SECRET} is too odd"}
    with environment({VARIABLES[name][0]: text for name, text in variables.items()}):
        with pytest.raises(ExtensionConfigurationError) as caught:
            AsyncEndpointConfig(**options | secret)
        lines = str(caught.value).splitlines()
    assert SECRET not in str(caught.value)
    assert any(line.startswith("external_id ") for line in lines)
    named = [line.split()[0] for line in lines]
    assert set(named) <= set(OPTIONS)
    assert [name for name in named if name != "tile_roots"] == sorted(
        {name for name in named if name != "tile_roots"}, key=named.index
    )


SOUND = st.fixed_dictionaries(
    {"input_bucket": st.just("tiles-in"), "output_bucket": st.just("tiles-out")},
    optional={
        "input_prefix": st.text("abc/._-", max_size=20).filter(lambda text: not {".", ".."} & set(text.split("/"))),
        "failure_bucket": st.just("failures"),
        "max_wait_time": st.floats(1, 604_800),
        "polling_interval": st.floats(0.01, 1000),
        "exponential_backoff_multiplier": st.floats(1, 10),
        "max_retries": st.integers(0, 100),
        "cleanup_enabled": st.booleans(),
        "cleanup_policy": st.sampled_from(["immediate", "delayed", "disabled"]),
        "cleanup_delay_seconds": st.floats(0, 1e6),
        "max_concurrent_jobs": st.integers(1, 1_000_000),
        "job_queue_timeout": st.floats(0.001, 604_800),
        "inline_payload_max_bytes": st.integers(0, 128_000),
        "tile_roots": st.lists(
            st.text(st.characters(exclude_characters="\0:", exclude_categories=("Cs",)), min_size=1).map("/".__add__),
            max_size=3,
        ),
        "assume_role_arn": st.just(ROLE),
        "metrics_enabled": st.booleans(),
        "metrics_namespace": st.text("abc/._-", min_size=1, max_size=20),
        "log_format": st.sampled_from(["human", "json"]),
    },
)


@FAST
@given(SOUND, st.none() | st.text("abc/._-@=", min_size=2, max_size=40))
def test_its_environment_gives_the_same_configuration_wherever_that_is_read(
    options: dict[str, Any], external_id: str | None
) -> None:
    if "assume_role_arn" in options:
        options |= {"external_id": external_id}
    config = AsyncEndpointConfig(**options)
    works(config)
    elsewhere = {
        "ASYNC_SM_FAILURE_BUCKET": "other",
        "ASYNC_SM_ASSUME_ROLE_ARN": f"{ROLE}/other",
        "ASYNC_SM_EXTERNAL_ID": "other",
        "ASYNC_SM_INPUT_BUCKET": "other",
    }
    with environment(elsewhere | config.environment):
        assert AsyncEndpointConfig() == config


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("max_wait_time", 1e300, "less than or equal to 604800"),
        ("max_wait_time", 604_801, "less than or equal to 604800"),
        ("job_queue_timeout", float("inf"), "finite"),
        ("polling_interval", 1e-9, "greater than or equal to 0.01"),
        ("max_polling_interval", 10**7, "less than or equal to 604800"),
        ("cleanup_delay_seconds", float("inf"), "finite"),
        ("cleanup_delay_seconds", 1e9, "less than or equal to 31622400"),
        ("cleanup_leftover_seconds", 1e9, "less than or equal to 31622400"),
        ("exponential_backoff_multiplier", float("nan"), "10"),
        ("max_concurrent_jobs", 10**30, "less than or equal to 1000000"),
        pytest.param("max_concurrent_jobs", 10**5000, "a number of thousands of digits", id="digits"),
        ("max_retries", type("Odd", (), {"__repr__": lambda self: "a\n\x1b[31m"})(), r"is a\n\x1b[31m: "),
        ("max_retries", type("Odd", (), {"__repr__": lambda self: 1 / 0})(), "valid integer"),
        ("input_prefix", b"../x", "valid string"),
        ("tile_roots", "/a\0b", "'/a\\x00b' has a character"),
        ("tile_roots", (Path("/a:/b"),), "'/a:/b' has a character"),
        ("assume_role_arn", "arn:aws:iam::١٢٣٤٥٦٧٨٩٠١٢:role/r", "should match"),
        ("assume_role_arn", f"{ROLE}\u2028", "should match"),
        ("external_id", "x", "not as it should be"),
        ("external_id", "with blank", "not as it should be"),
        ("a\nb", 1, r"a\nb is not an option"),
    ],
)
def test_what_no_computer_could_keep_to_is_refused(option: str, value: object, said: str) -> None:
    with environment({}), pytest.raises(ExtensionConfigurationError) as caught:
        AsyncEndpointConfig(**BUCKETS | {"assume_role_arn": ROLE} | {option: value})
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
